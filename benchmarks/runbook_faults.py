"""Every shipped runbook against its real faults, again and again: how each run ended, and how long recovery took.

    python benchmarks/runbook_faults.py [--runs 20] [--toothless 20] [--only WORD]

In each round all cases are played at once in a new daemon, on the busy box that this makes. Times are from the fault to
the end of the run: the alert, the decision, the cure, and the time for which it must hold. ``--toothless``: rounds in
which all acting calls do nothing and say they did; a cure that is told as a success there shows nothing. Needs root, a
Docker engine, PostgreSQL, Redis and iptables, or skips the cases that do, and says so. Exits with 1 when a run did not
end as it must.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.registry import Case, Kind, all_cases, play_all
from tests.faults.ward import Outcome


@dataclass
class Row:
    """What became of one case's runs. ``wrong``: what was not as it must be, in words."""

    case: Case
    runs: int = 0
    took_s: list[float] = field(default_factory=list)
    toothless: int = 0
    believed: int = 0
    wrong: list[str] = field(default_factory=list)

    def went_wrong(self, text: str) -> None:
        self.wrong.append(text)
        print(f"WRONG {self.case.id}: {text[:1000]}", file=sys.stderr, flush=True)

    def acted(self, outcome: Outcome) -> None:
        self.runs += 1
        end = outcome.ended
        if end is None or end.status not in self.case.wanted:
            self.went_wrong(repr(outcome.error) if end is None else f"{end.status}: {end.detail}")
        elif end.took_s is not None:
            self.took_s.append(end.took_s)

    def pretended(self, outcome: Outcome) -> None:
        self.toothless += 1
        if outcome.ended is None:
            self.went_wrong(f"toothless: {outcome.error!r}")
        elif outcome.ended.status == "succeeded":
            self.believed += 1
            self.went_wrong("toothless: told as a success")

    def words(self) -> str:
        times = (
            f"{statistics.median(self.took_s):7.1f} {max(self.took_s):7.1f}" if self.took_s else f"{'-':>7} {'-':>7}"
        )
        right = self.runs - sum(not one.startswith("toothless") for one in self.wrong)
        told = f"{self.believed}/{self.toothless}" if self.case.kind is Kind.SUCCESS else "-"
        return f"{self.case.id:<52} {self.case.kind.value:<9} {self.runs:>4} {right:>5} {times} {told:>9}"


HEAD = f"{'case':<52} {'kind':<9} {'runs':>4} {'right':>5} {'p50 s':>7} {'max s':>7} {'believed':>9}"


def play_round(cases: Sequence[Case], *, acts: bool) -> dict[str, Outcome]:
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        try:
            return play_all(cases, Path(folder), acts=acts)
        except Exception as error:  # the daemon of all of them
            return {case.id: Outcome(error=error) for case in cases}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--toothless", type=int)
    parser.add_argument("--only", default="", help="cases with this in their name")
    chosen = parser.parse_args()
    began = time.monotonic()
    cases = [case for case in all_cases() if chosen.only in case.id]
    for case in cases:
        if (trouble := case.trouble()) is not None:
            print(f"{case.id} is left out: {trouble}", file=sys.stderr)
    rows = {case.id: Row(case) for case in cases if case.trouble() is None}
    mine = [row.case for row in rows.values()]
    cures = [case for case in mine if case.kind is Kind.SUCCESS]
    pretended = chosen.runs if chosen.toothless is None else chosen.toothless
    for number in range(chosen.runs):
        for name, outcome in play_round(mine, acts=True).items():
            rows[name].acted(outcome)
        _tell("round", number + 1, chosen.runs, began, rows.values())
    for number in range(pretended):
        for name, outcome in play_round(cures, acts=False).items():
            rows[name].pretended(outcome)
        _tell("toothless round", number + 1, pretended, began, rows.values())
    print(HEAD)
    print("\n".join(row.words() for row in rows.values()))
    for row in rows.values():
        for wrong in row.wrong:
            print(f"WRONG {row.case.id}: {wrong[:1000]}")
    runs = sum(row.runs for row in rows.values())
    wrong = sum(bool(row.wrong) for row in rows.values())
    believed = sum(row.believed for row in rows.values())
    print(
        f"runbook faults: {len(rows)} cases, {runs} runs, {sum(len(row.wrong) for row in rows.values())} ends wrong in"
        f" {wrong} cases, {believed} of {sum(row.toothless for row in rows.values())} toothless runs believed;"
        f" {time.monotonic() - began:.0f} s"
    )
    return int(bool(wrong) or not runs)


def _tell(what: str, number: int, most: int, began: float, rows: Iterable[Row]) -> None:
    found = sum(len(row.wrong) for row in rows)
    print(
        f"{what} {number}/{most}: {found} wrong so far, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
