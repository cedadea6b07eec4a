"""``python -m tests.crash_runbooks``: kill the daemon at every place of every runbook and print what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

from tests.crash_runbooks.matrix import (
    JOBS,
    BadChoice,
    Stages,
    missing_rows,
    pair_rows,
    plain_rows,
    quick_rows,
    run_all,
    sample,
    single_rows,
    stages_of,
    summary,
    table,
    unreached,
    untrue,
)
from tests.crash_runbooks.rows import Outcome
from tests.crash_runbooks.stages import all_stages


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_runbooks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each way of each runbook, and every place, once")
    parser.add_argument("--pairs", default="0", metavar="all|N", help="second deaths: all, or a sample (default: 0)")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin nothing further after so long")
    parser.add_argument("--runbook", metavar="ID", help="only this one")
    parser.add_argument("--seed", type=int, default=1, help="of the samples")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"rows side by side (default: {JOBS})")
    parser.add_argument("--verbose", action="store_true", help="print each row as it ends")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """0: all was right. 1: not. 2: wrong usage."""
    chosen = _arguments(words)
    began = time.monotonic()
    for name, stage in all_stages().items():
        if (trouble := stage.trouble()) is not None:
            print(f"{name} is left out: {trouble}", file=sys.stderr)
            if os.environ.get("SELFHEAL_REQUIRE_ALL") == "1":
                return 1
    try:
        stages = stages_of(chosen.runbook)
        count = None if chosen.pairs == "all" else int(chosen.pairs)
    except (BadChoice, ValueError) as error:
        print(f"tests.crash_runbooks: {error}", file=sys.stderr)
        return 2
    if chosen.quick:
        outcomes, wrong = _quick(stages, chosen)
    else:
        outcomes, wrong = _whole(stages, chosen, count, began)
    print("\n".join(table(outcomes)))
    print(summary(outcomes, time.monotonic() - began))
    left = unreached(outcomes) if chosen.runbook is None else []
    if left:
        wrong.append(f"nobody died at {', '.join(left)}")
    print("".join(f"{one}\n" for one in wrong), end="")
    return int(bool(wrong) or not all(one.is_right for one in outcomes))


def _quick(stages: Stages, chosen: argparse.Namespace) -> tuple[list[Outcome], list[str]]:
    return run_all(quick_rows(stages, chosen.seed), chosen.jobs, _teller(chosen)), []


def _whole(
    stages: Stages, chosen: argparse.Namespace, count: int | None, began: float
) -> tuple[list[Outcome], list[str]]:
    tell = _teller(chosen)
    until_s = None if chosen.minutes is None else began + chosen.minutes * 60
    plain = run_all(plain_rows(stages), chosen.jobs, tell)
    first = single_rows(plain)
    singles = run_all(sample(first, len(first), chosen.seed), chosen.jobs, tell, until_s)
    second = pair_rows(singles)
    wanted = missing_rows(singles, second)
    wanted += [row for row in sample(second, len(second) if count is None else count, chosen.seed) if row not in wanted]
    pairs = run_all(wanted, chosen.jobs, tell, until_s)
    print(f"{len(singles)} of {len(first)} single deaths and {len(pairs)} of {len(second)} pairs were tried")
    return [*plain, *singles, *pairs], list(untrue(plain, stages))


def _teller(chosen: argparse.Namespace) -> Callable[[Outcome], None]:
    def tell(outcome: Outcome) -> None:
        if chosen.verbose or not outcome.is_right:
            print(f"{outcome.took_s:5.1f} s  {outcome.row}: {outcome.result}", flush=True)
        if not outcome.is_right:
            print(outcome.detail, flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
