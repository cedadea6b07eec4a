"""From when on the daemon answers questions: once what lived before it is taken on.

Else the first answers of a new daemon would show healthy services as starting, for the moments its look at them takes.
Any thread; nothing is waited for here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Final

from actors.board import Board, NodeState, NodeStatus
from actors.ledger import Phase, ServiceRecord

LIMIT_S: Final = 5.0
"""Longer nobody is kept waiting: then what is not settled is shown as it is."""
_UNSETTLED: Final = frozenset({NodeState.STOPPED, NodeState.WAITING, NodeState.STARTING})
"""Stopped is how a supervisor shows a child before its first start; whom a person stopped is not expected."""


def expected(records: Mapping[str, ServiceRecord], configured: Iterable[str]) -> frozenset[str]:
    """The services that were ready when the last daemon was heard of, and nobody stopped or paused since. Pure."""
    return frozenset(
        name
        for name in configured
        if (record := records.get(name)) is not None
        and (record.phase, record.stopped, record.paused) == (Phase.LAUNCHED, None, None)
        and record.proof is not None
    )


class Opening:
    """``is_open`` is set when each of ``paths`` was seen settled on the board, or after ``limit_s`` seconds."""

    def __init__(self, board: Board, paths: Iterable[str], *, limit_s: float = LIMIT_S) -> None:
        self.is_open = threading.Event()
        self._left = set(paths)
        self._lock = threading.Lock()
        self._timer = threading.Timer(limit_s, self.is_open.set)
        self._timer.daemon = True
        board.listen(self._look)
        self._timer.start()
        self._end_if_done()

    def close(self) -> None:
        self.is_open.set()
        self._timer.cancel()

    def _look(self, status: NodeStatus) -> None:
        if not self.is_open.is_set() and status.state not in _UNSETTLED:
            with self._lock:
                self._left.discard(status.path)
            self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._left:
            self.close()
