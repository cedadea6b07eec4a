"""The runbooks the command line speaks of."""

from __future__ import annotations

import os
from pathlib import Path

from config import ConfigError, find_config, load_config
from runbooks.parse import SHIPPED, BadRunbook, Library, Problem, load_library, parse
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.terminal import complain


def library_of(config: str | None) -> Library:
    """The shipped runbooks, then those of the configuration ``run`` would use here. Raises Quit when that is bad."""
    try:
        found = load_config(find_config(config, os.environ, Path.cwd()), os.environ)
    except ConfigError as error:
        complain(error)
        raise Quit(WRONG_USAGE) from None
    return load_library((SHIPPED, *found.runbooks.directories))


def problems_of(file: Path) -> tuple[Problem, ...]:
    """What is wrong with a runbook file, or with those of a folder."""
    if file.is_dir():
        return load_library((file,)).problems
    try:
        parse(file.read_bytes(), str(file))
    except BadRunbook as bad:
        return bad.problems
    except OSError as error:
        return (Problem(str(file), "", f"cannot be read: {error.strerror}"),)
    return ()
