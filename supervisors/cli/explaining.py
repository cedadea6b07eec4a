"""What ``selfheal runbook explain`` does."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any, Final

from runbooks.explaining import Explained, explained
from supervisors.cli.exits import FAILED, WRONG_USAGE, Quit
from supervisors.cli.libraries import library_of
from supervisors.cli.outside import Outside
from supervisors.cli.recorded import of_line
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA, UnknownNode

JOURNAL: Final = "journal.db"


def explain_alert(outside: Outside, alert: str, config: str | None) -> None:
    """An alert's id (looked up in the journal of the state directory), a JSON file, or ``-``.

    Raises:
        Quit: it is none.
    """
    facts, decided = _alert(outside, alert)
    library = library_of(config)
    for problem in library.problems:
        complain(problem)
    told = explained(facts, library)
    if outside.as_json:
        print_json({"schema": SCHEMA, "alert": facts, "decided": decided, "runbooks": list(map(_as_json, told))})
        return
    if decided is not None:
        say(f"decided: {decided['outcome']}" + (f" ({decided['reason']})" if decided.get("reason") else ""))
    for one in told:
        say(f"{one.runbook}: {'fits' if one.fits else 'does not fit'}{'' if one.in_use else ', not in use'}")
        for text in one.reasons:
            say(f"  {text}")


def _alert(outside: Outside, alert: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    path = Path(alert)
    if alert == "-" or path.is_file():
        try:
            text = sys.stdin.read() if alert == "-" else path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise Quit(WRONG_USAGE, f"{alert}: {getattr(error, 'strerror', None) or error}") from None
        return of_line(text, alert).facts, None
    return _recorded(outside.state_dir() / JOURNAL, alert)


def _recorded(journal: Path, alert_id: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from actors.journal import rows  # noqa: PLC0415  slow to import
    from actors.journal.schema import JournalTrouble, open_reader  # noqa: PLC0415  slow to import

    if not journal.is_file():
        raise Quit(WRONG_USAGE, f"{alert_id!r} is no file, and there is no journal {journal}")
    try:
        reader = open_reader(journal)
        try:
            found = rows.alert(reader, alert_id)
        finally:
            reader.close()
    except (JournalTrouble, sqlite3.Error) as error:
        raise Quit(FAILED, f"{journal}: {error}") from None
    if found is None:
        raise UnknownNode(alert_id, None, "alert")
    if not found["body"]:
        raise Quit(FAILED, f"alert {alert_id} is so old that only its decision is kept: {found['outcome']}")
    return found["body"], {key: found[key] for key in ("outcome", "reason", "runbook", "execution_id")}


def _as_json(one: Explained) -> dict[str, Any]:
    return {"runbook": one.runbook, "fits": one.fits, "in_use": one.in_use, "reasons": list(one.reasons)}
