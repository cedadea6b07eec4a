"""How a case ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ended:
    """``status``: of the execution, or the decision's outcome where none was begun. ``took_s``: from the fault to the
    end; None where time means nothing.
    """

    status: str
    took_s: float | None = None
    detail: str = ""
