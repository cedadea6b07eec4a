#!/usr/bin/env node
"use strict";
/*
 * Send one alert to a Selfheal daemon. Written from docs/wire.md.
 *
 *     node selfheal-send.js --type service_failure --service risk-manager --message "no heartbeat"
 *
 * Prints `stored ID` once the daemon has the alert on disk and `decided OUTCOME [EXECUTION]`. Exit codes: 0 well,
 * 1 refused for good, 2 usage, 4 no key, or no answer in time, 5 stored, but no decision in time.
 */
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { parseArgs } = require("node:util");
const zmq = require("zeromq");

let msgpack = null;
try {
  msgpack = require("@msgpack/msgpack");
} catch {
  // only --msgpack needs it
}

const MAX_BODY_BYTES = 65_536;
const FIRST_RESEND_MS = 500;
const LAST_RESEND_MS = 30_000;
const SILENCE_MS = 6_000;
const NOT_CONNECTED_MS = 100;
const OPTIONS = {
  linger: 0, // never wait for a daemon that is gone when this program ends
  immediate: true, // queue nothing towards a daemon that is not there
  sendTimeout: 0,
  sendHighWaterMark: 200,
  receiveHighWaterMark: 200,
  heartbeatInterval: 2000,
  heartbeatTimeout: 6000,
  heartbeatTimeToLive: 9000,
  handshakeInterval: 5000,
  reconnectInterval: 100,
  reconnectMaxInterval: 5000,
  maxMessageSize: 131072,
};

/** The program ends with this exit code and text. */
class EndsWith extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

// -- where the daemon is and which key opens it ----------------------------------------------------------------------

function stateDirectory(args) {
  if (args.state || process.env.SELFHEAL_STATE) return args.state || process.env.SELFHEAL_STATE;
  if (process.env.XDG_STATE_HOME) return path.join(process.env.XDG_STATE_HOME, "selfheal");
  return path.join(os.homedir(), ".local", "state", "selfheal");
}

/** null: no daemon has written its address yet. Asked again for every new socket: a daemon may move. */
function findAddress(args) {
  if (args.address) return args.address;
  if (process.env.SELFHEAL_GUARDIAN && !args.state) return process.env.SELFHEAL_GUARDIAN;
  try {
    return fs.readFileSync(path.join(stateDirectory(args), "guardian.address"), "ascii").trim();
  } catch (error) {
    if (error.code === "ENOENT") return null;
    throw error;
  }
}

/** The words of the client key file; null where the daemon runs without CURVE. */
function readKey(args) {
  const file = args["key-file"] || process.env.SELFHEAL_KEY || path.join(stateDirectory(args), "keys", "local.key");
  let text, facts;
  try {
    facts = fs.statSync(file);
    text = fs.readFileSync(file, "utf8").replace(/^\uFEFF/, "");
  } catch (error) {
    throw new EndsWith(4, `no key: ${file}: ${error.code} (looked at --key-file, $SELFHEAL_KEY, then there)`);
  }
  if (process.getuid && (facts.mode & 0o077 || facts.uid !== process.getuid())) {
    throw new EndsWith(2, `no key: ${file}: others may read it, or it is another user's; chmod 600 ${file}`);
  }
  const words = {};
  for (const line of text.split(/\r?\n/)) {
    const [, word, value] = /^([^#\s]\S*)\s+(.*?)\s*$/.exec(line) || [];
    if (word) words[word] = value;
  }
  if (words.curve === "off") return null;
  for (const name of ["public", "secret", "server"]) {
    if ((words[name] || "").length !== 40) throw new EndsWith(2, `no key: ${file}: '${name}' is not 40 characters of Z85`);
  }
  return words;
}

// -- frames ----------------------------------------------------------------------------------------------------------

const asPlain = (_key, value) => (typeof value === "bigint" ? Number(value) : value);

function pack(body, encoding) {
  return encoding === "m" ? Buffer.from(msgpack.encode(body)) : Buffer.from(JSON.stringify(body, asPlain), "utf8");
}

function unpack(body, encoding) {
  if (encoding === "j") return JSON.parse(body.toString("utf8").replace(/^\uFEFF/, ""));
  if (msgpack === null) throw new EndsWith(2, "the daemon answered in msgpack: npm install @msgpack/msgpack");
  return msgpack.decode(body);
}

function alertFrames(args) {
  const encoding = args.msgpack ? "m" : "j";
  const body = { type: args.type, severity: args.severity, source: os.hostname() };
  if (args.service) body.service = args.service;
  if (args.message) body.message = args.message;
  const packed = pack(body, encoding);
  if (packed.length > MAX_BODY_BYTES) {
    // a much larger one would only end the connection, again and again
    throw new EndsWith(1, `refused too_large: the body has ${packed.length} bytes; at most ${MAX_BODY_BYTES} are taken`);
  }
  return [...["SH1", "ALERT", encoding, args.id].map((text) => Buffer.from(text)), packed];
}

// -- sending until it is answered ------------------------------------------------------------------------------------

/** One DEALER socket, made anew when the daemon was silent too long: a refused handshake leaves a dead one. */
class Link {
  constructor(args) {
    this.args = args;
    this.key = readKey(args);
    this.dealer = null;
    this.open();
  }

  open() {
    this.close();
    this.heardAt = performance.now();
    this.address = findAddress(this.args);
    if (this.address === null) return;
    this.dealer = new zmq.Dealer(OPTIONS);
    if (this.key !== null) {
      this.dealer.curvePublicKey = this.key.public;
      this.dealer.curveSecretKey = this.key.secret;
      this.dealer.curveServerKey = this.key.server;
    }
    try {
      this.dealer.connect(this.address);
    } catch (error) {
      throw new EndsWith(2, `'${this.address}' is no address: ${error.message}`);
    }
  }

  /** false: there is no connection (yet). */
  async send(frames) {
    if (this.dealer === null) this.open();
    if (this.dealer === null) return false;
    try {
      await this.dealer.send(frames);
      return true;
    } catch (error) {
      if (error.code === "EAGAIN") return false;
      throw error;
    }
  }

  async receive(waitMs) {
    if (this.dealer === null) {
      await new Promise((done) => setTimeout(done, waitMs));
      return null;
    }
    this.dealer.receiveTimeout = Math.max(1, Math.ceil(waitMs));
    try {
      const answer = await this.dealer.receive();
      this.heardAt = performance.now();
      return answer;
    } catch (error) {
      if (error.code === "EAGAIN") return null;
      throw error;
    }
  }

  close() {
    if (this.dealer !== null) this.dealer.close();
    this.dealer = null;
  }
}

/** The same message under the same id, until the daemon has stored it and said what it decided. */
async function deliver(link, frames, timeoutMs) {
  const id = frames[3].toString();
  const deadline = performance.now() + timeoutMs;
  let [nextSend, tries, isStored] = [0, 0, false];
  for (let now = performance.now(); now < deadline; now = performance.now()) {
    if (now >= nextSend) {
      if (await link.send(frames)) {
        nextSend = now + Math.min(LAST_RESEND_MS, FIRST_RESEND_MS * 2 ** Math.min(tries, 10)) * (0.8 + 0.4 * Math.random());
        tries += 1;
      } else {
        nextSend = now + NOT_CONNECTED_MS;
      }
    }
    const answer = await link.receive(Math.min(nextSend, deadline, now + 1000) - now);
    if (answer === null) {
      if (performance.now() - link.heardAt > SILENCE_MS) {
        link.open();
        nextSend = 0;
      }
      continue;
    }
    if (answer.length !== 5 || answer[0].toString() !== "SH1" || answer[3].toString() !== id) continue;
    const kind = answer[1].toString();
    const body = unpack(answer[4], answer[2].toString());
    if (kind === "NACK" && body.permanent) throw new EndsWith(1, `refused ${body.code}: ${body.text}`);
    if (kind === "NACK") {
      nextSend = performance.now() + (body.retry_after_ms ?? 1000);
    } else if (kind === "STORED" && !isStored) {
      isStored = true;
      console.log(`stored ${id}${body.status === "duplicate" ? " (duplicate)" : ""}`);
    } else if (kind === "DECIDED" && isStored) {
      console.log(`decided ${body.outcome} ${body.execution_id ?? ""}`.trimEnd());
      return;
    }
  }
  const seconds = timeoutMs / 1000;
  if (isStored) throw new EndsWith(5, `no decision within ${seconds} s; the alert is stored`);
  const where = link.address ?? "no guardian.address in the state directory";
  throw new EndsWith(4, `not reachable: ${where}: no answer within ${seconds} s (does it run, and is the key right?)`);
}

/** Read the golden vectors' frames and write each body anew in both encodings, as hexadecimal. */
function golden(file) {
  for (const vector of JSON.parse(fs.readFileSync(file, "utf8")).messages) {
    const [, kind, encoding, id, body] = vector.frames_hex.map((frame) => Buffer.from(frame, "hex"));
    const value = unpack(body, encoding.toString());
    console.log(`${kind} ${id} ${pack(value, "m").toString("hex")} ${pack(value, "j").toString("hex")}`);
  }
}

function parsed() {
  const text = { type: "string" };
  const flag = { type: "boolean", default: false };
  const options = { type: text, service: text, message: text, address: text, "key-file": text, state: text, golden: text };
  Object.assign(options, { json: flag, msgpack: flag, frames: flag, id: text });
  Object.assign(options, { severity: { ...text, default: "high" }, "timeout-s": { ...text, default: "30" } });
  let args;
  try {
    args = parseArgs({ options, strict: true }).values;
  } catch (error) {
    throw new EndsWith(2, error.message);
  }
  args.id ??= crypto.randomUUID();
  if (!args.type && !args.golden) throw new EndsWith(2, "--type is missing");
  if (!/^[A-Za-z0-9._:-]{8,64}$/.test(args.id)) throw new EndsWith(2, "--id is 8 to 64 of A-Z a-z 0-9 . _ : -");
  if (!["low", "medium", "high", "critical"].includes(args.severity)) throw new EndsWith(2, "--severity is low, medium, high or critical");
  if (!(Number(args["timeout-s"]) > 0)) throw new EndsWith(2, "--timeout-s is a number of seconds");
  if (args.msgpack && msgpack === null) throw new EndsWith(2, "--msgpack needs npm install @msgpack/msgpack");
  return args;
}

async function main() {
  const args = parsed();
  if (args.golden) return golden(args.golden);
  const frames = alertFrames(args);
  if (args.frames) return console.log(frames.map((frame) => frame.toString("hex")).join("\n"));
  const link = new Link(args);
  try {
    await deliver(link, frames, Number(args["timeout-s"]) * 1000);
  } finally {
    link.close();
  }
}

main().catch((error) => {
  console.error(error instanceof EndsWith ? error.message : error);
  process.exitCode = error instanceof EndsWith ? error.code : 1;
});
