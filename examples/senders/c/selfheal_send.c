/*
 * Send one alert to a Selfheal daemon: libzmq, jansson (JSON) and msgpack-c. Written from docs/wire.md.
 *
 *     ./selfheal_send --type service_failure --service risk-manager --message "no heartbeat"
 *
 * Prints `stored ID` once the daemon has the alert on disk and `decided OUTCOME [EXECUTION]`. Exit codes: 0 well,
 * 1 refused for good, 2 usage, 4 no key, or no answer in time, 5 stored, but no decision in time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define FRAMES 5
#define PATH_SIZE 4096
#define DEEPEST 16
#define MAX_BODY_BYTES 65536 /* a much larger one would only end the connection, again and again */
static const double first_resend_s = 0.5, last_resend_s = 30.0, silence_s = 6.0, not_connected_s = 0.1;

enum { REFUSED = 1, USAGE = 2, UNREACHABLE = 4, UNDECIDED = 5 };

struct arguments {
    const char *type, *service, *message, *severity, *address, *key_file, *state, *golden;
    char id[65];
    double timeout_s;
    char encoding; /* 'j' or 'm' */
    bool frames_only;
};

struct key {
    bool is_off;
    char public[64], secret[64], server[64];
};

struct frame {
    char *data;
    size_t size;
};

static void ends_with(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

static void ends_with(int code, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(code);
}

static void *never_null(void *memory) {
    if (memory == NULL) ends_with(REFUSED, "no memory");
    return memory;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* -- where the daemon is and which key opens it ------------------------------------------------------------------- */

static void in_state(const struct arguments *args, const char *name, char path[PATH_SIZE]) {
    const char *state = args->state ? args->state : getenv("SELFHEAL_STATE");
    const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int size;
    if (state && *state) size = snprintf(path, PATH_SIZE, "%s/%s", state, name);
    else if (base && *base) size = snprintf(path, PATH_SIZE, "%s/selfheal/%s", base, name);
    else size = snprintf(path, PATH_SIZE, "%s/.local/state/selfheal/%s", home ? home : "", name);
    if (size < 0 || size >= PATH_SIZE) ends_with(USAGE, "the state directory's path is too long");
}

/* false: no daemon has written its address yet. Asked again for every new socket: a daemon may move. */
static bool find_address(const struct arguments *args, char address[256]) {
    const char *given = args->address ? args->address : args->state ? NULL : getenv("SELFHEAL_GUARDIAN");
    if (given && *given) return snprintf(address, 256, "%s", given) < 256;
    char path[PATH_SIZE];
    in_state(args, "guardian.address", path);
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    bool is_read = fscanf(file, "%255s", address) == 1;
    fclose(file);
    return is_read;
}

static void read_key(const struct arguments *args, struct key *key) {
    char path[PATH_SIZE], line[512], word[64], value[256];
    const char *given = args->key_file ? args->key_file : getenv("SELFHEAL_KEY");
    if (given && *given) snprintf(path, PATH_SIZE, "%s", given);
    else in_state(args, "keys/local.key", path);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        ends_with(UNREACHABLE, "no key: %s: %s (looked at --key-file, $SELFHEAL_KEY, then there)", path, strerror(errno));
    struct stat facts;
    if (fstat(fileno(file), &facts) || facts.st_mode & 077 || facts.st_uid != getuid())
        ends_with(USAGE, "no key: %s: others may read it, or it is another user's; chmod 600 %s", path, path);
    memset(key, 0, sizeof *key);
    while (fgets(line, sizeof line, file)) {
        char *start = strncmp(line, "\xEF\xBB\xBF", 3) == 0 ? line + 3 : line; /* an editor's byte order mark */
        if (*start == '#' || sscanf(start, "%63s %255s", word, value) != 2) continue;
        if (!strcmp(word, "curve") && !strcmp(value, "off")) key->is_off = true;
        else if (!strcmp(word, "public")) snprintf(key->public, sizeof key->public, "%.63s", value);
        else if (!strcmp(word, "secret")) snprintf(key->secret, sizeof key->secret, "%.63s", value);
        else if (!strcmp(word, "server")) snprintf(key->server, sizeof key->server, "%.63s", value);
    }
    fclose(file);
    if (!key->is_off && (strlen(key->public) != 40 || strlen(key->secret) != 40 || strlen(key->server) != 40))
        ends_with(USAGE, "no key: %s: 'public', 'secret' and 'server' are 40 characters of Z85 each", path);
}

/* -- bodies: JSON values in memory, written as JSON or msgpack ------------------------------------------------------ */

static void pack_value(msgpack_packer *packer, json_t *value) {
    const char *name;
    json_t *inner;
    size_t index;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        msgpack_pack_map(packer, json_object_size(value));
        json_object_foreach(value, name, inner) {
            msgpack_pack_str(packer, strlen(name));
            msgpack_pack_str_body(packer, name, strlen(name));
            pack_value(packer, inner);
        }
        break;
    case JSON_ARRAY:
        msgpack_pack_array(packer, json_array_size(value));
        json_array_foreach(value, index, inner) pack_value(packer, inner);
        break;
    case JSON_STRING:
        msgpack_pack_str(packer, json_string_length(value));
        msgpack_pack_str_body(packer, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER: msgpack_pack_int64(packer, json_integer_value(value)); break;
    case JSON_REAL: msgpack_pack_double(packer, json_real_value(value)); break;
    case JSON_TRUE: msgpack_pack_true(packer); break;
    case JSON_FALSE: msgpack_pack_false(packer); break;
    case JSON_NULL: msgpack_pack_nil(packer); break;
    }
}

static struct frame pack(json_t *body, char encoding) {
    struct frame made = {NULL, 0};
    if (encoding == 'j') {
        made.data = never_null(json_dumps(body, JSON_COMPACT | JSON_ENSURE_ASCII));
        made.size = strlen(made.data);
        return made;
    }
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    pack_value(&packer, body);
    made.size = buffer.size;
    made.data = never_null(msgpack_sbuffer_release(&buffer));
    return made;
}

/* NULL: what has no place in a body. */
static json_t *value_of(const msgpack_object *object, int depth) {
    json_t *made = NULL, *inner;
    if (depth > DEEPEST) return NULL;
    switch (object->type) {
    case MSGPACK_OBJECT_NIL: return json_null();
    case MSGPACK_OBJECT_BOOLEAN: return json_boolean(object->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return object->via.u64 > INT64_MAX ? NULL : json_integer((json_int_t)object->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: return json_integer(object->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64: return json_real(object->via.f64);
    case MSGPACK_OBJECT_STR: return json_stringn(object->via.str.ptr, object->via.str.size);
    case MSGPACK_OBJECT_ARRAY:
        made = never_null(json_array());
        for (uint32_t at = 0; at < object->via.array.size; at++) {
            if ((inner = value_of(&object->via.array.ptr[at], depth + 1)) == NULL) goto bad;
            json_array_append_new(made, inner);
        }
        return made;
    case MSGPACK_OBJECT_MAP:
        made = never_null(json_object());
        for (uint32_t at = 0; at < object->via.map.size; at++) {
            const msgpack_object_kv *pair = &object->via.map.ptr[at];
            if (pair->key.type != MSGPACK_OBJECT_STR || pair->key.via.str.size > 255) goto bad;
            char name[256];
            memcpy(name, pair->key.via.str.ptr, pair->key.via.str.size);
            name[pair->key.via.str.size] = '\0';
            if ((inner = value_of(&pair->val, depth + 1)) == NULL) goto bad;
            if (json_object_set_new(made, name, inner) != 0) goto bad;
        }
        return made;
    default: return NULL;
    }
bad:
    json_decref(made);
    return NULL;
}

/* NULL: not a map that can be read. */
static json_t *unpack(const char *data, size_t size, char encoding) {
    json_t *body = NULL;
    if (encoding == 'j') {
        bool is_marked = size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0;
        body = json_loadb(data + (is_marked ? 3 : 0), size - (is_marked ? 3 : 0), JSON_REJECT_DUPLICATES, NULL);
    } else if (encoding == 'm') {
        msgpack_unpacked result;
        msgpack_unpacked_init(&result);
        if (msgpack_unpack_next(&result, data, size, NULL) == MSGPACK_UNPACK_SUCCESS) body = value_of(&result.data, 1);
        msgpack_unpacked_destroy(&result);
    }
    if (body != NULL && !json_is_object(body)) {
        json_decref(body);
        return NULL;
    }
    return body;
}

static void make_frames(const struct arguments *args, struct frame frames[FRAMES]) {
    char host[256] = "unknown", encoding[2] = {args->encoding, '\0'};
    gethostname(host, sizeof host - 1);
    json_t *body = json_pack("{s:s, s:s, s:s, s:s*, s:s*}", "type", args->type, "severity", args->severity, "source", host,
                             "service", args->service, "message", args->message);
    if (body == NULL) ends_with(USAGE, "the alert is not UTF-8");
    const char *words[] = {"SH1", "ALERT", encoding, args->id};
    for (int at = 0; at < 4; at++) {
        frames[at].data = never_null(strdup(words[at]));
        frames[at].size = strlen(words[at]);
    }
    frames[4] = pack(body, args->encoding);
    json_decref(body);
    if (frames[4].size > MAX_BODY_BYTES)
        ends_with(REFUSED, "refused too_large: the body has %zu bytes; at most %d are taken", frames[4].size, MAX_BODY_BYTES);
}

/* -- sending until it is answered ----------------------------------------------------------------------------------- */

struct link {
    const struct arguments *args;
    struct key key;
    void *context, *dealer; /* dealer: NULL while nobody has written an address */
    char address[256];
    double heard_at;
};

static void set(void *socket, int option, int value) {
    if (zmq_setsockopt(socket, option, &value, sizeof value) != 0)
        ends_with(REFUSED, "libzmq refuses option %d: %s", option, zmq_strerror(zmq_errno()));
}

static void set_key(void *socket, int option, const char *key) {
    if (zmq_setsockopt(socket, option, key, 41) != 0)
        ends_with(USAGE, "libzmq refuses the key: %s", zmq_strerror(zmq_errno()));
}

/* Made anew when the daemon was silent too long: a refused handshake leaves a dead socket. */
static void open_link(struct link *link) {
    if (link->dealer != NULL) zmq_close(link->dealer);
    link->dealer = NULL;
    link->heard_at = now_s();
    if (!find_address(link->args, link->address)) return;
    link->dealer = never_null(zmq_socket(link->context, ZMQ_DEALER));
    set(link->dealer, ZMQ_LINGER, 0);    /* never wait for a daemon that is gone when this program ends */
    set(link->dealer, ZMQ_IMMEDIATE, 1); /* queue nothing towards a daemon that is not there */
    set(link->dealer, ZMQ_SNDHWM, 200);
    set(link->dealer, ZMQ_RCVHWM, 200);
    set(link->dealer, ZMQ_HEARTBEAT_IVL, 2000);
    set(link->dealer, ZMQ_HEARTBEAT_TIMEOUT, 6000);
    set(link->dealer, ZMQ_HEARTBEAT_TTL, 9000);
    set(link->dealer, ZMQ_HANDSHAKE_IVL, 5000);
    set(link->dealer, ZMQ_RECONNECT_IVL, 100);
    set(link->dealer, ZMQ_RECONNECT_IVL_MAX, 5000);
    int64_t most = 131072;
    zmq_setsockopt(link->dealer, ZMQ_MAXMSGSIZE, &most, sizeof most);
    if (!link->key.is_off) {
        set_key(link->dealer, ZMQ_CURVE_PUBLICKEY, link->key.public);
        set_key(link->dealer, ZMQ_CURVE_SECRETKEY, link->key.secret);
        set_key(link->dealer, ZMQ_CURVE_SERVERKEY, link->key.server);
    }
    if (zmq_connect(link->dealer, link->address) != 0)
        ends_with(USAGE, "'%s' is no address: %s", link->address, zmq_strerror(zmq_errno()));
}

/* false: there is no connection (yet). */
static bool send_frames(struct link *link, const struct frame frames[FRAMES]) {
    if (link->dealer == NULL) open_link(link);
    if (link->dealer == NULL) return false;
    for (int at = 0; at < FRAMES; at++)
        if (zmq_send(link->dealer, frames[at].data, frames[at].size, ZMQ_DONTWAIT | (at < FRAMES - 1 ? ZMQ_SNDMORE : 0)) < 0)
            return false; /* libzmq takes the first frame or none of them */
    return true;
}

/* How many frames came within the wait: 0 for none. The caller closes the first FRAMES messages always. */
static int receive(struct link *link, double wait_s, zmq_msg_t parts[FRAMES]) {
    int count = 0;
    long wait_ms = wait_s > 0.001 ? (long)(wait_s * 1000) : 1;
    for (int at = 0; at < FRAMES; at++) zmq_msg_init(&parts[at]);
    zmq_pollitem_t item = {link->dealer, 0, ZMQ_POLLIN, 0};
    if (zmq_poll(&item, link->dealer != NULL ? 1 : 0, wait_ms) <= 0) return 0;
    link->heard_at = now_s();
    for (bool is_more = true; is_more; count++) {
        zmq_msg_t extra, *part = &extra;
        if (count < FRAMES) part = &parts[count];
        else zmq_msg_init(&extra);
        if (zmq_msg_recv(part, link->dealer, ZMQ_DONTWAIT) < 0) return 0;
        is_more = zmq_msg_more(part);
        if (part == &extra) zmq_msg_close(&extra);
    }
    return count;
}

static bool is_text(zmq_msg_t *part, const char *text) {
    return zmq_msg_size(part) == strlen(text) && memcmp(zmq_msg_data(part), text, strlen(text)) == 0;
}

static const char *text_in(json_t *body, const char *name) {
    const char *text = json_string_value(json_object_get(body, name));
    return text ? text : "";
}

/* What one answer means: true when the alert is decided. */
static bool take(zmq_msg_t parts[FRAMES], json_t *body, const char *id, bool *is_stored, double *next_send) {
    if (is_text(&parts[1], "NACK")) {
        if (json_is_true(json_object_get(body, "permanent")))
            ends_with(REFUSED, "refused %s: %s", text_in(body, "code"), text_in(body, "text"));
        json_t *wait_ms = json_object_get(body, "retry_after_ms");
        *next_send = now_s() + (json_is_integer(wait_ms) ? (double)json_integer_value(wait_ms) / 1000 : 1.0);
    } else if (is_text(&parts[1], "STORED") && !*is_stored) {
        *is_stored = true;
        printf("stored %s%s\n", id, strcmp(text_in(body, "status"), "duplicate") ? "" : " (duplicate)");
        fflush(stdout);
    } else if (is_text(&parts[1], "DECIDED") && *is_stored) {
        const char *execution = text_in(body, "execution_id");
        printf("decided %s%s%s\n", text_in(body, "outcome"), *execution ? " " : "", execution);
        return true;
    }
    return false;
}

/* The same message under the same id, until the daemon has stored it and said what it decided. */
static void deliver(struct link *link, const struct frame frames[FRAMES]) {
    const char *id = link->args->id;
    double deadline = now_s() + link->args->timeout_s, next_send = 0, wait_s = first_resend_s;
    bool is_stored = false, is_decided = false;
    for (double now = now_s(); now < deadline && !is_decided; now = now_s()) {
        if (now >= next_send && send_frames(link, frames)) {
            next_send = now + wait_s * (0.8 + 0.4 * drand48());
            wait_s = wait_s * 2 < last_resend_s ? wait_s * 2 : last_resend_s;
        } else if (now >= next_send) {
            next_send = now + not_connected_s;
        }
        double until = next_send < deadline ? next_send : deadline;
        zmq_msg_t parts[FRAMES];
        int count = receive(link, (until < now + 1 ? until : now + 1) - now, parts);
        if (count == FRAMES && is_text(&parts[0], "SH1") && is_text(&parts[3], id) && zmq_msg_size(&parts[2]) == 1) {
            json_t *body = unpack(zmq_msg_data(&parts[4]), zmq_msg_size(&parts[4]), *(char *)zmq_msg_data(&parts[2]));
            if (body != NULL) is_decided = take(parts, body, id, &is_stored, &next_send);
            json_decref(body);
        } else if (count == 0 && now_s() - link->heard_at > silence_s) {
            open_link(link);
            next_send = 0;
        }
        for (int at = 0; at < FRAMES; at++) zmq_msg_close(&parts[at]);
    }
    if (is_decided) return;
    if (is_stored) ends_with(UNDECIDED, "no decision within %g s; the alert is stored", link->args->timeout_s);
    ends_with(UNREACHABLE, "not reachable: %s: no answer within %g s (does it run, and is the key right?)",
              *link->address ? link->address : "no guardian.address in the state directory", link->args->timeout_s);
}

/* -- golden vectors ------------------------------------------------------------------------------------------------- */

static void print_hex(const struct frame *frame, char end) {
    for (size_t at = 0; at < frame->size; at++) printf("%02x", (unsigned char)frame->data[at]);
    putchar(end);
}

static struct frame from_hex(const char *text) {
    struct frame made = {never_null(calloc(strlen(text) / 2 + 1, 1)), strlen(text) / 2};
    for (size_t at = 0; at < made.size; at++) {
        unsigned int byte = 0;
        sscanf(text + 2 * at, "%2x", &byte);
        made.data[at] = (char)byte;
    }
    return made;
}

/* Read the golden vectors' frames and write each body anew in both encodings, as hexadecimal. */
static void golden(const char *path) {
    json_t *all = json_load_file(path, 0, NULL), *vector;
    size_t index;
    if (all == NULL) ends_with(USAGE, "%s cannot be read", path);
    json_array_foreach(json_object_get(all, "messages"), index, vector) {
        struct frame frames[FRAMES];
        for (size_t at = 0; at < FRAMES; at++)
            frames[at] = from_hex(json_string_value(json_array_get(json_object_get(vector, "frames_hex"), at)));
        json_t *body = unpack(frames[4].data, frames[4].size, frames[2].data[0]);
        if (body == NULL) ends_with(REFUSED, "vector %zu cannot be read", index);
        printf("%s %s ", frames[1].data, frames[3].data);
        struct frame msgpack = pack(body, 'm'), json = pack(body, 'j');
        print_hex(&msgpack, ' ');
        print_hex(&json, '\n');
        free(msgpack.data);
        free(json.data);
        for (int at = 0; at < FRAMES; at++) free(frames[at].data);
        json_decref(body);
    }
    json_decref(all);
}

/* -- the command line ----------------------------------------------------------------------------------------------- */

static void new_id(char id[65]) {
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) ends_with(REFUSED, "no random bytes");
    for (size_t at = 0; at < sizeof bytes; at++) sprintf(id + 2 * at, "%02x", bytes[at]);
    srand48((long)(bytes[0] | bytes[1] << 8 | bytes[2] << 16));
}

static void parse(int count, char **words, struct arguments *args) {
    static const struct option options[] = {
        {"type", 1, 0, 't'},    {"service", 1, 0, 's'},  {"message", 1, 0, 'm'}, {"severity", 1, 0, 'v'},
        {"id", 1, 0, 'i'},      {"timeout-s", 1, 0, 'w'}, {"address", 1, 0, 'a'}, {"key-file", 1, 0, 'k'},
        {"state", 1, 0, 'd'},   {"golden", 1, 0, 'g'},   {"json", 0, 0, 'J'},    {"msgpack", 0, 0, 'M'},
        {"frames", 0, 0, 'F'},  {0, 0, 0, 0}};
    const char *id_letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    char *rest = NULL;
    for (int found; (found = getopt_long(count, words, "", options, NULL)) != -1;) switch (found) {
        case 't': args->type = optarg; break;
        case 's': args->service = *optarg ? optarg : NULL; break;
        case 'm': args->message = *optarg ? optarg : NULL; break;
        case 'v': args->severity = optarg; break;
        case 'a': args->address = optarg; break;
        case 'k': args->key_file = optarg; break;
        case 'd': args->state = optarg; break;
        case 'g': args->golden = optarg; break;
        case 'J': args->encoding = 'j'; break;
        case 'M': args->encoding = 'm'; break;
        case 'F': args->frames_only = true; break;
        case 'i':
            if (strlen(optarg) < 8 || strlen(optarg) > 64 || strspn(optarg, id_letters) != strlen(optarg))
                ends_with(USAGE, "--id is 8 to 64 of A-Z a-z 0-9 . _ : -");
            strcpy(args->id, optarg);
            break;
        case 'w':
            args->timeout_s = strtod(optarg, &rest);
            if (*rest || !(args->timeout_s > 0)) ends_with(USAGE, "--timeout-s is a number of seconds");
            break;
        default: exit(USAGE);
    }
    if (optind < count) ends_with(USAGE, "'%s' is no option", words[optind]);
    if (args->type == NULL && args->golden == NULL) ends_with(USAGE, "--type is missing");
    if (strcmp(args->severity, "low") && strcmp(args->severity, "medium") && strcmp(args->severity, "high") &&
        strcmp(args->severity, "critical"))
        ends_with(USAGE, "--severity is low, medium, high or critical");
}

int main(int count, char **words) {
    struct arguments args = {.severity = "high", .timeout_s = 30, .encoding = 'j'};
    struct frame frames[FRAMES];
    new_id(args.id);
    parse(count, words, &args);
    if (args.golden != NULL) {
        golden(args.golden);
        return 0;
    }
    make_frames(&args, frames);
    if (args.frames_only) {
        for (int at = 0; at < FRAMES; at++) print_hex(&frames[at], '\n');
    } else {
        struct link link = {.args = &args, .context = never_null(zmq_ctx_new())};
        read_key(&args, &link.key);
        open_link(&link);
        deliver(&link, frames);
        zmq_close(link.dealer);
        zmq_ctx_term(link.context);
    }
    for (int at = 0; at < FRAMES; at++) free(frames[at].data);
    return 0;
}
