"""``selfheal runbook``: the files that answer alerts. Needs no daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from config import ConfigError, find_config, load_config
from runbooks.model import Runbook
from runbooks.parse import SHIPPED, BadRunbook, Library, Problem, load_library, parse
from supervisors.cli.exits import FAILED, WRONG_USAGE, Quit
from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import complain, print_json, say, table
from supervisors.manager import SCHEMA, UnknownNode

Config = Annotated[str | None, typer.Option("--config", help="Use the runbook directories of this file.")]


@command
def list_(outside: Outside, config: Config = None) -> None:
    """All runbooks the daemon would use here."""
    library = _library(config)
    if outside.as_json:
        found = [
            {"id": one.id, "version": one.version, "name": one.name, "enabled": one.enabled} for one in _of(library)
        ]
        print_json({"schema": SCHEMA, "runbooks": found, "problems": [str(one) for one in library.problems]})
    else:
        rows = [(one.id, one.version, "yes" if one.enabled else "no", one.name) for one in _of(library)]
        say(table(("ID", "VERSION", "ENABLED", "NAME"), rows))
        _complain(library.problems)


@command
def show(outside: Outside, runbook: Annotated[str, typer.Argument(metavar="ID")], config: Config = None) -> None:
    """One runbook: what it answers and what it does."""
    found = _library(config).get(runbook)
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
    problems = [each for file in files for each in _problems(file)] if files else list(_library(config).problems)
    if outside.as_json:
        print_json({"schema": SCHEMA, "problems": [str(one) for one in problems]})
    elif problems:
        _complain(problems)
    else:
        say("no problems")
    if problems:
        raise Quit(FAILED)


COMMANDS = {"list": list_, "show": show, "lint": lint}


def _of(library: Library) -> tuple[Runbook, ...]:
    return library.runbooks


def _library(config: str | None) -> Library:
    """The shipped runbooks, then those of the configuration ``run`` would use here."""
    try:
        found = load_config(find_config(config, os.environ, Path.cwd()), os.environ)
    except ConfigError as error:
        complain(error)
        raise Quit(WRONG_USAGE) from None
    return load_library((SHIPPED, *found.runbooks.directories))


def _problems(file: Path) -> tuple[Problem, ...]:
    if file.is_dir():
        return load_library((file,)).problems
    try:
        parse(file.read_bytes(), str(file))
    except BadRunbook as bad:
        return bad.problems
    except OSError as error:
        return (Problem(str(file), "", f"cannot be read: {error.strerror}"),)
    return ()


def _complain(problems: tuple[Problem, ...] | list[Problem]) -> None:
    for problem in problems:
        complain(problem)
