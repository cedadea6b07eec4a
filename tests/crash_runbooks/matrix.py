"""All rows of the matrix, side by side in processes of their own, and the table of their outcomes."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Final

import supervisors.run  # noqa: F401  with it every place is registered
from actors.failpoints import FAIL_POINTS
from tests.crash_runbooks.rows import NOT_AGAIN, OK, Outcome, Row, run_row
from tests.crash_runbooks.stages import Stage, all_stages

JOBS: Final = 2 * (os.cpu_count() or 1)
"""Most of a row's time is waiting."""
LOOKS: Final = "runbook.looked."
"""Taken again and again while something is waited for: only the first is a place of its own."""
DANGEROUS: Final = ("runbook.called", "runbook.undone")
"""The effect is made and nobody knows."""


class BadChoice(Exception):
    """No such runbook, or a place that nothing leads through."""


def places() -> tuple[str, ...]:
    """Of a running runbook; all others are ``tests.crash``'s."""
    return tuple(name for name in FAIL_POINTS if name.startswith("runbook."))


def stages_of(runbook: str | None) -> dict[str, type[Stage]]:
    """Those that can be played here. Raises BadChoice."""
    stages = {key: one for key, one in all_stages().items() if runbook in (None, one.runbook)}
    if not stages:
        raise BadChoice(f"no runbook with a stage is called {runbook}")
    return {key: one for key, one in stages.items() if one.trouble() is None}


def plain_rows(stages: Iterable[str]) -> list[Row]:
    """Nobody dies: it shows which places each leads through."""
    return [Row(stage, None) for stage in stages]


def single_rows(plain: Iterable[Outcome]) -> list[Row]:
    """Every place of every stage, each time it is passed."""
    return [Row(one.row.stage, point) for one in plain for point in _points(one.passed)]


def quick_rows(plain: Sequence[Outcome]) -> list[Row]:
    """Every place once, on the cheapest stage that leads through it; and in every other stage the dangerous ones."""
    chosen: dict[str, Row] = {}
    for one in plain:
        for name in dict.fromkeys(one.passed):
            chosen.setdefault(name, Row(one.row.stage, name))
    others = [Row(one.row.stage, name) for one in plain for name in DANGEROUS if name in one.passed]
    return list(dict.fromkeys([*chosen.values(), *others]))


def pair_rows(singles: Iterable[Outcome]) -> list[Row]:
    """Each first death with every second one its recovery can have, as it went through these places just now."""
    return [
        Row(one.row.stage, one.row.point, second)
        for one in singles
        if one.is_right
        for second in dict.fromkeys(one.passed)
    ]


def missing_rows(done: Iterable[Outcome], pairs: Iterable[Row]) -> list[Row]:
    """A pair for each place that only a recovering daemon passes."""
    seen = {str(one.row.second or one.row.point).partition(":")[0] for one in done}
    chosen: dict[str, Row] = {}
    for pair in pairs:
        if pair.second is not None and pair.second not in seen:
            chosen.setdefault(pair.second, pair)
    return list(chosen.values())


def unreached(outcomes: Iterable[Outcome]) -> list[str]:
    """Places at which nobody died."""
    died = {str(name).partition(":")[0] for one in outcomes for name in (one.row.point, one.row.second) if name}
    return [name for name in places() if name not in died]


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    return random.Random(seed).sample(rows, min(count, len(rows)))


def run_all(rows: Sequence[Row], jobs: int, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """In the order of ``rows``; ``tell`` hears of each as it ends. Workers fork daemons, so they have no threads."""
    outcomes: dict[Row, Outcome] = {}

    def take(future: Future[Outcome]) -> None:
        outcome = future.result()
        outcomes[outcome.row] = outcome
        tell(outcome)

    if not rows:
        return []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_row, row) for row in rows]):
            take(future)
    return [outcomes[row] for row in rows]


def _points(passed: Sequence[str]) -> Iterator[str]:
    for name, times in Counter(passed).items():
        yield name
        if not name.startswith(LOOKS):
            yield from (f"{name}:{nth}" for nth in range(2, times + 1))


# -- the table --------------------------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each place, a column for each stage: deaths there (as the first or the second), and what was wrong."""
    stages = list(dict.fromkeys(one.row.stage for one in outcomes))
    width = max(len(name) for name in places()) + 2
    yield "runbook stages: " + ", ".join(f"{number}={name}" for number, name in enumerate(stages, 1))
    yield f"{'place':<{width}}" + "".join(f"{number:>10}" for number in range(1, len(stages) + 1))
    for name in places():
        cells = [_cell([one for one in outcomes if one.row.stage == stage and _is_at(one, name)]) for stage in stages]
        yield f"{name:<{width}}" + "".join(f"{cell:>10}" for cell in cells)
    yield f"{'nobody dies':<{width}}" + "".join(
        f"{_cell([one for one in outcomes if one.row.stage == stage and one.row.point is None]):>10}"
        for stage in stages
    )


def _is_at(one: Outcome, name: str) -> bool:
    return any(str(point).partition(":")[0] == name for point in (one.row.point, one.row.second) if point)


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    wrong = sum(not one.is_right for one in outcomes)
    return f"{len(outcomes)} ok" if not wrong else f"{wrong}/{len(outcomes)} BAD"


def summary(outcomes: Sequence[Outcome], took_s: float) -> str:
    deaths = [one for one in outcomes if one.row.point is not None]
    pairs = [one for one in deaths if one.row.second is not None]
    runbooks = {one.row.stage.partition("/")[0] for one in outcomes}
    wrong = sum(not one.is_right for one in outcomes)
    again = sum(one.result == NOT_AGAIN for one in outcomes)
    ok = sum(one.result == OK for one in outcomes)
    resumed = sorted(one.resumed_s for one in deaths if one.resumed_s is not None)
    middle = f"; from restart to the known end: median {resumed[len(resumed) // 2]:.1f} s" if resumed else ""
    return (
        f"runbook crash matrix: {len(places())} places, {len(runbooks)} runbooks, {len(deaths) - len(pairs)} single "
        f"deaths, {len(pairs)} pairs: {ok} ok, {again} ok but the second place not passed again, {wrong} wrong"
        f"{middle}; {took_s:.0f} s"
    )
