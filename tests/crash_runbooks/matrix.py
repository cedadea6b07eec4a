"""All rows of the matrix, side by side in processes of their own, and the table of their outcomes."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

import supervisors.run  # noqa: F401  with it every place is registered
from actors.failpoints import FAIL_POINTS
from tests.crash_runbooks.rows import NOT_AGAIN, OK, Outcome, Row, run_row
from tests.crash_runbooks.stages import Stage, all_stages

JOBS: Final = 2 * (os.cpu_count() or 1)
"""Most of a row's time is waiting."""
LOOKS: Final = "runbook.looked."
"""Taken again and again while something is waited for: only the first is a place of its own."""
CALLED: Final = "runbook.called"
UNDONE: Final = "runbook.undone"
"""The effect is made and nobody knows: the places where one may come to be made twice."""
RECOVERING: Final = {"runbook.looked.resume_probe": CALLED, "runbook.looked.undo_probe": UNDONE}
"""Places that only a daemon passes that recovers from a death at another."""
Stages = Mapping[str, type[Stage]]


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


def quick_rows(stages: Stages, seed: int) -> list[Row]:
    """Every place once: they are dealt to the stages in turn, in an order of ``seed``, those first that few lead
    through. Then in every stage that has none yet the death after its effect, or after its undoing.
    """
    turn = random.Random(seed).sample([*stages], len(stages))
    able = {place: [name for name in turn if _leads_to(place, stages[name])] for place in places()}
    dealt: Counter[str] = Counter()
    rows = []
    for place in sorted((one for one in places() if able[one]), key=lambda one: len(able[one])):
        stage = min(able[place], key=lambda name: dealt[name])
        dealt[stage] += 1
        first = RECOVERING.get(place)
        rows.append(Row(stage, place) if first is None else Row(stage, first, place))
    return rows + [
        Row(name, UNDONE if UNDONE in one.passes else CALLED) for name, one in stages.items() if not dealt[name]
    ]


def _leads_to(place: str, stage: type[Stage]) -> bool:
    if place not in RECOVERING:
        return place in stage.passes
    return RECOVERING[place] in stage.passes and stage.has_probe


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
    seen = {_place(one.row.second or one.row.point) for one in done}
    chosen: dict[str, Row] = {}
    for pair in pairs:
        if pair.second is not None and pair.second not in seen:
            chosen.setdefault(pair.second, pair)
    return list(chosen.values())


def unreached(outcomes: Iterable[Outcome]) -> list[str]:
    """Places at which nobody died."""
    died = {_place(one.row.point) for one in outcomes}
    died |= {_place(one.row.second) for one in outcomes if one.result != NOT_AGAIN}
    return [name for name in places() if name not in died]


def untrue(plain: Iterable[Outcome], stages: Stages) -> Iterator[str]:
    """What stages say of the places they lead through, and is not so."""
    for one in plain:
        said, passed = set(stages[one.row.stage].passes), set(one.passed)
        if one.is_right and said != passed:
            wrong = [*(f"not {name}" for name in sorted(said - passed)), *sorted(passed - said)]
            yield f"{one.row.stage} leads through: {', '.join(wrong)}"


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    return random.Random(seed).sample(rows, min(count, len(rows)))


def run_all(
    rows: Sequence[Row], jobs: int, tell: Callable[[Outcome], None], until_s: float | None = None
) -> list[Outcome]:
    """In the order of ``rows``; ``tell`` hears of each as it ends. Workers fork daemons, so they have no threads.
    ``until_s`` (monotonic): after it no further one is begun.
    """
    outcomes: dict[Row, Outcome] = {}
    if not rows:
        return []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_run_in_time, row, until_s) for row in rows]):
            outcome = future.result()
            if outcome is not None:
                outcomes[outcome.row] = outcome
                tell(outcome)
    return [outcomes[row] for row in rows if row in outcomes]


def _run_in_time(row: Row, until_s: float | None) -> Outcome | None:
    return run_row(row) if until_s is None or time.monotonic() < until_s else None


def _points(passed: Sequence[str]) -> Iterator[str]:
    for name, times in Counter(passed).items():
        yield name
        if not name.startswith(LOOKS):
            yield from (f"{name}:{nth}" for nth in range(2, times + 1))


def _place(point: str | None) -> str:
    return (point or "").partition(":")[0]


# -- the table --------------------------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Places by runbooks: how often a daemon died there (as the first or the second), and what was wrong. Then how each
    way of each runbook ended.
    """
    runbooks = list(dict.fromkeys(_runbook(one) for one in outcomes))
    width = max(len(name) for name in places()) + 1
    yield "deaths at each place, by runbook (n/m!: n of m ended wrong)"
    yield from (f"  {number:>2} {name}" for number, name in enumerate(runbooks, 1))
    yield f"{'place':<{width}}" + "".join(f"{number:>6}" for number in range(1, len(runbooks) + 1))
    for name in places():
        at = [one for one in outcomes if name in (_place(one.row.point), _place(one.row.second))]
        cells = (_cell([one for one in at if _runbook(one) == runbook]) for runbook in runbooks)
        yield f"{name:<{width}}" + "".join(f"{cell:>6}" for cell in cells)
    yield ""
    yield f"{'runbook/way':<42}{'singles':>9}{'pairs':>7}{'ok':>7}{'not again':>11}{'wrong':>7}"
    for stage in dict.fromkeys(one.row.stage for one in outcomes):
        mine = [one for one in outcomes if one.row.stage == stage]
        deaths = [one for one in mine if one.row.point is not None]
        pairs = sum(one.row.second is not None for one in deaths)
        ends = Counter(one.result if one.is_right else "wrong" for one in mine)
        figures = f"{len(deaths) - pairs:>9}{pairs:>7}{ends[OK]:>7}{ends[NOT_AGAIN]:>11}{ends['wrong']:>7}"
        yield f"{stage:<42}{figures}"


def _runbook(one: Outcome) -> str:
    return one.row.stage.partition("/")[0]


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    wrong = sum(not one.is_right for one in outcomes)
    return f"{len(outcomes)}" if not wrong else f"{wrong}/{len(outcomes)}!"


def summary(outcomes: Sequence[Outcome], took_s: float) -> str:
    deaths = [one for one in outcomes if one.row.point is not None]
    pairs = [one for one in deaths if one.row.second is not None]
    runbooks = {_runbook(one) for one in outcomes}
    stages = {one.row.stage for one in outcomes}
    wrong = sum(not one.is_right for one in outcomes)
    again = sum(one.result == NOT_AGAIN for one in outcomes)
    ok = sum(one.result == OK for one in outcomes)
    resumed = sorted(one.resumed_s for one in deaths if one.resumed_s is not None)
    middle = f"; from restart to the known end: median {resumed[len(resumed) // 2]:.1f} s" if resumed else ""
    return (
        f"runbook crash matrix: {len(places())} places, {len(runbooks)} runbooks, {len(stages)} ways, "
        f"{len(deaths) - len(pairs)} single deaths, {len(pairs)} pairs: {ok} ok, {again} ok but the second place not "
        f"passed again, {wrong} wrong{middle}; {took_s:.0f} s"
    )
