// What Selfheal.mqh needs of MQL4 and of mql-zmq 1.5, in C++ over libzmq: its logic can so be run where no MetaTrader is.
// The test writes its arrays as Array<T> and its pointers' dots as arrows; nothing else of it is changed.
#include <zmq.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

struct string { // UTF-16, as in MQL4
    std::u16string units;
    string() {}
    string(const char *ascii) { for (; *ascii; ascii++) units += (char16_t)(uchar)*ascii; }
    string(const std::u16string &of) : units(of) {}
    string &operator+=(const string &other) { units += other.units; return *this; }
    std::string ascii() const { return std::string(units.begin(), units.end()); }
};
inline string operator+(const string &a, const string &b) { return string(a.units + b.units); }
inline bool operator==(const string &a, const string &b) { return a.units == b.units; }
inline bool operator!=(const string &a, const string &b) { return !(a == b); }

template <class T> struct Array : std::vector<T> {};
template <class T> int ArraySize(const Array<T> &of) { return (int)of.size(); }
template <class T> int ArrayResize(Array<T> &of, int size) { of.resize(size); return size; }

inline int StringLen(const string &of) { return (int)of.units.size(); }
inline ushort StringGetCharacter(const string &of, int at) { return at < StringLen(of) ? of.units[at] : 0; }
inline string ShortToString(ushort unit) { return string(std::u16string(1, (char16_t)unit)); }
inline int StringFind(const string &in, const string &what, int from = 0)
{
    size_t at = in.units.find(what.units, from);
    return at == std::u16string::npos ? -1 : (int)at;
}
inline string StringSubstr(const string &of, int start, int length = -1)
{
    if (start >= StringLen(of)) return "";
    return string(of.units.substr(start, length < 0 ? std::u16string::npos : (size_t)length));
}
inline string StringTrimLeft(string of) { while (StringLen(of) && of.units[0] <= ' ') of.units.erase(0, 1); return of; }
inline string StringTrimRight(string of) { while (StringLen(of) && of.units.back() <= ' ') of.units.pop_back(); return of; }
template <class... Words> string StringFormat(const char *format, Words... words)
{
    char made[256];
    snprintf(made, sizeof made, format, words...);
    return made;
}

inline void Show(const string &one) { std::cerr << one.ascii(); }
inline void Show(int one) { std::cerr << one; }
template <class... Words> void Print(const Words &...words) { (Show(words), ...); std::cerr << std::endl; }

inline uint GetTickCount()
{
    using namespace std::chrono;
    return (uint)duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}
inline time_t TimeLocal() { return time(NULL); }
inline void MathSrand(uint seed) { srand(seed); }
inline int MathRand() { return rand() % 32768; }
inline double MathMin(double a, double b) { return a < b ? a : b; }
inline double MathMax(double a, double b) { return a > b ? a : b; }

enum { FILE_READ = 1, FILE_TXT = 16, FILE_ANSI = 32, FILE_SHARE_READ = 128, INVALID_HANDLE = -1 };
inline std::ifstream &TheFile() { static std::ifstream file; return file; }
inline int FileOpen(const string &name, int)
{
    TheFile() = std::ifstream(name.ascii());
    return TheFile().is_open() ? 1 : INVALID_HANDLE;
}
inline bool FileIsEnding(int) { return TheFile().peek() == EOF; }
inline string FileReadString(int) { std::string line; std::getline(TheFile(), line); return line.c_str(); }
inline void FileClose(int) { TheFile().close(); }

struct Context {
    void *context;
    Context(const string &) : context(zmq_ctx_new()) {}
    ~Context() { zmq_ctx_term(context); }
};

struct ZmqMsg {
    zmq_msg_t message;
    ZmqMsg() { zmq_msg_init(&message); }
    ~ZmqMsg() { zmq_msg_close(&message); }
    bool more() { return zmq_msg_more(&message) == 1; }
    string getData() { return std::string((char *)zmq_msg_data(&message), zmq_msg_size(&message)).c_str(); }
};

struct Socket {
    void *socket;
    Socket(Context &in, int type) : socket(zmq_socket(in.context, type)) {}
    ~Socket() { zmq_close(socket); }
    template <class T> bool set(int option, T value) { return zmq_setsockopt(socket, option, &value, sizeof value) == 0; }
    bool key(int option, const string &text) { return zmq_setsockopt(socket, option, text.ascii().c_str(), 41) == 0; }
    bool setLinger(int ms) { return set(ZMQ_LINGER, ms); }
    bool setImmediate(bool is) { return set(ZMQ_IMMEDIATE, is ? 1 : 0); }
    bool setSendHighWaterMark(int most) { return set(ZMQ_SNDHWM, most); }
    bool setReceiveHighWaterMark(int most) { return set(ZMQ_RCVHWM, most); }
    bool setMaxMessageSize(long most) { return set(ZMQ_MAXMSGSIZE, (int64_t)most); }
    bool setHandshakeInterval(int ms) { return set(ZMQ_HANDSHAKE_IVL, ms); }
    bool setHeartbeatInterval(int ms) { return set(ZMQ_HEARTBEAT_IVL, ms); }
    bool setHeartbeatTimeout(int ms) { return set(ZMQ_HEARTBEAT_TIMEOUT, ms); }
    bool setHeartbeatTTL(int ms) { return set(ZMQ_HEARTBEAT_TTL, ms); }
    bool setReconnectInterval(int ms) { return set(ZMQ_RECONNECT_IVL, ms); }
    bool setReconnectIntervalMax(int ms) { return set(ZMQ_RECONNECT_IVL_MAX, ms); }
    bool setCurvePublicKey(const string &text) { return key(ZMQ_CURVE_PUBLICKEY, text); }
    bool setCurveSecretKey(const string &text) { return key(ZMQ_CURVE_SECRETKEY, text); }
    bool setCurveServerKey(const string &text) { return key(ZMQ_CURVE_SERVERKEY, text); }
    bool connect(const string &address) { return zmq_connect(socket, address.ascii().c_str()) == 0; }
    bool send(const Array<uchar> &bytes, bool nowait, bool more)
    {
        int flags = (nowait ? ZMQ_DONTWAIT : 0) | (more ? ZMQ_SNDMORE : 0);
        return zmq_send(socket, bytes.data(), bytes.size(), flags) != -1;
    }
    bool recv(ZmqMsg &into, bool nowait) { return zmq_msg_recv(&into.message, socket, nowait ? ZMQ_DONTWAIT : 0) != -1; }
};
