"""Stands for the cross-language bridge: its errors and its endpoints, beside a running daemon.

``python examples/bridge_simulator.py --simulate-errors`` hands over the bridge's typical errors and asks the daemon for
each by its id; the exit code is 1 when one was lost. ``--count 1000 --threads 8 --folder DIR`` makes it many, kept on
disk while the daemon is away. ``--endpoint mql4 --kind tcp --at 127.0.0.1:8765`` is an endpoint that beats until it is
ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_link import BridgeClient, Kind, LinkError, LinkTimeout, Message
from bridge_link.channel import DealerChannel
from bridge_link.client import find_address
from bridge_link.keys import find_key
from bridge_link.wire import new_id

ERRORS: list[dict[str, Any]] = [
    {
        "system": "mql4",
        "error_type": "MQL4Error",
        "error_code": 4051,
        "error_message": "Invalid function parameter value",
        "severity": "medium",
        "context": {"function": "OrderSend"},
    },
    {
        "system": "powershell",
        "error_type": "PowerShellError",
        "error_message": "Execution Policy Restricted",
        "exit_code": 1,
        "severity": "high",
    },
    {
        "system": "python",
        "error_type": "SyntaxError",
        "error_message": "invalid syntax",
        "traceback": 'File "strategy.py", line 7',
        "severity": "high",
    },
]
BEAT_S = 0.5


# -- errors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """What became of one error: ``decision`` is None when none came, ``on_disk`` is what the daemon has by its id."""

    system: str
    alert_id: str | None
    decision: str | None
    trouble: str = ""
    on_disk: str | None = None

    @property
    def is_lost(self) -> bool:
        return self.decision is None or self.on_disk is None


def hand_over(bridge: BridgeClient, number: int, timeout_s: float) -> Fate:
    error = {**ERRORS[number % len(ERRORS)], "number": number}
    try:
        reported = bridge.report_error(error, timeout_s)
    except LinkTimeout as late:
        return Fate(error["system"], late.message_id, None, str(late))
    except LinkError as refused:
        return Fate(error["system"], None, None, str(refused))
    return Fate(error["system"], reported.alert_id, reported.outcome)


def ask_for(fates: list[Fate], options: argparse.Namespace) -> list[Fate]:
    """Each with the outcome that the daemon's journal has under its id."""
    address = find_address("bridge", options.address, options.state)
    channel = DealerChannel(address, key=find_key(options.key_file, options.state))
    try:
        asked = [
            (fate, channel.begin(Message(Kind.QUERY, new_id(), {"ask": "alert", "id": fate.alert_id}), (Kind.ANSWER,)))
            for fate in fates
            if fate.alert_id is not None
        ]
        found = [fate for fate in fates if fate.alert_id is None]
        for fate, exchange in asked:
            try:
                alert = exchange.answers[Kind.ANSWER].result(options.timeout_s).get("result")
                trouble = fate.trouble or ("" if alert else "the daemon has no alert of its id")
                on_disk = alert["outcome"] if alert else None
            except (FutureTimeout, LinkError) as failed:
                on_disk, trouble = None, f"cannot be asked for: {str(failed) or 'no answer'}; {fate.trouble}"
            found.append(Fate(fate.system, fate.alert_id, fate.decision, trouble, on_disk))
        return found
    finally:
        channel.close()


def simulate_errors(options: argparse.Namespace) -> int:
    with (
        BridgeClient(
            options.address,
            name="simulator",
            state_dir=options.state,
            key_file=options.key_file,
            folder=options.folder,
        ) as bridge,
        ThreadPoolExecutor(options.threads) as pool,
    ):
        fates = list(pool.map(lambda number: hand_over(bridge, number, options.timeout_s), range(options.count)))
    fates = ask_for(fates, options)
    print_table(fates)
    lost = sum(fate.is_lost for fate in fates)
    print(f"{len(fates) - lost} accepted, {lost} lost")
    return 1 if lost else 0


def print_table(fates: list[Fate]) -> None:
    print(f"{'SYSTEM':12} {'ERRORS':>7} {'DECIDED':>8} {'ON DISK':>8}  DECISIONS")
    for system in sorted({fate.system for fate in fates}):
        mine = [fate for fate in fates if fate.system == system]
        outcomes = Counter(fate.decision for fate in mine if fate.decision is not None)
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        decided, on_disk = sum(outcomes.values()), sum(fate.on_disk is not None for fate in mine)
        print(f"{system:12} {len(mine):7} {decided:8} {on_disk:8}  {told}")
    for trouble, count in Counter(fate.trouble for fate in fates if fate.is_lost).most_common(5):
        print(f"{count} lost: {trouble}", file=sys.stderr)


# -- endpoints --------------------------------------------------------------------------------------------------------


class LinePeer:
    """What stands behind a socket: it greets, beats, reports, and runs each command once, answering from its table."""

    session = new_id()

    def __init__(self, name: str, *, errors: bool) -> None:
        self._name = name
        self._errors = [error for error in ERRORS if error["system"] == name] if errors else []
        self._table: dict[str, dict[str, Any]] = {}

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        with connection:
            try:
                hello = {"kind": "hello", "name": self._name, "session": self.session, "commands": ["ping"]}
                connection.sendall(line(hello))
                threading.Thread(target=self._obey, args=(connection,), daemon=True).start()
                while not stop.wait(BEAT_S):
                    connection.sendall(line({"kind": "heartbeat", "pid": os.getpid()}))
                    while self._errors:
                        connection.sendall(line({"kind": "error", **self._errors.pop()}))
            except OSError:
                return  # the daemon's end was closed: it comes again

    def _obey(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            for text in lines:
                asked = json.loads(text)
                if asked.get("kind") == "command":
                    connection.sendall(line({"kind": "reply", "id": asked["id"], **self._answer(asked)}))

    def _answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """The table is in memory: what an earlier process may have been asked, this one cannot tell."""
        if asked["id"] in self._table:
            return self._table[asked["id"]]
        if asked.get("asked_before"):
            return {"state": "unknown"}
        if asked.get("ask"):
            return {"state": "never"}
        if asked.get("command") != "ping":
            return {"state": "refused", "error": "there is only ping"}
        return self._table.setdefault(asked["id"], {"state": "done", "result": "pong"})


def serve_tcp(options: argparse.Namespace, stop: threading.Event) -> int:
    host, _, port = options.at.rpartition(":")
    peer = LinePeer(options.endpoint, errors=options.simulate_errors)
    with socket.create_server((host, int(port))) as listener:
        print(f"{options.endpoint} listens on {options.at}", flush=True)
        listener.settimeout(0.2)
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=peer.serve, args=(connection, stop), daemon=True).start()
    return 0


def write_fifo(options: argparse.Namespace, stop: threading.Event) -> int:
    """The daemon makes the pipe, and may replace it: it is opened anew for each beat."""
    path = Path(options.at) / f"{options.endpoint}.fifo"
    print(f"{options.endpoint} writes into {path}", flush=True)
    while not stop.wait(BEAT_S):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(fd, line({"kind": "heartbeat", "pid": os.getpid()}))
            os.close(fd)
        except OSError:
            continue  # nobody reads it now
    return 0


def drop_files(options: argparse.Namespace, stop: threading.Event) -> int:
    folder = Path(options.at)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{options.endpoint} drops files into {folder}", flush=True)
    while not stop.wait(BEAT_S):
        fresh = folder / f"{options.endpoint}.tmp"
        fresh.write_text(f"{time.time():.3f},ok\n", encoding="ascii")
        fresh.replace(folder / f"{options.endpoint}.csv")
    return 0


def speak_zeromq(options: argparse.Namespace, stop: threading.Event) -> int:
    with BridgeClient(
        options.address,
        name=options.endpoint,
        state_dir=options.state,
        key_file=options.key_file,
        folder=options.folder,
        kind=options.kind,
        beat_every_s=BEAT_S,
        commands={"ping": lambda _parameters: "pong"},
    ) as bridge:
        print(f"{options.endpoint} beats over the bridge link", flush=True)
        for error in ERRORS:
            if options.simulate_errors and error["system"] == options.endpoint:
                bridge.post_error(error)
        stop.wait()
    return 0


def line(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


KINDS = {
    "tcp": serve_tcp,
    "fifo": write_fifo,
    "spool": drop_files,
    "zeromq": speak_zeromq,
    "powershell": speak_zeromq,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--address", help="of the bridge link; found in the state directory by default")
    parser.add_argument("--state", type=Path, help="the daemon's state directory")
    parser.add_argument("--key-file", type=Path, help="a client key; the local one in the state directory by default")
    parser.add_argument("--folder", type=Path, help="where errors are kept while the daemon is away")
    parser.add_argument("--simulate-errors", action="store_true", help="hand over the bridge's typical errors")
    parser.add_argument("--count", type=int, default=len(ERRORS), help="how many errors")
    parser.add_argument("--threads", type=int, default=4, help="how many at once")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="seconds to wait for each decision")
    parser.add_argument("--endpoint", help="be an endpoint of this name instead, until ended")
    parser.add_argument("--kind", choices=sorted(KINDS), default="zeromq")
    parser.add_argument("--at", default="", help="HOST:PORT for kind tcp, a directory for fifo and spool")
    options = parser.parse_args()
    if options.endpoint is None:
        if options.simulate_errors:
            return simulate_errors(options)
        parser.print_help()
        return 2
    if options.kind in ("tcp", "fifo", "spool") and not options.at:
        parser.error(f"--kind {options.kind} needs --at")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return KINDS[options.kind](options, stop)


if __name__ == "__main__":
    sys.exit(main())
