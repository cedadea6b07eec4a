"""The Docker watcher: hears of containers' ends from the engine's event stream, and checks the truth now and then.

Owns two threads, each with a client of its own: one blocks on the event stream, one reconciles every 5 s, at once when
the stream ended, and notices an engine that hangs. Events only wake: they get lost with the engine, and the SDK ends
the stream without an exception when the engine dies. While the engine is away nothing is known and nothing is done;
it is knocked at every second, so that its return is noticed soon.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, cast

import structlog
from docker import DockerClient

from actors.clock import Clock, SystemClock
from actors.runtimes.base import TruthUnknown
from actors.runtimes.docker_engine import AWAY, DockerEngine
from actors.runtimes.docker_exits import ContainerEvent, read_event

RECONCILE_S: Final = 5.0
_EVENTS: Final = (
    "die",
    "oom",
    "kill",
    "stop",
    "start",
    "restart",
    "pause",
    "unpause",
    "update",
    "destroy",
    "health_status",
)
_RETRY_S: Final = 1.0
_REMEMBERED: Final = 1024
_FILTERS: Final[dict[str, Any]] = {"type": ["container"], "event": list(_EVENTS)}


class EventListener(Protocol):
    """Who wants to know (the Docker runtime). Called on the watcher's threads."""

    def container_event(self, event: ContainerEvent) -> None: ...

    def reconcile(self) -> None:
        """Compare what is believed with what the engine says.

        Raises:
            TruthUnknown: the engine does not answer.
        """

    def engine_restarted(self, ended_at: float) -> None:
        """Another engine answers than before ``ended_at`` (Unix seconds): what it stopped when it went was no wish.

        Raises:
            TruthUnknown: the engine does not answer.
        """


class DockerWatcher:
    """``start(listener)`` once; ``trouble`` says why nothing is known now, or is None."""

    def __init__(
        self, engine: DockerEngine | None = None, *, reconcile_s: float = RECONCILE_S, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._engine = engine or DockerEngine()
        self._reconcile_s = reconcile_s
        self._closed = threading.Event()
        self._look_now = threading.Event()
        self._lock = threading.Lock()
        self._recent: deque[ContainerEvent] = deque(maxlen=_REMEMBERED)
        self._client: DockerClient | None = None
        self._stream: Any = None
        self._last_nanos: int | None = None
        self._last_seen: set[tuple[int, str, str]] = set()
        self._ended_at: float | None = None
        self._trouble: str | None = None
        self._trouble_listeners: list[Callable[[str | None], object]] = []
        self._threads: list[threading.Thread] = []
        self._listener: EventListener | None = None
        self._log = structlog.get_logger()

    def start(self, listener: EventListener) -> None:
        self._listener = listener
        self.ensure_running()

    @property
    def trouble(self) -> str | None:
        """Why the engine cannot be asked now, in words for people; None when it answers."""
        return self._trouble

    def on_trouble(self, listener: Callable[[str | None], object]) -> None:
        """Call ``listener`` with every change of ``trouble``, on a watcher thread: it must only put a message."""
        self._trouble_listeners.append(listener)

    @property
    def is_running(self) -> bool:
        return len(self._threads) == 2 and all(thread.is_alive() for thread in self._threads)

    def ensure_running(self) -> bool:
        """Start the threads that are not there. Returns whether one had to be started."""
        if self._closed.is_set() or self.is_running or self._listener is None:
            return False
        living = {thread.name: thread for thread in self._threads if thread.is_alive()}
        for name, target in (("docker-events", self._hear), ("docker-reconcile", self._check)):
            if name not in living:
                living[name] = threading.Thread(target=target, name=name, daemon=True)
                living[name].start()
        self._threads = list(living.values())
        return True

    def events_of(self, container_id: str) -> list[ContainerEvent]:
        """The last events of one container, oldest first."""
        with self._lock:
            return [event for event in self._recent if event.container_id == container_id]

    def close(self) -> None:
        self._closed.set()
        self._look_now.set()
        self._close_stream()
        for thread in self._threads:
            thread.join(timeout=5)

    # -- the event thread -----------------------------------------------------------------------------------------

    def _hear(self) -> None:
        while not self._closed.is_set():
            try:
                for raw in self._open():
                    self._take(raw)
            except (*AWAY, json.JSONDecodeError) as error:
                self._set_trouble(self._engine.away_text(error))
            except Exception as error:  # a fault of ours must not end the thread that all containers rely on
                self._log.error("docker event thread", exc_info=error)
            if self._ended_at is None:
                self._ended_at = self._clock.wall()
            self._close_stream()
            self._look_now.set()  # an end without exception is how an engine's death looks
            self._closed.wait(_RETRY_S)

    def _open(self) -> Iterable[Any]:
        """The stream from where the last one ended; the look after opening finds what fell between."""
        self._client = client = self._engine.connect()
        since = _engine_time(self._last_nanos)
        is_another = self._is_another_engine(client)
        self._stream = client.api.events(since=since, filters=_FILTERS, decode=True)
        if self._closed.is_set():
            self._close_stream()
        ended_at, self._ended_at = self._ended_at, None
        if is_another and ended_at is not None and self._listener is not None:
            self._last_nanos = None
            self._listener.engine_restarted(ended_at)
        self._look_now.set()
        stream: Iterable[Any] = self._stream
        return stream

    def _is_another_engine(self, client: DockerClient) -> bool:
        """An engine remembers its last events (256); one that does not know the last we saw was started since."""
        nanos = self._last_nanos
        if nanos is None:
            return False
        until = cast("int", f"{nanos // 10**9 + 1}")
        replay = client.api.events(since=_engine_time(nanos), until=until, filters=_FILTERS, decode=True)
        return not any(int(raw.get("timeNano") or 0) == nanos for raw in replay)

    def _take(self, raw: dict[str, Any]) -> None:
        event = read_event(raw)
        if event is None or self._is_repeated(raw, event):
            return
        with self._lock:
            self._recent.append(event)  # before the listener is told: a launch under way looks here afterwards
        if self._listener is not None:
            try:
                self._listener.container_event(event)
            except TruthUnknown as away:
                self._set_trouble(str(away))

    def _is_repeated(self, raw: dict[str, Any], event: ContainerEvent) -> bool:
        """A reopened stream repeats the events of its first moment."""
        nanos = int(raw.get("timeNano") or 0)
        key = (nanos, event.container_id, str(raw.get("Action")))
        if key in self._last_seen:
            return True
        if nanos != self._last_nanos:
            self._last_seen.clear()
        self._last_nanos = nanos
        self._last_seen.add(key)
        return False

    def _close_stream(self) -> None:
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(Exception):  # the SDK reaches into closed sockets when the stream ended itself
                stream.close()
        if self._client is not None:
            self._client.close()

    # -- the reconcile thread -------------------------------------------------------------------------------------

    def _check(self) -> None:
        while not self._closed.is_set():
            self._look_now.wait(self._reconcile_s)
            self._look_now.clear()
            if not self._closed.is_set() and self._listener is not None:
                self._check_once(self._listener)

    def _check_once(self, listener: EventListener) -> None:
        try:
            self._engine.ask(lambda client: client.ping())
            listener.reconcile()
            self._set_trouble(None)
        except TruthUnknown as away:
            self._set_trouble(str(away))
        except Exception as error:
            self._log.error("docker reconcile", exc_info=error)
            self._set_trouble(f"Docker engine answers with an error: {error}")

    def _set_trouble(self, trouble: str | None) -> None:
        if trouble == self._trouble or self._closed.is_set():
            return
        self._trouble = trouble
        for listener in self._trouble_listeners:
            listener(trouble)


def _engine_time(nanos: int | None) -> int | None:
    """As the engine takes it: nanoseconds behind a point, in text; the SDK passes it through."""
    return None if nanos is None else cast("int", f"{nanos // 10**9}.{nanos % 10**9:09d}")
