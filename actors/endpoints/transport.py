"""What every transport of a bridge endpoint is: a thread that owns its socket, pipe, folder or program.

``tell`` is called on the transport's thread and must only put a message into an inbox. ``close`` may be called from any
thread and ends the transport within a moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from actors.bridge_fsm import Lost
from bridge_link.wakeup import WakeUp


@dataclass(frozen=True, slots=True)
class EndpointPlan:
    """One endpoint as configured. ``start_period_s``: how long the first sign after a start of the daemon may take."""

    name: str
    kind: str
    silence_s: float
    address: str | None = None
    directory: Path | None = None
    start_period_s: float = 0.0
    executor: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        if self.executor:
            return self.executor[0]
        return self.address or (str(self.directory) if self.directory is not None else "bridge link")


@dataclass(frozen=True, slots=True)
class ErrorHeard:
    """The endpoint reported an error: a bridge error dictionary. ``is_life``: whether that shows that it lives."""

    error: Mapping[str, Any]
    is_life: bool = True


Tell = Callable[[object], object]


class Transport(Protocol):
    def start(self, tell: Tell) -> None: ...
    def close(self) -> None: ...


class ThreadedTransport:
    """A transport with a thread; ``_run`` ends when ``_closed`` is set or the endpoint is lost."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = threading.Event()
        self._wake = WakeUp()

    def start(self, tell: Tell) -> None:
        threading.Thread(target=self._guarded, args=(tell,), name=f"endpoint:{self._name}", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._wake.ring()

    def _guarded(self, tell: Tell) -> None:
        try:
            self._run(tell)
        except Exception as error:  # whatever it is, the actor must hear that its transport has ended
            if not self._closed.is_set():
                tell(Lost((error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__))
        finally:
            self._wake.close()

    def _run(self, tell: Tell) -> None:
        raise NotImplementedError
