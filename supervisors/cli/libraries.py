"""The runbooks the command line speaks of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from config import ConfigError, find_config, load_config
from runbooks.model import Runbook
from runbooks.parse import SHIPPED, Library, Problem, Read, load_files, load_library
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain
from supervisors.manager import ManagerError, UnknownNode
from supervisors.runbook_files import unlike


def directories_of(config: str | None) -> tuple[Path, ...]:
    """The runbook directories of the configuration ``run`` would use here. Raises Quit when that is bad."""
    try:
        found = load_config(find_config(config, os.environ, Path.cwd()), os.environ)
    except ConfigError as error:
        complain(error)
        raise Quit(WRONG_USAGE) from None
    return tuple(found.runbooks.directories)


def library_of(config: str | None) -> Library:
    """The shipped runbooks, then those of the configuration ``run`` would use here. Raises Quit when that is bad."""
    return load_library((SHIPPED, *directories_of(config)))


def used_otherwise(outside: Outside, library: Library) -> list[str]:
    """Where a daemon that runs here uses other runbooks than these, in words; nothing when none answers."""
    try:
        with outside.manager() as manager:
            return unlike(library, manager.runbooks())
    except ManagerError:
        return []


def runbook_of(config: str | None, runbook_id: str) -> tuple[Runbook, Library]:
    """The runbook of that id, and its library.

    Raises:
        UnknownNode: there is none.
    """
    library = library_of(config)
    found = library.get(runbook_id)
    if found is None:
        raise UnknownNode(runbook_id, None, "runbook")
    return found, library


@dataclass(frozen=True, slots=True)
class Asked:
    """The runbooks a command is about, the problems of files that hold none, and the others they are used with."""

    reads: tuple[Read, ...]
    problems: tuple[Problem, ...]
    around: tuple[Runbook, ...]

    @property
    def library(self) -> Library:
        """All of them together; those asked for replace others of their id."""
        own = {one.runbook.id: one.runbook for one in self.reads}
        together = {**{one.id: one for one in self.around}, **own}
        return Library(tuple(together[key] for key in sorted(together)), self.problems)


def asked_for(config: str | None, files: Sequence[Path]) -> Asked:
    """The files and folders named, among all the daemon would use; without any, those. Raises Quit."""
    library = library_of(config)
    if not files:
        reads = tuple(Read(one, library.reports.get(one.id, ()), library.files[one.id]) for one in library.runbooks)
        return Asked(reads, library.problems, ())
    problems: list[Problem] = []
    found: list[Read] = []
    for group in _groups(files, problems):
        found += load_files(group, problems).values()
    return Asked(tuple(found), tuple(problems), library.runbooks)


def asked_by_name(config: str | None, named: Sequence[str]) -> Asked:
    """As ``asked_for``; a name without a path that is a runbook's id means that one.

    Raises:
        UnknownNode: there is neither.
        Quit: as ``asked_for``; a path leads nowhere.
    """
    files = [Path(one) for one in named]
    ids = {str(one) for one in files if not one.exists() and one.suffix != ".json" and len(one.parts) == 1}
    missing = next((one for one in files if str(one) not in ids and not os.path.lexists(one)), None)
    if missing is not None:
        raise Quit(WRONG_USAGE, f"{missing}: there is no such file or folder")
    if not ids:
        return asked_for(config, files)
    all_of_them = asked_for(config, [])
    unknown = ids - {one.runbook.id for one in all_of_them.reads}
    if unknown:
        raise UnknownNode(min(unknown), None, "runbook")
    chosen = tuple(one for one in all_of_them.reads if one.runbook.id in ids)
    others = [file for file in files if str(file) not in ids]
    around = tuple(one.runbook for one in all_of_them.reads)
    if not others:
        return Asked(chosen, (), around)
    more = asked_for(config, others)
    return Asked((*chosen, *more.reads), more.problems, around)


def _groups(files: Iterable[Path], problems: list[Problem]) -> Iterable[list[Path]]:
    """What stands in one folder belongs together, and so do the files named by themselves."""
    single = [file for file in files if not file.is_dir()]
    if single:
        yield single
    for folder in files:
        if folder.is_dir():
            try:
                yield sorted(path for path in folder.iterdir() if path.suffix == ".json")
            except OSError as error:
                problems.append(Problem(str(folder), "", f"cannot read the runbook directory: {error.strerror}"))
