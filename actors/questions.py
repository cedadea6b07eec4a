"""Questions of clients: a few at a time on the I/O pool, which runbook steps, probes and launches share.

``take`` runs on a pump's thread and hands on. A question that is none is refused for good; whatever else goes wrong is
ours, or will pass: its asker asks again, and is never told that his question was bad.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from actors.iopool import IoPool
from actors.journal.schema import JournalTrouble
from bridge_link.wire import Kind, Message, nack

MOST_AT_ONCE: Final = 16
MOST_OF_ONE: Final = 8
"""Of one client: others are answered although it asks without end."""
BUSY_MS: Final = 200
AWAY_MS: Final = 1000


class BadQuestion(ValueError):
    """Nobody can answer it, now or later; the text says what could be asked."""


@dataclass
class Questions:
    """``ask`` answers on the pool, blocking. It raises BadQuestion, or JournalTrouble when there is no answer now."""

    io: IoPool
    ask: Callable[[Mapping[str, Any]], Any]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: Counter[str] = field(default_factory=Counter)
    _faults: set[str] = field(default_factory=set)

    def take(self, client: str, question: Message, answer: Callable[[Message], object]) -> None:
        """Raises RuntimeError when the pool is closed."""
        if not self._begin(client):
            text = f"{MOST_AT_ONCE} questions, or {MOST_OF_ONE} of this client, wait for their answers"
            answer(nack(question.id, "busy", text, permanent=False, retry_after_ms=BUSY_MS))
            return
        try:
            self.io.run(lambda: self._work(client, question, answer))
        except BaseException:
            self._end(client)
            raise

    def _begin(self, client: str) -> bool:
        with self._lock:
            if self._asked.total() >= MOST_AT_ONCE or self._asked[client] >= MOST_OF_ONE:
                return False
            self._asked[client] += 1
            return True

    def _end(self, client: str) -> None:
        with self._lock:
            self._asked[client] -= 1
            if not self._asked[client]:
                del self._asked[client]

    def _work(self, client: str, question: Message, answer: Callable[[Message], object]) -> None:
        try:
            answer(self._answered(question))
        except Exception as error:
            self._say_fault(error)
        finally:
            self._end(client)

    def _answered(self, question: Message) -> Message:
        try:
            return Message(Kind.ANSWER, question.id, {"ok": True, "result": self.ask(question.body)})
        except BadQuestion as bad:
            return nack(question.id, "malformed", str(bad), permanent=True)
        except JournalTrouble as trouble:
            text = str(trouble)
        except Exception as error:
            self._say_fault(error)
            text = "a fault of the daemon; its log says more"
        return nack(question.id, "busy", text, permanent=False, retry_after_ms=AWAY_MS)

    def _say_fault(self, error: Exception) -> None:
        """Once for each place: it is asked again every second."""
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = type(error).__name__ if at is None else f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
        with self._lock:
            if where in self._faults:
                return
            self._faults.add(where)
        structlog.get_logger().error("a question could not be answered", exc_info=error)
