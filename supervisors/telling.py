"""Troubles that a node shows are also said once: when they begin, and when they are over. On the node's own thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

QUIET_LOOKS: Final = 3
"""A trouble that comes and goes (a disk at its brim) is one trouble: it is over when so many looks found nothing."""


@dataclass
class Telling:
    """Args:
    what: whose trouble it is.
    trouble: looks; None when all is well.
    tell: called with ``what`` and the trouble when one begins.
    over: called with ``what`` when it is over.
    """

    what: str
    trouble: Callable[[], str | None]
    tell: Callable[[str, str], object]
    over: Callable[[str], object] = lambda _what: None
    _is_told: bool = False
    _quiet: int = field(default=0)

    def look(self) -> str | None:
        """Look, and say what has changed. Returns the trouble."""
        found = self.trouble()
        if found is not None:
            self._quiet = 0
            if not self._is_told:
                self._is_told = True
                self.tell(self.what, found)
        elif self._is_told:
            self._quiet += 1
            if self._quiet >= QUIET_LOOKS:
                self._is_told = False
                structlog.get_logger().info("records are kept again", what=self.what)
                self.over(self.what)
        return found
