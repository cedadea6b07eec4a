"""Every case in which a shipped runbook meets a real fault, in one list: tests run each once, the benchmark often.

To add cases write ``tests/faults/cases_WHAT.py`` with ``CASES: tuple[Case, ...]``; nothing else is needed. A case's
``run(folder, acts)`` makes its world in the empty ``folder`` (a real daemon: ``tests.faults.stage``), breaks it for
real, waits for what becomes of the alert, holds the world against what it must be (AssertionError: it is wrong) and
leaves nothing behind. It returns how the execution ended and how long that took from the fault on.

* ``Kind.SUCCESS``: the fault is cured, ``status`` is succeeded. The same case is run with ``acts=False``, a daemon
  whose acting calls do nothing and say they did (``tests.faults.stage``): then ``status`` must not be succeeded, and
  ``run`` must not hold the world against anything (nothing was mended).
* ``Kind.ROLLBACK``: the cure does not help (or fails), what was done is undone and the world is as it was before.
* ``Kind.NO_MATCH``: an alert much like it that must not start anything: ``status`` is the decision's outcome.
* ``Kind.OBSERVED``: it is only told to people; nothing is changed.
* ``Kind.REFUSED``: nobody agreed: nothing is done, ever.
"""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import tests.faults


class Kind(enum.Enum):
    SUCCESS = "success"
    ROLLBACK = "rollback"
    NO_MATCH = "no_match"
    OBSERVED = "observed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Ended:
    """``status``: of the execution, or the decision's outcome where none was begun. ``took_s``: from the fault to the
    end; None where time means nothing.
    """

    status: str
    took_s: float | None = None
    detail: str = ""


class Run(Protocol):
    def __call__(self, folder: Path, *, acts: bool) -> Ended: ...


@dataclass(frozen=True, slots=True)
class Case:
    """``wanted``: the statuses that are right. ``trouble``: why it cannot be tried on this machine; None: it can."""

    runbook: str
    name: str
    kind: Kind
    run: Run
    wanted: tuple[str, ...]
    trouble: Callable[[], str | None] = lambda: None

    @property
    def id(self) -> str:
        return f"{self.runbook}-{self.name}"


def all_cases() -> tuple[Case, ...]:
    """Of all modules ``tests.faults.cases_*``, by runbook and name."""
    names = sorted(one.name for one in pkgutil.iter_modules(tests.faults.__path__) if one.name.startswith("cases_"))
    modules = [importlib.import_module(f"tests.faults.{name}") for name in names]
    cases: list[Case] = [case for module in modules for case in module.CASES]
    ids = [case.id for case in cases]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise ValueError(f"two cases are named {', '.join(twice)}")
    return tuple(sorted(cases, key=lambda case: case.id))
