"""The look of a step that only lets time pass: it says yes, and the engine sees it hold."""

from __future__ import annotations

from typing import Final

from runbooks.calls.family import CheckOutcome, Context, Family, yes_no
from runbooks.model import Call, CallType


def _passed(_call: Call, _context: Context) -> CheckOutcome:
    return yes_no(True, "waited")


FAMILY: Final = Family(looks={CallType.TIME_PASSED: _passed})
