"""Send one alert to a Selfheal daemon: plain pyzmq, nothing of Selfheal's own packages. Written from docs/wire.md.

    python selfheal_send.py --type service_failure --service risk-manager --message "no heartbeat"

Prints ``stored ID`` once the daemon has the alert on disk and ``decided OUTCOME [EXECUTION]``. Exit codes: 0 well,
1 refused for good, 2 usage, 4 no key, or no answer in time, 5 stored, but no decision in time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import zmq

try:
    import msgpack
except ImportError:  # only --msgpack needs it
    msgpack = None

MAX_BODY_BYTES = 65_536
FIRST_RESEND_S, LAST_RESEND_S, SILENCE_S, NOT_CONNECTED_S = 0.5, 30.0, 6.0, 0.1
OPTIONS = {
    zmq.LINGER: 0,  # never wait for a daemon that is gone when this program ends
    zmq.IMMEDIATE: 1,  # queue nothing towards a daemon that is not there
    zmq.SNDHWM: 200,
    zmq.RCVHWM: 200,
    zmq.HEARTBEAT_IVL: 2000,
    zmq.HEARTBEAT_TIMEOUT: 6000,
    zmq.HEARTBEAT_TTL: 9000,
    zmq.HANDSHAKE_IVL: 5000,
    zmq.RECONNECT_IVL: 100,
    zmq.RECONNECT_IVL_MAX: 5000,
    zmq.MAXMSGSIZE: 131072,
}


class EndsWith(Exception):
    """The program ends with this exit code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# -- where the daemon is and which key opens it ---------------------------------------------------------------------


def state_directory(argument: str | None) -> Path:
    if argument or os.environ.get("SELFHEAL_STATE"):
        return Path(argument or os.environ["SELFHEAL_STATE"])
    if os.environ.get("XDG_STATE_HOME"):
        return Path(os.environ["XDG_STATE_HOME"], "selfheal")
    return Path.home() / ".local" / "state" / "selfheal"


def find_address(args: argparse.Namespace) -> str | None:
    """None: no daemon has written its address yet. Asked again for every new socket: a daemon may move."""
    if args.address or (os.environ.get("SELFHEAL_GUARDIAN") and not args.state):
        return args.address or os.environ["SELFHEAL_GUARDIAN"]
    try:
        return (state_directory(args.state) / "guardian.address").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def read_key(args: argparse.Namespace) -> dict[str, str]:
    """The words of the client key file; empty where the daemon runs without CURVE."""
    given = args.key_file or os.environ.get("SELFHEAL_KEY")
    file = Path(given) if given else state_directory(args.state) / "keys" / "local.key"
    try:
        facts, lines = file.stat(), file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        looked = "looked at --key-file, $SELFHEAL_KEY, then there"
        raise EndsWith(4, f"no key: {file}: {error.strerror} ({looked})") from None
    if os.name == "posix" and (facts.st_mode & 0o077 or facts.st_uid != os.getuid()):
        raise EndsWith(2, f"no key: {file}: others may read it, or it is another user's; chmod 600 {file}")
    words = dict(line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    if words.get("curve", "").strip() == "off":
        return {}
    for name in ("public", "secret", "server"):
        if len(words.get(name, "").strip()) != 40:
            raise EndsWith(2, f"no key: {file}: {name!r} is not 40 characters of Z85")
    return {name: value.strip() for name, value in words.items()}


# -- frames ---------------------------------------------------------------------------------------------------------


def pack(body: dict[str, Any], encoding: str) -> bytes:
    return msgpack.packb(body) if encoding == "m" else json.dumps(body, separators=(",", ":")).encode()


def unpack(body: bytes, encoding: bytes) -> dict[str, Any]:
    if encoding == b"j":
        return json.loads(body.decode("utf-8-sig"))
    if msgpack is None:
        raise EndsWith(2, "the daemon answered in msgpack, and there is no msgpack here: pip install msgpack")
    return msgpack.unpackb(body)


def alert_frames(args: argparse.Namespace) -> list[bytes]:
    body = {"type": args.type, "severity": args.severity, "source": socket.gethostname()}
    body |= {name: getattr(args, name) for name in ("service", "message") if getattr(args, name)}
    packed = pack(body, args.encoding)
    if len(packed) > MAX_BODY_BYTES:  # a much larger one would only end the connection, again and again
        raise EndsWith(1, f"refused too_large: the body has {len(packed)} bytes; at most {MAX_BODY_BYTES} are taken")
    return [b"SH1", b"ALERT", args.encoding.encode(), args.id.encode("ascii"), packed]


# -- sending until it is answered -----------------------------------------------------------------------------------


class Link:
    """One DEALER socket, made anew when the daemon was silent too long: a refused handshake leaves a dead one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.key = args, read_key(args)
        self.context, self.dealer = zmq.Context(), None
        self.open()

    def open(self) -> None:
        self.close()
        self.heard_at = time.monotonic()
        self.address = find_address(self.args)
        if self.address is None:
            return
        self.dealer = self.context.socket(zmq.DEALER)
        for option, value in OPTIONS.items():
            self.dealer.setsockopt(option, value)
        if self.key:
            self.dealer.curve_publickey = self.key["public"].encode()
            self.dealer.curve_secretkey = self.key["secret"].encode()
            self.dealer.curve_serverkey = self.key["server"].encode()
        try:
            self.dealer.connect(self.address)
        except zmq.ZMQError as error:
            raise EndsWith(2, f"{self.address!r} is no address: {error.strerror}") from None

    def send(self, frames: list[bytes]) -> bool:
        """False: there is no connection (yet)."""
        try:
            if self.dealer is None:
                self.open()
            if self.dealer is not None:
                self.dealer.send_multipart(frames, zmq.DONTWAIT)
            return self.dealer is not None
        except zmq.Again:
            return False

    def receive(self, wait_s: float) -> list[bytes] | None:
        if self.dealer is None:
            time.sleep(wait_s)
        elif self.dealer.poll(max(1, wait_s * 1000)):
            self.heard_at = time.monotonic()
            return self.dealer.recv_multipart()
        return None

    def close(self) -> None:
        if self.dealer is not None:
            self.dealer.close(0)
            self.dealer = None


def deliver(link: Link, frames: list[bytes], timeout_s: float) -> None:
    """The same message under the same id, until the daemon has stored it and said what it decided."""
    deadline, next_send, tries, is_stored = time.monotonic() + timeout_s, 0.0, 0, False
    while (now := time.monotonic()) < deadline:
        if now >= next_send and link.send(frames):
            wait_s = min(LAST_RESEND_S, FIRST_RESEND_S * 2 ** min(tries, 10))
            tries, next_send = tries + 1, now + wait_s * random.uniform(0.8, 1.2)
        elif now >= next_send:
            next_send = now + NOT_CONNECTED_S
        answer = link.receive(min(next_send, deadline, now + 1) - now)
        if answer is None:
            if time.monotonic() - link.heard_at > SILENCE_S:
                link.open()
                next_send = 0.0
            continue
        if len(answer) != 5 or answer[0] != b"SH1" or answer[3] != frames[3]:
            continue  # not about this alert
        kind, body = answer[1], unpack(answer[4], answer[2])
        if kind == b"NACK" and body.get("permanent"):
            raise EndsWith(1, f"refused {body.get('code')}: {body.get('text')}")
        if kind == b"NACK":
            next_send = time.monotonic() + body.get("retry_after_ms", 1000) / 1000
        elif kind == b"STORED" and not is_stored:
            is_stored = True
            print(f"stored {frames[3].decode()}{' (duplicate)' * (body.get('status') == 'duplicate')}", flush=True)
        elif kind == b"DECIDED" and is_stored:
            print(f"decided {body.get('outcome')} {body.get('execution_id') or ''}".rstrip(), flush=True)
            return
    if is_stored:
        raise EndsWith(5, f"no decision within {timeout_s:g} s; the alert is stored")
    where = link.address or "no guardian.address in the state directory"
    raise EndsWith(4, f"not reachable: {where}: no answer within {timeout_s:g} s (does it run, and is the key right?)")


def golden(file: str) -> None:
    """Read the golden vectors' frames and write each body anew in both encodings, as hexadecimal."""
    for vector in json.loads(Path(file).read_text(encoding="utf-8"))["messages"]:
        _, kind, encoding, message_id, body = (bytes.fromhex(frame) for frame in vector["frames_hex"])
        value = unpack(body, encoding)
        print(kind.decode(), message_id.decode(), pack(value, "m").hex(), pack(value, "j").hex())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send one alert to a Selfheal daemon.")
    parser.add_argument("--type", default="")
    for name in ("--service", "--message", "--address", "--key-file", "--state"):
        parser.add_argument(name)
    parser.add_argument("--severity", default="high", choices=["low", "medium", "high", "critical"])
    parser.add_argument("--timeout-s", type=float, default=30.0)
    parser.add_argument("--id", default=uuid.uuid4().hex)
    parser.add_argument("--json", dest="encoding", action="store_const", const="j", default="j")
    parser.add_argument("--msgpack", dest="encoding", action="store_const", const="m")
    parser.add_argument("--frames", action="store_true", help="print the frames in hexadecimal and send nothing")
    parser.add_argument("--golden", metavar="FILE", help="read golden vectors and write them anew")
    args = parser.parse_args()
    if not args.type and not args.golden:
        parser.error("--type is missing")
    if not re.fullmatch(r"[A-Za-z0-9._:-]{8,64}", args.id):
        parser.error("--id is 8 to 64 of A-Z a-z 0-9 . _ : -")
    if args.encoding == "m" and msgpack is None:
        parser.error("--msgpack needs the package msgpack: pip install msgpack")
    return args


def main() -> int:
    args = parsed()
    try:
        if args.golden:
            golden(args.golden)
        elif args.frames:
            print(*(frame.hex() for frame in alert_frames(args)), sep="\n")
        else:
            link = Link(args)
            try:
                deliver(link, alert_frames(args), args.timeout_s)
            finally:
                link.close()
                link.context.term()
    except EndsWith as end:
        print(end, file=sys.stderr)
        return end.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
