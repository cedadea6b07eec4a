"""The daemon's side of the keeper: find it or start it, ask it, hear of ends.

One reader thread a connection hands out answers and calls ``on_exited``; requests come from any thread. When the
connection ends, everybody who waits is told (``KeeperLost``) and ``on_lost`` is called once, on the reader thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from actors.failpoints import reached, register
from actors.keeper.words import PEER_CREDENTIALS, VERSION, BrokenFrame, Frame, Frames, KeptRun, address_of, encode

ANSWER_S: Final = 10.0
READ_BYTES: Final = 256 * 1024
START_TRIES: Final = 3
OTHERS_S: Final = 1.0
OTHERS_LOOK_S: Final = 0.005
"""How long, and how often, it is tried to reach a keeper that somebody else is starting."""
MOST_UNANSWERED: Final = 3
TOLD_S: Final = 5.0
"""Who cannot reach the keeper waits so long until its loss is told."""

KEEPER_BOUND: Final = register("daemon.keeper.bound", "the keeper's address is bound, no keeper was started")
KEEPER_STARTED: Final = register("daemon.keeper.started", "a keeper was started, nobody is connected")
SPAWN_ASKED: Final = register("daemon.spawn.asked", "the keeper was asked to spawn, its answer is not read")
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from actors.keeper.main import main; sys.exit(main(sys.argv[2], int(sys.argv[3])))"
)


class KeeperLost(Exception):
    """The keeper does not answer (any more)."""


class KeeperUnavailable(Exception):
    """There is no keeper and none can be started. The text says why."""


OnExited = Callable[[KeptRun, KeptRun | None], None]
"""Called on the reader thread with the run that ended and the run the keeper has started in its place."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a daemon tells its keeper of itself. ``respawn`` says how and when it is to be started again."""

    ledger: Path
    environment: Mapping[str, str]
    frozen_after_s: float
    respawn: Mapping[str, Any]


class KeeperLink:
    """A connection to a keeper that has said hello. ``runs`` is what the keeper knew then."""

    def __init__(
        self, connection: socket.socket, hello: Hello, on_exited: OnExited, on_lost: Callable[[], None]
    ) -> None:
        """Raises: KeeperLost, KeeperUnavailable (it speaks another version)."""
        self._socket = connection
        self._on_exited = on_exited
        self._on_lost = on_lost
        self._send_lock = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Frame | None]] = {}
        self._lost = threading.Event()
        self._pidfd: int | None = None
        self._is_leaving = False
        self._is_welcome = False
        self._unanswered_since_s: float | None = None
        self._unanswered = 0
        self.log_trouble: str | None = None
        self._thread = threading.Thread(target=self._read, name="keeper-reader", daemon=True)
        self._thread.start()
        try:
            welcome = self._say_hello(hello)
        except (KeeperLost, BrokenFrame):
            self.close()  # or its end would be told later, as the end of the next one
            raise
        if welcome["version"] != VERSION:
            self.close()
            raise KeeperUnavailable(
                f"the keeper with pid {welcome['pid']} is of another version: stop its services, then it ends"
            )
        self._is_welcome = True
        self.pid = int(welcome["pid"])
        self._pidfd = os.pidfd_open(self.pid)  # it has just answered: this is it
        self.runs = tuple(KeptRun.from_plain(raw) for raw in welcome["runs"])

    def _say_hello(self, hello: Hello) -> Frame:
        return self.ask(
            "hello",
            ledger=str(hello.ledger),
            environment=dict(hello.environment),
            frozen_after_s=hello.frozen_after_s,
            respawn=dict(hello.respawn),
        )

    @property
    def is_alive(self) -> bool:
        return not self._lost.is_set()

    def ask(self, act: str, **words: Any) -> Frame:
        """Send a request and wait for its answer.

        Raises:
            KeeperLost: the keeper is gone, or does not answer within ``ANSWER_S``.
        """
        number = next(self._ids)
        inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._waiting[number] = inbox
        try:
            self._send({"do": act, "id": number, **words})
            if act == "spawn":
                reached(SPAWN_ASKED)
            answer = inbox.get(timeout=ANSWER_S)
        except queue.Empty:
            raise KeeperLost(f"the keeper did not answer {act!r} within {ANSWER_S:.0f} s") from None
        finally:
            self._waiting.pop(number, None)
        if answer is None:
            raise KeeperLost("the keeper has ended")
        return answer

    def say(self, act: str, **words: Any) -> None:
        """Send what has no answer. A lost keeper is noticed elsewhere."""
        try:
            self._send({"do": act, "id": 0, **words})
        except KeeperLost:
            structlog.get_logger().warning("the keeper is lost", not_said=act)

    def leave(self) -> None:
        """Say goodbye: this daemon ends in order. The keeper stays for as long as a service lives.

        Raises:
            KeeperLost: it was not heard.
        """
        self._is_leaving = True
        self.ask("bye")

    def beat(self) -> None:
        """Say that the daemon is well. A keeper that has not answered the last ones is beyond help and is killed.

        Not by the first beat after a silence of our own: what it had to say may not have been read yet.
        """
        now_s = time.monotonic()
        since_s = self._unanswered_since_s
        self._unanswered_since_s = now_s if since_s is None else since_s
        self._unanswered += 1
        is_silent = since_s is not None and now_s - since_s > ANSWER_S and self._unanswered > MOST_UNANSWERED
        if self._pidfd is not None and is_silent:
            structlog.get_logger().error("the keeper does not answer: killed", pid=self.pid)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.say("beat")

    def close(self) -> None:
        """End the connection without a word."""
        self._is_leaving = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._lost.set()  # it was over already
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _send(self, frame: Mapping[str, Any]) -> None:
        data = encode(frame)
        try:
            with self._send_lock:
                self._socket.sendall(data)
        except OSError as error:
            self._hang_up()
            raise KeeperLost(f"the keeper cannot be reached: {error.strerror}") from error
        if self._lost.is_set():
            raise KeeperLost("the keeper has ended")

    def _hang_up(self) -> None:
        """Before anybody goes on to the next keeper the loss of this one is told: its services fall to the daemon."""
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._lost.wait(TOLD_S)

    # -- the reader thread --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        frames = Frames()
        try:
            while data := self._socket.recv(READ_BYTES):
                for frame in frames.feed(data):
                    self._take(frame)
        except (OSError, BrokenFrame, KeyError, TypeError, ValueError) as error:
            structlog.get_logger().error("the keeper's connection broke", error=repr(error))
        try:
            if self._is_welcome and not self._is_leaving:
                self._on_lost()
        finally:  # only now: who hears of the loss first would start the next keeper into its midst
            self._lost.set()
            for inbox in tuple(self._waiting.values()):
                inbox.put(None)
            self._socket.close()

    def _take(self, frame: Frame) -> None:
        self._unanswered_since_s, self._unanswered = None, 0
        if "exited" not in frame:
            self.log_trouble = frame.get("log_trouble")
            inbox = self._waiting.get(frame["id"])
            if inbox is not None:
                inbox.put(frame)
            return
        successor = frame["successor"]
        self._on_exited(
            KeptRun.from_plain(frame["exited"]), None if successor is None else KeptRun.from_plain(successor)
        )


def connect(state_dir: Path) -> socket.socket:
    """A connection to this state directory's keeper, which is started if there is none.

    Raises:
        KeeperUnavailable: neither works; the text says why.
    """
    address = address_of(state_dir)
    starts, give_up_at = 0, time.monotonic() + OTHERS_S
    while starts < START_TRIES and time.monotonic() < give_up_at:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            connection.close()
            if _start(state_dir, address):
                starts += 1
            else:
                threading.Event().wait(OTHERS_LOOK_S)
            continue
        except OSError as error:
            connection.close()
            raise KeeperUnavailable(f"cannot reach the keeper: {error.strerror}") from error
        _check_owner(connection)
        return connection
    raise KeeperUnavailable("the keeper ends as soon as it is started: see keeper.log in the state directory")


def _check_owner(connection: socket.socket) -> None:
    """Abstract addresses have no permissions: somebody else may have taken ours."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    _, uid, _ = PEER_CREDENTIALS.unpack(raw)
    if uid != os.getuid():
        connection.close()
        raise KeeperUnavailable(f"the keeper's address is taken by another user (uid {uid})")


def _start(state_dir: Path, address: str) -> bool:
    """Bind the address and hand it to a new keeper, so that a connection waits from the first moment. False: somebody
    was quicker, and may not listen yet.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(address)
        except OSError:
            return False
        listener.listen(8)
        reached(KEEPER_BOUND)
        os.set_inheritable(listener.fileno(), True)
        source = Path(__file__).resolve().parents[2]
        argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(source), str(state_dir), str(listener.fileno())]
        with _output(state_dir) as output:
            try:
                subprocess.Popen(
                    argv,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=(listener.fileno(),),
                ).returncode = 0  # its end is seen at the connection, and it may outlive us
            except OSError as error:
                raise KeeperUnavailable(f"cannot start the keeper: {error.strerror}") from error
        reached(KEEPER_STARTED)
    return True


def _output(state_dir: Path) -> Any:
    try:
        return (state_dir / "keeper.log").open("ab")
    except OSError:  # a full or read-only disk must not prevent the keeper
        return Path(os.devnull).open("ab")
