"""``selfheal audit``: whether what recovery and people did is on record as it was written. Needs no daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supervisors.cli.exits import SOMETHING_DOWN, Quit
from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA


@command
def verify(
    outside: Outside,
    tip: Annotated[
        list[Path] | None,
        typer.Option("--tip", metavar="FILE", help="Another place the tip is kept in. May be repeated."),
    ] = None,
) -> None:
    """Check every row of the audit chain, its tip, and what it attests. Exit code 3 when something is not as it was
    written, or cannot be checked.
    """
    from actors.chain.checking import check  # noqa: PLC0415  slow to import

    state = outside.existing_state_dir()
    verdict = check(state, (*outside.audit_tips(), *(tip or ())))
    if outside.as_json:
        found = [{"row": one.row, "text": one.text} for one in verdict.findings]
        print_json(
            {
                "schema": SCHEMA,
                "whole": verdict.is_whole,
                "rows": verdict.rows,
                "first": verdict.first,
                "last": verdict.last,
                "tips": verdict.tips,
                "findings": found,
            }
        )
    else:
        for finding in verdict.findings:
            complain(finding)
        if verdict.is_whole:
            say(f"whole: {verdict.rows} rows, the last is {verdict.last}, as {', '.join(verdict.tips)} knows it")
    if not verdict.is_whole:
        text = None if outside.as_json else f"{state}: the audit chain is not as the daemon wrote it"
        raise Quit(SOMETHING_DOWN, text)


COMMANDS = {"verify": verify}
