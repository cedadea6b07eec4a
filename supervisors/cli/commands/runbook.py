"""``selfheal runbook``: the files that answer alerts. Needs no daemon."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from supervisors.cli.exits import FAILED, Quit
from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import complain, print_json, say, table
from supervisors.manager import SCHEMA, UnknownNode

Config = Annotated[str | None, typer.Option("--config", help="Use the runbook directories of this file.")]


@command
def list_(outside: Outside, config: Config = None) -> None:
    """All runbooks the daemon would use here."""
    from supervisors.cli.libraries import library_of  # noqa: PLC0415  slow to import

    library = library_of(config)
    if outside.as_json:
        found = [
            {"id": one.id, "version": one.version, "name": one.name, "enabled": one.enabled} for one in library.runbooks
        ]
        print_json({"schema": SCHEMA, "runbooks": found, "problems": [str(one) for one in library.problems]})
    else:
        rows = [(one.id, one.version, "yes" if one.enabled else "no", one.name) for one in library.runbooks]
        say(table(("ID", "VERSION", "ENABLED", "NAME"), rows))
        _complain(library.problems)


@command
def show(outside: Outside, runbook: Annotated[str, typer.Argument(metavar="ID")], config: Config = None) -> None:
    """One runbook: what it answers and what it does."""
    from supervisors.cli.libraries import library_of  # noqa: PLC0415  slow to import

    found = library_of(config).get(runbook)
    if found is None:
        raise UnknownNode(runbook, None, "runbook")
    if outside.as_json:
        print_json(json.loads(found.source))
        return
    say(f"{found.id} {found.version}: {found.name}\n{found.description}\ntarget {found.target}\n")
    say(
        table(
            ("STEP", "DOES", "EFFECT"),
            [(one.id, one.call.type.value if one.call else "wait", one.effect.value) for one in found.actions],
        )
    )


@command
def lint(
    outside: Outside,
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE|DIR...", show_default=False)] = None,
    config: Config = None,
) -> None:
    """Check runbook files, or all the daemon would use; every problem is told. Exit code 1 when there is one."""
    from supervisors.cli.libraries import library_of, problems_of  # noqa: PLC0415  slow to import

    problems = [each for file in files for each in problems_of(file)] if files else list(library_of(config).problems)
    if outside.as_json:
        print_json({"schema": SCHEMA, "problems": [str(one) for one in problems]})
    elif problems:
        _complain(problems)
    else:
        say("no problems")
    if problems:
        raise Quit(FAILED)


COMMANDS = {"list": list_, "show": show, "lint": lint}


def _complain(problems: Iterable[object]) -> None:
    for problem in problems:
        complain(problem)
