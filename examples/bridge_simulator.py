"""Stands for the cross-language bridge: its errors and its endpoints, beside a running daemon.

``python examples/bridge_simulator.py --simulate-errors`` is the four endpoints of ``examples/bridge.yaml`` (as far as
nobody else speaks for them), has the bridge's typical errors, hands them over, does what the daemon's runbooks tell it,
and prints for each error what was decided and how its recovery ended. The exit code is 1 when one was lost or is not
recovered. ``--accept-only --count 1000 --threads 8 --folder DIR`` hands over many, kept on disk while the daemon is
away, and waits for no recovery. ``--endpoint mql4 --kind tcp --at 127.0.0.1:8765`` is an endpoint that beats until it
is ended.
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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
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
    {
        "system": "config_sync",
        "error_type": "SyncError",
        "error_message": "version 41 here, version 42 there",
        "severity": "high",
    },
    {
        "system": "mql4",
        "error_type": "ConnectionLost",
        "error_code": 6,
        "error_message": "No connection with trade server",
        "severity": "high",
    },
    {
        "system": "python",
        "error_type": "ConnectionResetError",
        "error_message": "[Errno 104] Connection reset by peer",
        "severity": "high",
    },
]
CURES = {
    "MQL4Error": "reset",
    "ConnectionLost": "reconnect",
    "PowerShellError": "reset",
    "SyntaxError": "reload",
    "ConnectionResetError": "reset",
    "SyncError": "resync",
}
"""Which command of the endpoint ends which error; the others change nothing about it."""
COMMANDS = {
    "mql4": ("reset", "reconnect"),
    "powershell": ("reset", "reload"),
    "python": ("reload", "reset"),
    "config_sync": ("resync", "reset"),
}
ENDED = frozenset(
    {"succeeded", "failed", "rolled_back", "rollback_failed", "unknown", "rejected", "expired", "cancelled"}
)
BEAT_S = 0.5
READY_S = 30.0
SILENT_S = 5.0
PAUSE = threading.Event()
"""Never set: a wait for it is a pause."""
RECOVERED_S = 300.0


# -- errors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """What became of one error: ``decision`` is None when none came, ``on_disk`` is what the daemon has by its id,
    ``recovery`` how the execution ended that answers it.
    """

    error: Mapping[str, Any]
    alert_id: str | None
    decision: str | None
    trouble: str = ""
    on_disk: str | None = None
    execution_id: str | None = None
    runbook: str | None = None
    recovery: str | None = None

    @property
    def system(self) -> str:
        return str(self.error["system"])

    @property
    def is_lost(self) -> bool:
        return self.decision is None or self.on_disk is None

    @property
    def is_recovered(self) -> bool:
        return not self.is_lost and self.recovery == "succeeded"


def error_of(number: int) -> dict[str, Any]:
    return {**ERRORS[number % len(ERRORS)], "number": number}


def hand_over(bridge: BridgeClient, error: dict[str, Any], timeout_s: float) -> Fate:
    try:
        reported = bridge.report_error(error, timeout_s)
    except LinkTimeout as late:
        return Fate(error, late.message_id, None, str(late))
    except LinkError as refused:
        return Fate(error, None, None, str(refused))
    return Fate(
        error,
        reported.alert_id,
        reported.outcome,
        execution_id=reported.execution_id,
        runbook=reported.runbook,
        trouble=reported.reason,
    )


@dataclass
class Asking:
    """Questions to the daemon over the bridge link."""

    channel: DealerChannel
    timeout_s: float

    def begin(self, question: Mapping[str, Any]) -> Callable[[], Any]:
        """The way to its answer; that raises FutureTimeout, LinkError."""
        exchange = self.channel.begin(Message(Kind.QUERY, new_id(), dict(question)), (Kind.ANSWER,))
        return lambda: exchange.answers[Kind.ANSWER].result(self.timeout_s).get("result")

    def ask(self, question: Mapping[str, Any]) -> Any:
        return self.begin(question)()


@contextmanager
def asking(options: argparse.Namespace) -> Iterator[Asking]:
    address = find_address("bridge", options.address, options.state)
    channel = DealerChannel(address, key=find_key(options.key_file, options.state))
    try:
        yield Asking(channel, options.timeout_s)
    finally:
        channel.close()


def ask_for(fates: list[Fate], daemon: Asking) -> list[Fate]:
    """Each with the outcome that the daemon's journal has under its id."""
    asked = [(fate, daemon.begin({"ask": "alert", "id": fate.alert_id})) for fate in fates if fate.alert_id is not None]
    found = [fate for fate in fates if fate.alert_id is None]
    for fate, answer in asked:
        try:
            alert = answer()
            trouble = fate.trouble or ("" if alert else "the daemon has no alert of its id")
            found.append(replace(fate, trouble=trouble, on_disk=alert["outcome"] if alert else None))
        except (FutureTimeout, LinkError) as failed:
            trouble = f"cannot be asked for: {str(failed) or 'no answer'}; {fate.trouble}"
            found.append(replace(fate, trouble=trouble))
    return found


def await_recoveries(fates: list[Fate], daemon: Asking, within_s: float) -> list[Fate]:
    """Each with the end of the execution that answers it; without one it has none."""
    deadline = time.monotonic() + within_s
    ends: dict[str, Mapping[str, Any]] = {}
    wanted = {fate.execution_id for fate in fates if fate.execution_id is not None}
    while wanted - ends.keys() and time.monotonic() < deadline:
        for execution_id in wanted - ends.keys():
            with suppress(FutureTimeout, LinkError):
                found = daemon.ask({"ask": "execution", "execution_id": execution_id})
                if found and found["status"] in ENDED:
                    ends[execution_id] = found
        PAUSE.wait(0.1)

    def ended(fate: Fate) -> Fate:
        if fate.execution_id is None:
            return fate
        end = ends.get(fate.execution_id)
        if end is None:
            return replace(fate, trouble=f"its recovery {fate.execution_id} is not over after {within_s:g} s")
        return replace(fate, recovery=end["status"], trouble=str(end.get("detail") or ""))

    return [ended(fate) for fate in fates]


def simulate_errors(options: argparse.Namespace) -> int:
    numbers = range(options.count)
    with (
        BridgeClient(
            options.address,
            name="simulator",
            state_dir=options.state,
            key_file=options.key_file,
            folder=options.folder,
        ) as bridge,
        ThreadPoolExecutor(options.threads) as pool,
        ExitStack() as stack,
    ):
        bench = Bench() if options.accept_only else stack.enter_context(speaking(options))
        for number in numbers:
            bench.happen(error_of(number))
        fates = list(pool.map(lambda number: hand_over(bridge, error_of(number), options.timeout_s), numbers))
        with asking(options) as daemon:
            fates = ask_for(fates, daemon)
            if not options.accept_only:
                fates = [bench.checked(fate) for fate in await_recoveries(fates, daemon, options.recovery_s)]
    print_table(fates)
    lost = sum(fate.is_lost for fate in fates)
    print(f"{len(fates) - lost} accepted, {lost} lost")
    if options.accept_only:
        return 1 if lost else 0
    print_recoveries(fates)
    left = sum(not fate.is_recovered for fate in fates)
    print(f"{len(fates) - left} recovered, {left} not recovered")
    return 1 if left else 0


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


def print_recoveries(fates: list[Fate]) -> None:
    print(f"\n{'SYSTEM':12} {'ERROR':22} {'ACCEPTED':9} {'DECISION':10} {'RUNBOOK':27} RECOVERY")
    for fate in sorted(fates, key=lambda one: int(one.error["number"])):
        accepted = "no" if fate.is_lost else "yes"
        decision, runbook = fate.decision or "none", fate.runbook or ""
        kind = str(fate.error["error_type"])
        print(f"{fate.system:12} {kind:22} {accepted:9} {decision:10} {runbook:27} {fate.recovery or 'none'}")
        if not fate.is_recovered:
            print(f"{fate.system} {kind}: not recovered: {fate.trouble or 'nothing answers it'}", file=sys.stderr)


# -- what the endpoints are like --------------------------------------------------------------------------------------


@dataclass
class Patient:
    """One side of the bridge: it has errors until a command ends them, and says so when it is asked."""

    name: str
    open: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def happen(self, error: Mapping[str, Any]) -> None:
        with self.lock:
            self.open[int(error.get("number", 0))] = str(error["error_type"])

    def has(self, error: Mapping[str, Any]) -> bool:
        with self.lock:
            return int(error["number"]) in self.open

    @property
    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        acting = {one: self._acting(one) for one in COMMANDS.get(self.name, ())}
        return {"ping": lambda _: "pong", "health": lambda _: self.health(), **acting}

    def health(self) -> Mapping[str, Any]:
        with self.lock:
            errors = sorted(set(self.open.values()))
        return {"status": "unhealthy", "error": ", ".join(errors)} if errors else {"status": "healthy"}

    def _acting(self, command: str) -> Callable[[Mapping[str, Any]], Any]:
        def act(_parameters: Mapping[str, Any]) -> str:
            with self.lock:
                ended = [number for number, kind in self.open.items() if CURES.get(kind) == command]
                for number in ended:
                    del self.open[number]
            return f"{command}: {len(ended)} errors ended"

        return act


@dataclass
class Bench:
    """The endpoints that are spoken for here."""

    patients: dict[str, Patient] = field(default_factory=dict)

    def happen(self, error: Mapping[str, Any]) -> None:
        patient = self.patients.get(error["system"])
        if patient is not None:
            patient.happen(error)

    def checked(self, fate: Fate) -> Fate:
        """A recovery that is said to be one must show here."""
        patient = self.patients.get(fate.system)
        if patient is not None and fate.recovery == "succeeded" and patient.has(fate.error):
            return replace(
                fate, recovery="not cured", trouble="its recovery is said to have succeeded, the error is there"
            )
        return fate


@contextmanager
def speaking(options: argparse.Namespace) -> Iterator[Bench]:
    """Be every endpoint of the four that is configured and that nobody else speaks for, until all are heard."""
    bench, stop = Bench(), threading.Event()
    with asking(options) as daemon, ExitStack() as stack:
        stack.callback(stop.set)
        configured = left_by_others(daemon)
        for name in COMMANDS:
            found = configured.get(name)
            if found is None:
                print(f"{name}: the daemon has no endpoint of this name (bridges.{name})", file=sys.stderr)
            elif found["ready"] or found["kind"] in ("spool", "fifo"):
                print(f"{name}: spoken for by somebody else ({found['kind']})", file=sys.stderr)
            elif found["place"] == "bridge link":
                patient = bench.patients[name] = Patient(name)
                stack.enter_context(linked(patient, options, found["kind"]))
            elif found["kind"] == "tcp":
                patient = Patient(name)
                peer = LinePeer(patient)
                try:
                    listener = stack.enter_context(listening(found["place"]))
                except OSError as error:
                    print(f"{name}: cannot listen on {found['place']}: {error.strerror}", file=sys.stderr)
                else:
                    bench.patients[name] = patient
                    threading.Thread(target=accept, args=(listener, peer, stop), daemon=True).start()
        await_ready(daemon, bench)
        yield bench


def left_by_others(daemon: Asking) -> Mapping[str, Any]:
    """The endpoints, once those of a simulator that has just ended are silent. What others speak for is theirs."""
    deadline = time.monotonic() + SILENT_S
    while True:
        configured: Mapping[str, Any] = daemon.ask({"ask": "endpoints"})
        if time.monotonic() >= deadline or not any(configured[one]["ready"] for one in COMMANDS if one in configured):
            return configured
        PAUSE.wait(0.1)


def await_ready(daemon: Asking, bench: Bench) -> None:
    """Until the daemon hears all of them: an error of one that it has not met yet would be another's."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        found = daemon.ask({"ask": "endpoints"})
        if all(found[name]["ready"] for name in bench.patients):
            return
        PAUSE.wait(0.1)
    print(f"not all endpoints are ready after {READY_S:g} s", file=sys.stderr)


@contextmanager
def linked(patient: Patient, options: argparse.Namespace, kind: str) -> Iterator[BridgeClient]:
    with BridgeClient(
        options.address,
        name=patient.name,
        state_dir=options.state,
        key_file=options.key_file,
        folder=options.folder,
        kind=kind,
        beat_every_s=BEAT_S,
        commands=patient.commands,
    ) as bridge:
        yield bridge


# -- endpoints --------------------------------------------------------------------------------------------------------


class LinePeer:
    """What stands behind a socket: it greets, beats, reports, and runs each command once, answering from its table."""

    session = new_id()

    def __init__(self, patient: Patient, errors: list[dict[str, Any]] | None = None) -> None:
        self._name = patient.name
        self._errors = list(errors or ())
        self._patient = patient
        self._commands = patient.commands
        self._table: dict[str, dict[str, Any]] = {}

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        with connection:
            try:
                known = sorted(self._commands)
                connection.sendall(
                    line({"kind": "hello", "name": self._name, "session": self.session, "commands": known})
                )
                threading.Thread(target=self._obey, args=(connection,), daemon=True).start()
                while not stop.wait(BEAT_S):
                    connection.sendall(line({"kind": "heartbeat", "pid": os.getpid()}))
                    while self._errors:
                        error = self._errors.pop()
                        self._patient.happen(error)
                        connection.sendall(line({"kind": "error", **error}))
            except OSError:
                return  # the daemon's end was closed: it comes again

    def _obey(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
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
        command = self._commands.get(str(asked.get("command")))
        if command is None:
            return {"state": "refused", "error": f"there is only {', '.join(sorted(self._commands))}"}
        result = command(asked.get("parameters") or {})
        return self._table.setdefault(asked["id"], {"state": "done", "result": result})


@contextmanager
def listening(at: str) -> Iterator[socket.socket]:
    host, _, port = at.rpartition(":")
    with socket.create_server((host, int(port))) as listener:
        listener.settimeout(0.2)
        yield listener


def accept(listener: socket.socket, peer: LinePeer, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        except OSError:
            return  # it was closed
        connection.settimeout(None)
        threading.Thread(target=peer.serve, args=(connection, stop), daemon=True).start()


def serve_tcp(options: argparse.Namespace, stop: threading.Event) -> int:
    peer = LinePeer(Patient(options.endpoint), own_errors(options))
    with listening(options.at) as listener:
        print(f"{options.endpoint} listens on {options.at}", flush=True)
        accept(listener, peer, stop)
    return 0


def own_errors(options: argparse.Namespace) -> list[dict[str, Any]]:
    if not options.simulate_errors:
        return []
    return [error_of(number) for number, error in enumerate(ERRORS) if error["system"] == options.endpoint]


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
    patient = Patient(options.endpoint)
    with linked(patient, options, options.kind) as bridge:
        print(f"{options.endpoint} beats over the bridge link", flush=True)
        for error in own_errors(options):
            patient.happen(error)
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
    parser.add_argument("--accept-only", action="store_true", help="be no endpoint, and wait for no recovery")
    parser.add_argument("--count", type=int, default=len(ERRORS), help="how many errors")
    parser.add_argument("--threads", type=int, default=4, help="how many at once")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="seconds to wait for each decision")
    parser.add_argument("--recovery-s", type=float, default=RECOVERED_S, help="seconds to wait for all recoveries")
    parser.add_argument("--endpoint", help="be an endpoint of this name instead, until ended")
    parser.add_argument("--kind", choices=sorted(KINDS), default="zeromq")
    parser.add_argument("--at", default="", help="HOST:PORT for kind tcp, a directory for fifo and spool")
    options = parser.parse_args()
    if options.endpoint is None:
        if options.simulate_errors:
            try:
                return simulate_errors(options)
            except (LinkError, FutureTimeout) as error:  # a key of role bridge may hand over, and ask nothing
                print(f"the daemon cannot be asked: {str(error) or 'no answer'}", file=sys.stderr)
                return 1
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
