"""The running daemon: starts the tree, says ``ready``, obeys signals and the operator, ends everything in order.

Owns the main thread while the daemon runs. What is built is built by ``supervisors.app``.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, Protocol

import structlog

from actors.board import NodeKind, NodeState
from actors.live_runs import LiveRuns
from actors.messages import StopMode
from actors.spec import ExitReason
from supervisors.library import SupervisionError, Supervisor
from supervisors.manager import SCHEMA, Manager
from supervisors.overseers import Overseers
from supervisors.pulse import Pulse
from supervisors.wellness import is_well

EXIT_WELL: Final = 0
EXIT_FAILED: Final = 1
EXIT_GAVE_UP: Final = 70
"""Our own code failed beyond repair: whoever supervises the daemon should start it again (sysexits EX_SOFTWARE)."""
SETTLE_S: Final = 5.0
"""``ready`` waits this long for services that are still starting; then it is said with what is missing."""
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A closed terminal (SIGHUP) ends the daemon in order too: nothing may stay up unsupervised. Without a terminal, SIGHUP
means: read the file again.
"""
KILL_LIMIT_S: Final = 5.0
EXTEND_EVERY_S: Final = 5.0
EXTEND_BY_S: Final = 15.0
"""While an orderly end goes on, systemd is asked for this much more time, again and again."""


class View(Protocol):
    """What shows the tree while the daemon runs (a terminal's live view)."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StopCommand:
    mode: StopMode
    by: str


@dataclass(frozen=True, slots=True)
class ServiceEnded:
    """The service the daemon ends with (``exit_with``) has ended for good: the daemon's exit code is ``code``.

    ``why`` is said when it could not even be started.
    """

    name: str
    code: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class RootEnded:
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class ReloadCommand:
    """SIGHUP without a terminal."""


Command = StopCommand | ServiceEnded | RootEnded | ReloadCommand


@dataclass
class Daemon:
    """Args:
    start_root: starts the tree; raises SupervisionError.
    manager: looks at it.
    address: of the operator's HTTP interface, once the tree is up.
    close: ends the threads that are no node of the tree.
    overseers: who looks after this daemon from outside.
    reload: applies the edited file on SIGHUP; None: SIGHUP ends the daemon.
    """

    start_root: Callable[[], Supervisor]
    manager: Manager
    live: LiveRuns
    address: Callable[[], str | None]
    close: Callable[[], None]
    overseers: Overseers
    view: View | None = None
    reload: Callable[[], None] | None = None
    rested: Callable[[], None] = lambda: None
    """Called when all has ended in order, and nothing was left running."""
    ending: Callable[[], None] = lambda: None
    """Called when the end begins."""
    as_json: bool = False
    """Whether the line that it is ready is JSON."""
    kills: list[threading.Thread] = field(default_factory=list)
    commands: queue.SimpleQueue[Command] = field(default_factory=queue.SimpleQueue)
    is_ending: threading.Event = field(default_factory=threading.Event)
    last_words: str = ""

    def run(self) -> int:
        """Runs until the tree has ended; returns the exit code."""
        with self._signals():  # until the very end: a second Ctrl-C must not cut the closing short
            self.overseers.listening()
            try:
                root = self._start()
                return EXIT_FAILED if root is None else self._serve(root)
            finally:
                self.close()

    def ask_to_stop(self, keep_services: bool, by: str) -> None:
        """From any thread, also from a signal handler."""
        mode = StopMode.DETACH if keep_services else StopMode.END_OF_DAEMON
        self.commands.put(StopCommand(mode, by))

    def ask_to_end_with(self, service: str, code: int, why: str = "") -> None:
        """From any thread: the chosen service is gone (``why``: it never came), the rest follows."""
        self.commands.put(ServiceEnded(service, code, why))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _start(self) -> Supervisor | None:
        try:
            root = self.start_root()
        except SupervisionError as failed:
            print(
                f"selfheal: cannot start: {innermost(failed.reason) or failed.reason or failed}",
                file=sys.stderr,
                flush=True,
            )
            return None
        self.overseers.up()
        threading.Thread(target=self._await_end, args=(root,), name="root-waiter", daemon=True).start()
        return root

    def _await_end(self, root: Supervisor) -> None:
        self.commands.put(RootEnded(root.wait()))

    def _serve(self, root: Supervisor) -> int:
        threading.Thread(target=self._announce, name="announce", daemon=True).start()
        if self.view is not None:
            self.view.start()
        try:
            return self._obey(root)
        finally:
            if self.view is not None:
                self.view.stop()
                if self.last_words:
                    print(f"selfheal: {self.last_words}", file=sys.stderr, flush=True)

    def _obey(self, root: Supervisor) -> int:
        asked, code, is_whole = 0, EXIT_WELL, True
        while True:
            match self._next_command(root):
                case RootEnded(reason) if not self.is_ending.is_set():
                    return self._gave_up(reason)
                case RootEnded():
                    if is_whole:
                        self.rested()
                    return code
                case ServiceEnded(name, its_code, why):
                    if not self.is_ending.is_set():
                        code = its_code
                        self._say_its_end(name, code, why)
                        self._begin_end(root, StopMode.END_OF_DAEMON)
                case ReloadCommand():
                    self._begin_reload()
                case StopCommand(mode, by):
                    asked += 1
                    if asked == 1:
                        is_whole = mode is StopMode.END_OF_DAEMON
                        self._begin_end(root, mode)
                    elif asked == 2:
                        self._kill_all()
                    else:
                        self._await_kills()
                        return EXIT_FAILED
                    structlog.get_logger().info("stopping", by=by, mode=mode.value, time_asked=asked)

    def _say_its_end(self, name: str, code: int, why: str) -> None:
        log = structlog.get_logger()
        if not why:
            log.info("ending with its service", service=name, exit_code=code)
            return
        self.last_words = f"{name} could not be started: {why}; ending with exit code {code}"
        log.error(self.last_words, service=name, exit_code=code)

    def _begin_end(self, root: Supervisor, mode: StopMode) -> None:
        """Also a person's first request while the daemon ends with its service: no grace is cut short by it."""
        if not self.is_ending.is_set():
            self.is_ending.set()
            self.ending()
            self.overseers.stopping()
            self.overseers.notifier.extend(EXTEND_BY_S)
        root.stop_begin(mode)

    def _next_command(self, root: Supervisor) -> Command:
        """The next one; a slow end that goes on is said to go on."""
        if not (self.is_ending.is_set() and self.overseers.notifier.is_heard):
            return self.commands.get()
        pulse = Pulse(lambda _path: root.ref, lambda: (root.path,), time.monotonic)
        while True:
            try:
                return self.commands.get(timeout=EXTEND_EVERY_S)
            except queue.Empty:
                if pulse.look():
                    self.overseers.notifier.extend(EXTEND_BY_S)

    def _begin_reload(self) -> None:
        """On a thread of its own: a stop must not wait for it."""
        if self.reload is not None:
            threading.Thread(target=self._reload, args=(self.reload,), name="reload", daemon=True).start()

    def _reload(self, reload: Callable[[], None]) -> None:
        self.overseers.reloading()
        try:
            reload()
        finally:
            self.overseers.ready()

    def _kill_all(self) -> None:
        """The second request: no service gets its grace any more, and a killed one no other run."""
        self.live.no_more()
        for runtime, handle in tuple(self.live.by_service.values()):
            kill = threading.Thread(target=runtime.kill, args=(handle,), name=f"kill:{handle.service}", daemon=True)
            kill.start()
            self.kills.append(kill)

    def _await_kills(self) -> None:
        """The third request leaves at once, but no process behind."""
        deadline = time.monotonic() + KILL_LIMIT_S
        self.live.await_launched(KILL_LIMIT_S)
        self._kill_all()
        for kill in self.kills:
            kill.join(max(0.0, deadline - time.monotonic()))

    def _gave_up(self, reason: ExitReason) -> int:
        structlog.get_logger().critical("root supervisor gave up", reason=str(reason), **dict(reason.evidence))
        return EXIT_GAVE_UP

    def _announce(self) -> None:
        """Say ``ready`` once, when every wanted service is ready, or after a while with what is not."""
        deadline = time.monotonic() + SETTLE_S
        pause = threading.Event()
        while not is_well(self.manager.tree()) and time.monotonic() < deadline:
            pause.wait(0.05)
        missing = [node["name"] for node in self.manager.services() if _is_late(node)]
        if self.view is None:
            print(self._ready_line(missing), flush=True)
        if not self.is_ending.is_set():
            self.overseers.ready()

    def _ready_line(self, missing: Sequence[str]) -> str:
        address = self.address()
        if self.as_json:
            return json.dumps({"schema": SCHEMA, "ready": True, "address": address, "not_yet_ready": list(missing)})
        late = [f"(not yet ready: {', '.join(missing)})"] if missing else []
        return " ".join(["ready", *([address] if address else []), *late])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def obey(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP and self.reload is not None:
                self.commands.put(ReloadCommand())
                return
            self.ask_to_stop(keep_services=False, by=signal.Signals(number).name)

        before = {one: signal.signal(one, obey) for one in STOPPING}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def on_terminal() -> bool:
    """Whether a person's terminal may close under the daemon."""
    return any(stream is not None and not stream.closed and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _is_late(node: Any) -> bool:
    is_service = bool(node["kind"] == NodeKind.SERVICE.value)
    return is_service and bool(node["wanted"]) and node["state"] != NodeState.READY.value


def innermost(reason: object) -> str | None:
    """The plain text at the bottom of a nested failed start."""
    while isinstance(reason, ExitReason) and isinstance(reason.evidence.get("reason"), ExitReason):
        reason = reason.evidence["reason"]
    return str(reason) if isinstance(reason, ExitReason) else None
