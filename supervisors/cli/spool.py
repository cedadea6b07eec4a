"""Recorded alerts in a file of our own, so that whoever reads them finds the same, however often and whenever."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from runbooks.replay import Recorded
from supervisors.cli.exits import FAILED, WRONG_USAGE, Quit
from supervisors.cli.recorded import ALL, Skipped, alerts_of_lines, is_journal, journal_rows, read_json

_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
"""In a text that is JSON these are between its parts only."""
_PIECE_BYTES: Final = 1024 * 1024


class Spool(NamedTuple):
    """Alerts, read once. ``name``: what they were read from, for messages."""

    path: Path
    name: str
    is_of_journal: bool
    skipped: Skipped

    def alerts(self, numbers: Container[int] = ALL) -> Iterator[Recorded]:
        """In their order.

        Args:
            numbers: only these, counted from 0.

        Raises:
            Quit: a line is no alert.
        """
        try:
            with self.path.open(encoding="utf-8") as file:
                if self.is_of_journal:
                    yield from (_of_line(line) for number, line in enumerate(file) if number in numbers)
                else:
                    yield from alerts_of_lines(file, self.name, numbers)
        except UnicodeDecodeError as error:
            raise Quit(WRONG_USAGE, f"{self.name}: {error}") from None


@contextmanager
def spooled(alerts: Path) -> Iterator[Spool]:
    """The alerts of a journal, or JSON lines from a file, a pipe, or standard input (``-``); gone at the end.

    Raises:
        Quit: they cannot be read.
    """
    with tempfile.TemporaryDirectory() as directory:
        path, skipped = Path(directory) / "alerts", Skipped()
        from_journal = is_journal(alerts)
        try:
            with path.open("wb") as file:
                if from_journal:
                    _write_rows(alerts, file, skipped)
                else:
                    _copy(alerts, file)
        except OSError as error:
            raise Quit(FAILED, f"{alerts}: cannot be copied into {directory}: {error.strerror}") from None
        if is_journal(path):
            raise Quit(WRONG_USAGE, f"{alerts}: a journal is read from its own file, not through a pipe")
        yield Spool(path, str(alerts), from_journal, skipped)


def _write_rows(journal: Path, file: IO[bytes], skipped: Skipped) -> None:
    """A line each: the time, the runbook it is for as JSON, the facts as they stand."""
    for alert, body in journal_rows(journal, skipped):
        file.write(b"%r\t%s\t%s\n" % (alert.at, json.dumps(alert.wanted).encode(), body.translate(_LINE_BREAKS)))


def _of_line(line: str) -> Recorded:
    at, wanted, body = line.split("\t", 2)
    return Recorded(float(at), read_json(body), None if wanted == "null" else json.loads(wanted))


def _copy(alerts: Path, file: IO[bytes]) -> None:
    if str(alerts) == "-":
        shutil.copyfileobj(sys.stdin.buffer, file, _PIECE_BYTES)
        return
    try:
        source = alerts.open("rb")
    except OSError as error:
        raise Quit(WRONG_USAGE, f"{alerts}: {error.strerror}") from None
    with source:
        shutil.copyfileobj(source, file, _PIECE_BYTES)
