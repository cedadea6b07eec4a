"""Whether the supervisors really answer: each is asked through its inbox and answers on its own thread.

A process that lives proves nothing, and a timer that ticks neither: a supervisor that hangs restarts nobody. What says
"the daemon is well" (the keeper's beat, systemd's watchdog) is said only when all have answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from actors.messages import AreYouThere
from actors.refs import ActorRef, Ref

SAID_AFTER_S: Final = 5.0
"""A supervisor that is busy for a moment is not worth a word in the tree."""


@dataclass(frozen=True, slots=True)
class _Asked:
    ref: ActorRef
    at_s: float


class Pulse:
    """``look`` once in a while, from one thread.

    Args:
        whereis: the present reference of a node, by path.
        paths: the supervisors there are now; one that does not run now is not asked.
        monotonic: clock seconds.
    """

    def __init__(
        self, whereis: Callable[[str], Ref | None], paths: Callable[[], Iterable[str]], monotonic: Callable[[], float]
    ) -> None:
        self._whereis = whereis
        self._paths = paths
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}

    def look(self) -> bool:
        """Whether all have answered since the last look; if so they are asked anew."""
        with self._lock:
            for path, asked in tuple(self._asked.items()):
                if self._whereis(path) is not asked.ref or not asked.ref.is_alive:
                    del self._asked[path]  # that run is over: the next is asked
            if self._asked:
                return False
        for path in self._paths():
            ref = self._whereis(path)
            if isinstance(ref, ActorRef):
                self._ask(path, ref)
        return True

    @property
    def trouble(self) -> str | None:
        """Who has not answered for a while."""
        now_s = self._monotonic()
        with self._lock:
            late = {path: now_s - asked.at_s for path, asked in self._asked.items()}
        path = max(late, key=lambda one: late[one], default=None)
        if path is None or late[path] < SAID_AFTER_S:
            return None
        return f"{path} has not answered for {late[path]:.0f} s"

    def _ask(self, path: str, ref: ActorRef) -> None:
        asked = _Asked(ref, self._monotonic())
        with self._lock:
            self._asked[path] = asked

        def here() -> None:
            with self._lock:
                if self._asked.get(path) is asked:
                    del self._asked[path]

        if not ref.tell(AreYouThere(here)):
            here()  # it is gone: not hung
