"""``python -m tests.crash``: kill the daemon and its keeper at every fail point and print what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.crash.matrix import JOBS, BadChoice, pair_rows, run_all, sample, single_rows, summary, table
from tests.crash.rows import Outcome
from tests.support.docker_engine import trouble


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--points", default="all", metavar="all|GLOB", help="which places (default: all)")
    parser.add_argument(
        "--pairs", default="0", metavar="all|N", help="second deaths: all, or a sample of N (default: 0)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="each place once, in its quickest scenario; who dies is dealt"
    )
    parser.add_argument("--cold", action="store_true", help="a new interpreter for every daemon (1.5 s of CPU each)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"rows side by side (default: {JOBS})")
    parser.add_argument("--limit-min", type=float, metavar="MINUTES", help="begin no further second death after these")
    parser.add_argument("--verbose", action="store_true", help="print each row as it ends")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """0: all was right. 1: not. 2: wrong usage."""
    chosen = _arguments(words)
    began = time.monotonic()

    def tell(outcome: Outcome) -> None:
        if chosen.verbose or not outcome.is_right:
            print(f"{outcome.took_s:5.1f} s  {outcome.row}: {outcome.result}", flush=True)
        if not outcome.is_right:
            print(outcome.detail, flush=True)

    without_docker = trouble()
    if without_docker is not None:
        print(f"container rows are left out: {without_docker}", file=sys.stderr)
        if os.environ.get("SELFHEAL_REQUIRE_DOCKER") == "1":
            return 1
    try:
        rows = single_rows(
            "*" if chosen.points == "all" else chosen.points,
            is_quick=chosen.quick,
            has_docker=without_docker is None,
            seed=chosen.seed,
        )
        count = None if chosen.pairs == "all" else int(chosen.pairs)
    except (BadChoice, ValueError) as error:
        print(f"tests.crash: {error}", file=sys.stderr)
        return 2
    if chosen.cold:
        rows = [row.as_cold() for row in rows]
    singles = run_all(rows, chosen.jobs, tell)
    second = pair_rows(singles)
    chosen_pairs = sample(second, len(second) if count is None else count, chosen.seed)
    pairs = run_all(chosen_pairs, chosen.jobs, tell, chosen.limit_min and 60 * chosen.limit_min)
    print("\n".join(table(singles, pairs)))
    print(summary(singles, pairs, time.monotonic() - began, len(chosen_pairs) - len(pairs)))
    return int(not all(one.is_right for one in (*singles, *pairs)))


if __name__ == "__main__":
    sys.exit(main())
