"""Recorded alerts for the command line: a journal's, or one JSON object a line."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Container, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from guardian_link.messages import BadAlert, facts_of
from supervisors.cli.exits import WRONG_USAGE, Quit

ALL: Final = range(sys.maxsize)
_SQLITE: Final = b"SQLite format 3\0"


class Recorded(NamedTuple):
    """One alert as it came: ``at`` in Unix seconds (None: the record does not say), ``facts`` as runbooks see it."""

    at: float | None
    facts: dict[str, Any]


def recorded(path: Path, numbers: Container[int] = ALL) -> Iterator[Recorded]:
    """The alerts of a journal file or of JSON lines (``-``: standard input), in their order.

    Args:
        numbers: only these, counted from 0.

    Raises:
        Quit: the file cannot be read, or a line is no alert.
    """
    if str(path) != "-" and _is_journal(path):
        yield from _of_journal(path, numbers)
    else:
        yield from _of_lines(path, numbers)


def facts_of_file(path: Path) -> Iterator[dict[str, Any]]:
    """Only the alerts. Raises Quit."""
    return (one.facts for one in recorded(path))


def _is_journal(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise Quit(WRONG_USAGE, f"{path}: {error.strerror}") from None


def _of_journal(path: Path, numbers: Container[int]) -> Iterator[Recorded]:
    from actors.journal.schema import JournalTrouble, open_reader  # noqa: PLC0415  slow to import

    try:
        reader = open_reader(path)
        try:
            rows = reader.execute("SELECT received_at, body FROM alerts WHERE body <> '' ORDER BY received_at, seq")
            for number, row in enumerate(rows):
                if number in numbers:
                    yield Recorded(row["received_at"], read_json(row["body"]))
        finally:
            reader.close()
    except (JournalTrouble, sqlite3.Error) as error:
        raise Quit(WRONG_USAGE, f"{path}: is no journal that can be read: {error}") from None


def _of_lines(path: Path, numbers: Container[int]) -> Iterator[Recorded]:
    try:
        file = sys.stdin if str(path) == "-" else path.open(encoding="utf-8")
        with file:
            count = 0
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                if count in numbers:
                    yield _of_line(line, path, number)
                count += 1
    except (OSError, UnicodeDecodeError) as error:
        raise Quit(WRONG_USAGE, f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read_json(text: str) -> Any:
    """``json.loads``, several times as quick. Raises ValueError, and RecursionError, as it does.

    The quick parser refuses some of what the strict one reads (half a surrogate pair, NaN, a depth of 200) and says
    what is wrong in other words: whatever it refuses, the strict one is asked.
    """
    try:
        return from_json(text, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, TypeError):  # TypeError: half a surrogate pair in the text itself
        return json.loads(text)


def of_line(line: str, where: str) -> Recorded:
    """An alert from its JSON, in any of the shapes the daemon takes; ``received_at`` is when it came.

    Raises:
        Quit: it is none.
    """
    return _of_line(line, where, 0)


def _of_line(line: str, file: object, number: int) -> Recorded:
    try:
        raw = read_json(line)
        if not isinstance(raw, dict):
            raise TypeError("an alert is a JSON object")
        at = _seconds(raw.pop("received_at", None))
        inner = raw.get("body")
        return Recorded(at, facts_of(inner if isinstance(inner, dict) else raw))
    except (ValueError, TypeError, BadAlert) as error:
        where = f"{file}:{number}" if number else str(file)
        raise Quit(WRONG_USAGE, f"{where}: is no alert: {error}") from None


def _seconds(at: Any) -> float | None:
    """Unix seconds of a number or an RFC 3339 text. Raises ValueError."""
    if isinstance(at, str):
        return datetime.fromisoformat(at).timestamp()
    return float(at) if isinstance(at, (int, float)) and not isinstance(at, bool) else None
