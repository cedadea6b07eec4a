"""Recorded alerts for the command line: a journal's, or one JSON object a line."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from guardian_link.messages import BadAlert, facts_of
from runbooks.replay import Recorded
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.terminal import complain

ALL: Final = range(sys.maxsize)
_SQLITE: Final = b"SQLite format 3\0"
_NO_TIME_S: Final = 253_402_300_800.0
"""The year 10000: no RFC 3339 text says so much, and milliseconds taken for seconds do."""


@dataclass
class Skipped:
    """How many rows of a journal are no alerts (any more)."""

    forgotten: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        """In words; nothing when there are none."""
        if not self.forgotten and not self.unreadable:
            return ""
        return f"{self.forgotten + self.unreadable} skipped ({self.forgotten} forgotten, {self.unreadable} unreadable)"


class Row(NamedTuple):
    """An alert of a journal. ``body``: its facts as they stand there, in UTF-8."""

    alert: Recorded
    body: bytes


def facts_of_file(path: Path) -> Iterator[dict[str, Any]]:
    """The alerts of a journal file or of JSON lines (``-``: standard input), in their order. Tells what is skipped.

    Raises:
        Quit: the file cannot be read, or a line is no alert.
    """
    if is_journal(path):
        skipped = Skipped()
        yield from (row.alert.facts for row in journal_rows(path, skipped))
        if str(skipped):
            complain(f"{path}: {skipped}")
        return
    try:
        with sys.stdin if str(path) == "-" else path.open(encoding="utf-8") as file:
            yield from (one.facts for one in alerts_of_lines(file, str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise Quit(WRONG_USAGE, f"{path}: {getattr(error, 'strerror', None) or error}") from None


def is_journal(path: Path) -> bool:
    """Whether it is a file of SQLite's. Of a pipe nothing is read: what was would be gone. Raises Quit."""
    if str(path) == "-":
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise Quit(WRONG_USAGE, f"{path}: {error.strerror}") from None


def journal_rows(path: Path, skipped: Skipped) -> Iterator[Row]:
    """The alerts of a journal as it is now, whoever writes to it meanwhile; those that are none are counted.

    Raises:
        Quit: it cannot be read.
    """
    from actors.deciding.words import runbook_wanted  # noqa: PLC0415  slow to import
    from actors.journal.schema import JournalTrouble, open_reader  # noqa: PLC0415  slow to import

    try:
        reader = open_reader(path)
        try:
            rows = reader.execute(
                "SELECT received_at, CAST(client AS BLOB), CAST(body AS BLOB) FROM alerts ORDER BY received_at, seq"
            )
            for at, client, body in rows:
                facts = _facts_of_row(at, body, skipped)
                if facts is not None:
                    yield Row(Recorded(at, facts, runbook_wanted(client.decode("utf-8", "replace"), facts)), body)
        finally:
            reader.close()
    except (JournalTrouble, sqlite3.Error) as error:
        raise Quit(WRONG_USAGE, f"{path}: is no journal that can be read: {error}") from None


def _facts_of_row(at: float, body: bytes, skipped: Skipped) -> dict[str, Any] | None:
    if not body:
        skipped.forgotten += 1
        return None
    try:
        facts = read_json(body.decode())
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not _is_time(at):
        skipped.unreadable += 1
        return None
    return facts


def alerts_of_lines(lines: Iterable[str], name: str, numbers: Container[int] = ALL) -> Iterator[Recorded]:
    """One alert a line, in any of the shapes the daemon takes; blank lines are none.

    Args:
        name: what the lines are of, for messages.
        numbers: only these alerts, counted from 0.

    Raises:
        Quit: a line is no alert.
    """
    count = 0
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        if count in numbers:
            yield of_line(line, name, number)
        count += 1


def read_json(text: str) -> Any:
    """``json.loads``, several times as quick. Raises ValueError, and RecursionError, as it does.

    The quick parser refuses some of what the strict one reads (half a surrogate pair, NaN, a depth of 200) and says
    what is wrong in other words: whatever it refuses, the strict one is asked.
    """
    try:
        return from_json(text, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, TypeError):  # TypeError: half a surrogate pair in the text itself
        return json.loads(text)


def of_line(line: str, file: str, number: int = 0) -> Recorded:
    """An alert from its JSON, in any of the shapes the daemon takes; ``received_at`` is when it came.

    Args:
        number: of the line in the file; 0: it is all of it.

    Raises:
        Quit: it is none.
    """
    try:
        raw = read_json(line)
        if not isinstance(raw, dict):
            raise TypeError("an alert is a JSON object")
        at = _seconds(raw.pop("received_at", None))
        inner = raw.get("body")
        return Recorded(at, facts_of(inner if isinstance(inner, dict) else raw))
    except (ValueError, TypeError, RecursionError, BadAlert) as error:
        where = f"{file}:{number}" if number else file
        raise Quit(WRONG_USAGE, f"{where}: is no alert: {error}") from None


def _seconds(said: Any) -> float | None:
    """Unix seconds of a number or an RFC 3339 text; None: it says nothing of a time. Raises ValueError."""
    if isinstance(said, str):
        at = datetime.fromisoformat(said).timestamp()
    elif isinstance(said, (int, float)) and not isinstance(said, bool):
        at = said
    else:
        return None
    if not _is_time(at):
        raise ValueError(f"received_at is {said!r:.40}, which is no time in seconds since 1970")
    return float(at)


def _is_time(at: float) -> bool:
    return 0.0 <= at < _NO_TIME_S
