"""How long to wait before a daemon that ended is started again. Pure: the clock comes in as numbers.

Shared by the keeper and the init: both start a daemon that is gone, and neither may do so in a hot loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUICK_S: Final = 10.0
"""A daemon that lived shorter than this did not really come up."""
FIRST_S: Final = 0.5
MOST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """``quick`` counts the quick ends in a row."""

    quick: int = 0

    def after(self, lived_s: float) -> Patience:
        """The patience after a daemon that lived ``lived_s`` seconds has ended."""
        return Patience(self.quick + 1 if lived_s < QUICK_S else 0)

    @property
    def delay_s(self) -> float:
        """The pause before the next start: none after a long life, then growing."""
        return 0.0 if self.quick == 0 else min(MOST_S, FIRST_S * 2.0 ** min(self.quick - 1, 16))
