"""Every case in which a shipped runbook meets a real fault, in one list: tests run each once, the benchmark often.

To add cases write ``tests/faults/cases_WHAT.py`` with ``CASES: tuple[Case, ...]``; nothing else is needed. A case's
``play`` makes its world in the bed that it is given (``tests.faults.ward``), beside all others in one real daemon,
breaks it for real, waits for what becomes of the alert, holds the world against what it must be (AssertionError: it is
wrong) and leaves nothing behind. It tells how the execution ended and how long that took from the fault on.

* ``Kind.SUCCESS``: the fault is cured, ``status`` is succeeded. The same case is played without teeth, in a daemon
  whose acting calls do nothing and say they did (``tests.faults.toothless``): then ``status`` must not be succeeded,
  and the world must not be held against anything (nothing was mended).
* ``Kind.ROLLBACK``: the cure does not help (or fails), what was done is undone and the world is as it was before.
* ``Kind.NO_MATCH``: an alert much like it that must not start anything: ``status`` is the decision's outcome.
* ``Kind.OBSERVED``: it is only told to people; nothing is changed.
* ``Kind.REFUSED``: nobody agreed: nothing is done, ever.
* ``Kind.LEFT``: the fault is not one to be cured by itself: nothing is changed, the run says why.
"""

from __future__ import annotations

import enum
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tests.faults
from tests.faults.ended import Ended
from tests.faults.ward import Outcome, Play, played

__all__ = ["Case", "Ended", "Kind", "all_cases", "is_root", "play_all"]


class Kind(enum.Enum):
    SUCCESS = "success"
    ROLLBACK = "rollback"
    NO_MATCH = "no_match"
    OBSERVED = "observed"
    REFUSED = "refused"
    LEFT = "left"


def is_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


@dataclass(frozen=True, slots=True)
class Case:
    """``wanted``: the statuses that are right. ``trouble``: why it cannot be tried on this machine; None: it can.

    ``play``: how it goes beside others, in the daemon of its ``place``.
    """

    runbook: str
    name: str
    kind: Kind
    play: Play
    wanted: tuple[str, ...]
    trouble: Callable[[], str | None] = lambda: None
    place: str = ""

    @property
    def id(self) -> str:
        return f"{self.runbook}-{self.name}"

    @property
    def hasty(self) -> bool:
        """What must fail meets less patient runbooks."""
        return self.kind in (Kind.ROLLBACK, Kind.LEFT)


def play_all(cases: Iterable[Case], folder: Path, *, acts: bool) -> dict[str, Outcome]:
    """Each once, by their ids: one daemon for each place, all at once."""
    places: dict[str, dict[str, tuple[Play, bool]]] = {}
    for case in cases:
        places.setdefault(case.place, {})[case.id] = (case.play, case.hasty)
    if not places:
        return {}
    for place in places:
        (folder / f"ward-{place}").mkdir()
    with ThreadPoolExecutor(len(places)) as pool:
        going = [
            pool.submit(played, plays, folder / f"ward-{place}", acts=acts) for place, plays in sorted(places.items())
        ]
        return {name: outcome for one in going for name, outcome in one.result().items()}


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
