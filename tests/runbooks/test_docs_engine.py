"""docs/runbook-engine.md says what is so: every record and every end stands there, and what latches."""

from __future__ import annotations

import re
from pathlib import Path

from actors import runbook, runbook_hands
from actors.journal.runs import LATCHING
from runbooks import engine_asks
from runbooks.engine_words import Kind
from runbooks.model import Status

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "runbook-engine.md").read_text(encoding="utf-8")


def rows(title: str) -> dict[str, str]:
    """The last cell of each row, by the names in the first."""
    section = re.split(r"\n##+ ", TEXT.split(f"# {title}\n", 1)[1])[0]
    found = re.findall(r"^\| (.+?) \|.*?([^|]+) \|$", section, re.MULTILINE)
    return {name: last.strip() for first, last in found for name in re.findall(r"`([^`]+)`", first)}


def test_every_record_stands_there() -> None:
    kinds = {kind.value for kind in Kind}
    assert rows("What is written").keys() == kinds
    assert rows("After a death").keys() == kinds


def test_every_end_stands_there_and_what_latches() -> None:
    ends = rows("How a run ends")
    assert ends.keys() == {one.value for one in Status if one.is_terminal}
    assert {name for name, target in ends.items() if target == "**latched**"} == {one.value for one in LATCHING}
    for one in Status:
        assert f"`{one.value}`" in TEXT, one


def test_the_numbers_are_the_codes() -> None:
    numbers = {10: "ten", 3: "three", 5: "five"}
    assert f"{numbers[runbook.MOST_STALLS]}\nactors in a row" in TEXT
    assert f"or {numbers[runbook.MOST_CRASHES]} crashed" in TEXT
    assert f"{numbers[int(runbook_hands.GRACE_S)]} seconds beyond" in TEXT
    assert f"at least {engine_asks.PROBE_PATIENCE_S:g} s" in TEXT
