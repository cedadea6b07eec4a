"""All rows, side by side in processes of their own, and the table of their outcomes."""

from __future__ import annotations

import fnmatch
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

import actors.keeper.server
import actors.runtimes.docker  # noqa: F401  with these every place is registered
import supervisors.run  # noqa: F401
from actors.failpoints import FAIL_POINTS
from tests.crash.rows import NOT_AGAIN, OK, Outcome, Row, Who, run_row
from tests.crash.scenarios import ROUTES, SCENARIOS

JOBS = 2 * (os.cpu_count() or 1)
"""Most of a row's time is waiting."""


class BadChoice(Exception):
    """No such place, or one that no scenario leads through."""


def _places() -> set[str]:
    """Those of daemon and keeper; the runbooks' are ``tests.crash_runbooks``'."""
    return {name for name in FAIL_POINTS if not name.startswith("runbook.")}


def check_routes() -> None:
    """Raises BadChoice when a registered place is on no route, or a route leads nowhere."""
    ours = _places()
    on_routes = {point.partition(":")[0] for point in ROUTES}
    if missing := sorted(ours - on_routes):
        raise BadChoice(f"no scenario leads through {', '.join(missing)}: add it to ROUTES")
    if unknown := sorted(on_routes - ours):
        raise BadChoice(f"ROUTES names places that are not registered: {', '.join(unknown)}")
    if nowhere := {name for names in ROUTES.values() for name in names} - SCENARIOS.keys():
        raise BadChoice(f"ROUTES names scenarios that do not exist: {', '.join(sorted(nowhere))}")


def single_rows(chosen: str, *, is_quick: bool, has_docker: bool, seed: int = 1) -> list[Row]:
    """Each place, alone and both at once. ``is_quick``: each place once, in its first scenario; who dies is dealt."""
    check_routes()
    points = [point for point in ROUTES if fnmatch.fnmatch(point, chosen)]
    if not points:
        raise BadChoice(f"no fail point is called {chosen}")
    rows = []
    for point in points:
        scenarios = [name for name in ROUTES[point] if has_docker or not name.startswith("box")]
        rows += [Row(point, name, who) for name in (scenarios[:1] if is_quick else scenarios) for who in Who]
    rows = [row for row in rows if not _is_same_alone(row)]
    return _dealt(rows, seed) if is_quick else rows


def _dealt(rows: Iterable[Row], seed: int) -> list[Row]:
    """One row a place; each kind of death about equally often."""
    by_place: dict[str, list[Row]] = {}
    for row in rows:
        by_place.setdefault(row.point, []).append(row)
    deaths: Counter[Who] = Counter()
    dealt = []
    for place in random.Random(seed).sample([*by_place], len(by_place)):
        row = min(by_place[place], key=lambda one: deaths[one.who])
        deaths[row.who] += 1
        dealt.append(row)
    return dealt


def _is_same_alone(row: Row) -> bool:
    """No daemon lives when the keeper dies there: both at once is the same."""
    return row.is_keepers and row.scenario == "missed" and row.who is Who.BOTH and not row.point.endswith((":2", ":3"))


def pair_rows(singles: Iterable[Outcome]) -> list[Row]:
    """Each first death with every second one its recovery can have, as it went through these places just now."""
    return [
        Row(one.row.point, one.row.scenario, one.row.who, second, is_warm=one.row.is_warm)
        for one in singles
        for second in one.passed
    ]


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    return random.Random(seed).sample(rows, min(count, len(rows)))


def run_all(
    rows: Sequence[Row], jobs: int, tell: Callable[[Outcome], None], limit_s: float | None = None
) -> list[Outcome]:
    """In the order of ``rows``; ``tell`` hears of each as it ends. Workers fork daemons, so they have no threads.

    Args:
        limit_s: after so many seconds no further row is begun; those are left out.
    """
    outcomes: dict[Row, Outcome] = {}

    def take(future: Future[Outcome]) -> None:
        outcome = future.result()
        outcomes[outcome.row] = outcome
        tell(outcome)

    if not rows:
        return []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_row, row) for row in rows]
        try:
            for future in as_completed(futures, timeout=limit_s):
                take(future)
        except TimeoutError:
            begun = [future for future in futures if not future.cancel()]
            for future in begun:
                if future.result().row not in outcomes:
                    take(future)
    return [outcomes[row] for row in rows if row in outcomes]


# -- the table --------------------------------------------------------------------------------------------------------


def table(singles: Sequence[Outcome], pairs: Sequence[Outcome]) -> Iterator[str]:
    """One line for each place and scenario: it alone, both, and all second deaths after it."""
    by_row = {(one.row.point, one.row.scenario, one.row.who): one for one in singles}
    places = list(dict.fromkeys((one.row.point, one.row.scenario) for one in singles))
    yield f"{'place':<34} {'scenario':<11} {'alone':<14} {'both':<14} then a second death"
    for point, scenario in places:
        cells = []
        for who in Who:
            one = by_row.get((point, scenario, who))
            cells.append("-" if one is None else one.result)
        second = [one for one in pairs if (one.row.point, one.row.scenario) == (point, scenario)]
        yield f"{point:<34} {scenario:<11} {cells[0]:<14} {cells[1]:<14} {counted(second)}"


def counted(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    kinds = Counter(one.result for one in outcomes)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def summary(singles: Sequence[Outcome], pairs: Sequence[Outcome], took_s: float, not_begun: int = 0) -> str:
    both = [*singles, *pairs]
    wrong = sum(not one.is_right for one in both)
    again = sum(one.result == NOT_AGAIN for one in pairs)
    ok = sum(one.result == OK for one in both)
    points = len({one.row.point.partition(":")[0] for one in singles})
    left_out = f", {not_begun} not begun in time" if not_begun else ""
    return (
        f"crash matrix: {points} of {len(_places())} places, {len(singles)} single deaths, {len(pairs)} pairs: "
        f"{ok} ok, {again} ok but the second place not passed again, {wrong} wrong{left_out}; {took_s:.0f} s"
    )
