"""What ``selfheal runbook replay`` does: recorded alerts decided by two libraries, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from runbooks.parse import SHIPPED, Library, load_library
from runbooks.replay import RUN_S, Answer, replayed
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.libraries import directories_of
from supervisors.cli.outside import Outside
from supervisors.cli.spool import Spool, spooled
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA

MOST_LINES: Final = 20
"""Alerts shown for each kind of difference, unless all are asked for."""


class Side(NamedTuple):
    """What one library answers: ``codes`` are numbers of ``answers``, by alert."""

    answers: list[Answer]
    codes: array[int]
    problems: tuple[str, ...]

    def of(self, number: int) -> Answer:
        return self.answers[self.codes[number]]


class Difference(NamedTuple):
    number: int
    before: Answer
    after: Answer


def replay_files(
    outside: Outside, alerts: Path, new: Path, config: str | None, *, run_s: float = RUN_S, everything: bool = False
) -> None:
    """Tell where the library of ``new`` (with the shipped runbooks) decides otherwise than the present one.

    Raises:
        Quit: a file cannot be read.
    """
    if not new.is_dir():
        raise Quit(WRONG_USAGE, f"--runbooks {new}: is no directory")
    present = directories_of(config)
    with spooled(alerts) as spool:
        sides = both_sides(spool, (SHIPPED, *present), (SHIPPED, new), run_s)
        differences = list(_differences(*sides))
        for text in dict.fromkeys((*sides[0].problems, *sides[1].problems)):
            complain(text)
        shown = _shown(differences, everything=everything)
        named = _named(spool, {one.number for one in shown})
    counts = Counter((_said(one.before), _said(one.after)) for one in differences)
    if outside.as_json:
        told = [_as_json(one, named[one.number]) for one in shown]
        totals = [{"before": old, "after": new_, "alerts": count} for (old, new_), count in sorted(counts.items())]
        skipped = {"forgotten": spool.skipped.forgotten, "unreadable": spool.skipped.unreadable}
        count = len(sides[0].codes)
        print_json({"schema": SCHEMA, "alerts": count, "skipped": skipped, "changes": totals, "changed": told})
        return
    for (old, new_), count in sorted(counts.items()):
        say(f"{count} alerts: {old} -> {new_}")
        of_these = [one for one in shown if (_said(one.before), _said(one.after)) == (old, new_)]
        say(*(f"  {one.number + 1}  {named[one.number]}" for one in of_these))
    skipped_too = f"; {spool.skipped}" if str(spool.skipped) else ""
    say(f"{len(sides[0].codes)} alerts, {len(differences)} decided otherwise{skipped_too}")


def both_sides(
    alerts: Spool, present: tuple[Path, ...], new: tuple[Path, ...], run_s: float = RUN_S
) -> tuple[Side, Side]:
    """Both libraries' answers. Raises Quit when a line is no alert."""
    method = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=method) as pool:
        old, other = (pool.submit(one_side, alerts, directories, run_s) for directories in (present, new))
        return old.result(), other.result()


def one_side(alerts: Spool, directories: tuple[Path, ...], run_s: float = RUN_S) -> Side:
    """One library's answers. Raises Quit when a line is no alert."""
    library: Library = load_library(directories)
    given = replayed(alerts.alerts(), library, run_s)
    numbers = {answer: number for number, answer in enumerate(dict.fromkeys(given))}
    return Side(list(numbers), array("H", (numbers[one] for one in given)), tuple(map(str, library.problems)))


def _differences(old: Side, new: Side) -> Iterator[Difference]:
    """By what is done, and by whom; of alerts that nothing is done about, why."""
    alike = {
        (one, other)
        for one, before in enumerate(old.answers)
        for other, after in enumerate(new.answers)
        if before == after
    }
    for number, codes in enumerate(zip(old.codes, new.codes, strict=True)):
        if codes not in alike:
            yield Difference(number, old.of(number), new.of(number))


def _shown(differences: list[Difference], *, everything: bool) -> list[Difference]:
    if everything:
        return differences
    seen: Counter[tuple[Answer, Answer]] = Counter()
    shown = []
    for one in differences:
        seen[one.before, one.after] += 1
        if seen[one.before, one.after] <= MOST_LINES:
            shown.append(one)
    return shown


def _named(alerts: Spool, numbers: set[int]) -> dict[int, str]:
    """The alerts of these numbers in a few words."""
    if not numbers:
        return {}
    named = {}
    for number, one in zip(sorted(numbers), alerts.alerts(numbers), strict=True):
        facts = one.facts
        said = [str(facts.get(key)) for key in ("type", "service", "severity") if facts.get(key) is not None]
        named[number] = " ".join([*said, repr(facts["message"])[:80]] if facts.get("message") else said)
    return named


def _said(answer: Answer) -> str:
    who = f" {answer.runbook}" if answer.runbook is not None else ""
    return f"{answer.kind} ({answer.outcome}{who})"


def _as_json(one: Difference, named: str) -> dict[str, Any]:
    return {
        "number": one.number + 1,
        "alert": named,
        "before": {"decision": one.before.kind, "outcome": one.before.outcome, "runbook": one.before.runbook},
        "after": {"decision": one.after.kind, "outcome": one.after.outcome, "runbook": one.after.runbook},
    }
