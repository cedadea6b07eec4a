"""What ``selfheal runbook list`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runbooks.model import Mode
from supervisors.cli.exits import SOMETHING_DOWN, Quit
from supervisors.cli.libraries import library_of, used_otherwise
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain, print_json, say, table
from supervisors.manager import SCHEMA, DaemonUnreachable
from supervisors.runbook_files import shown_of

HEADS: Final = ("ID", "VERSION", "ENABLED", "MODE", "NAME")


def list_runbooks(outside: Outside, config: str | None) -> None:
    """Those of the daemon; those of the files where none answers, or where ``config`` names them.

    Raises:
        Quit: a file is refused, the configuration is bad.
    """
    found: Mapping[str, Any] | None = None
    if config is None:
        try:
            with outside.manager() as manager:
                found = manager.runbooks()
        except DaemonUnreachable as gone:
            complain(f"selfheal: {gone}: these are the files a daemon would use here")
    source, otherwise = "daemon", list[str]()
    if found is None:
        library = library_of(config)
        source, found, otherwise = "files", shown_of(library), used_otherwise(outside, library)
    runbooks, problems = list(map(_with_mode, found["runbooks"])), [str(one) for one in found["problems"]]
    if outside.as_json:
        told = {"from": source, "runbooks": runbooks, "problems": problems, "daemon": otherwise}
        print_json({"schema": SCHEMA, **told})
    else:
        _tell(runbooks, [*(f"refused: {one}" for one in problems), *otherwise])
    if problems:
        raise Quit(SOMETHING_DOWN)


def _with_mode(one: Mapping[str, Any]) -> dict[str, Any]:
    """What it really does: one that is disabled does nothing."""
    return {**one, "mode": one["mode"] if one["enabled"] else Mode.OFF.value}


def _tell(runbooks: Sequence[Mapping[str, Any]], remarks: Sequence[str]) -> None:
    rows = [
        (one["id"], str(one["version"]), "yes" if one["enabled"] else "no", one["mode"], one["name"])
        for one in runbooks
    ]
    say(table(HEADS, rows))
    for remark in remarks:
        complain(remark)
