"""The runbooks in use, read again while they are in use: each file by itself, and the last good version of it counts.

``read_again`` reads files; a ``Shelf`` never changes, so whoever holds one decides by one state of all files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from runbooks.model import Runbook
from runbooks.parse import BadRunbook, Library, Problem, Read, by_id, read

SETTLES_NS: Final = 2_000_000_000
"""A file that changed less than this ago may still be written to."""


class Mark(NamedTuple):
    """By what a file is known to be as it was. Time in nanoseconds."""

    changed_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class Kept:
    """One file: ``good`` is the last version that could be used, ``problems`` what is wrong with the one that is there.

    ``mark``: of the version that was read last; None has it read again. ``is_missed``: it was not there at the last
    look, which may have been between two steps of an editor.
    """

    mark: Mark | None = None
    good: Read | None = None
    problems: tuple[Problem, ...] = ()
    is_missed: bool = False


@dataclass(frozen=True, slots=True)
class Shelf:
    """``library``: what is used; its problems say of each bad file which version is used instead."""

    library: Library = field(default_factory=Library)
    files: Mapping[Path, Kept] = field(default_factory=dict)


class Difference(NamedTuple):
    """One runbook that is another than before. None: it was not there, or is gone."""

    runbook_id: str
    old: Runbook | None
    new: Runbook | None

    def __str__(self) -> str:
        if self.new is None:
            return f"runbook {self.runbook_id} is gone"
        if self.old is None:
            return f"runbook {named(self.new)} is new"
        return f"runbook {named(self.old)} is now {named(self.new)}"


def named(runbook: Runbook) -> str:
    """Id, version, and the beginning of its bytes' SHA-256."""
    return f"{runbook.id} {runbook.version} ({runbook.sha256[:12]})"


def read_again(directories: Sequence[Path], before: Shelf, now_ns: int, *, is_patient: bool = False) -> Shelf:
    """The files as they are now; ``before`` itself when nothing is new. Blocking.

    Args:
        now_ns: Unix time.
        is_patient: a look of many. What seems to be as it was is not read; a file that changed a moment ago may be half
            written, and while it is bad nothing is said of it; one that is gone may come back. The next look judges.
    """
    files: dict[Path, Kept] = {}
    found: dict[str, Read] = {}
    problems: list[Problem] = []
    for directory in directories:
        own: list[Read] = []
        for path in _paths(directory, before, problems, is_patient=is_patient):
            kept = files[path] = _look(path, before.files.get(path, Kept()), now_ns, is_patient=is_patient)
            problems += kept.problems
            own += [] if kept.good is None else [kept.good]
        found.update(by_id(own, problems))
    library = Library.of(found, problems)
    if library.runbooks == before.library.runbooks:  # deciding remembers by identity
        library = replace(library, runbooks=before.library.runbooks)
    made = Shelf(library, files)
    return before if made == before else made


def differences(old: Library, new: Library) -> list[Difference]:
    """The runbooks that are others than before, by id."""
    was, now = ({one.id: one for one in library.runbooks} for library in (old, new))
    return [
        Difference(key, was.get(key), now.get(key))
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]


# -- one directory, one file ------------------------------------------------------------------------------------------


def _paths(directory: Path, before: Shelf, problems: list[Problem], *, is_patient: bool) -> list[Path]:
    """The files of a directory in their order; where it cannot be read, those it had."""
    known = [path for path in before.files if path.parent == directory]
    try:
        found = {path for path in directory.iterdir() if path.suffix == ".json"}
    except OSError as error:
        text = f"cannot read the runbook directory: {error.strerror}"
        problems.append(Problem(str(directory), "", f"{text}; what was read from it stays in use" if known else text))
        return known or []
    return sorted(found | {path for path in known if is_patient and not before.files[path].is_missed})


def _look(path: Path, known: Kept, now_ns: int, *, is_patient: bool) -> Kept:
    try:
        status = path.stat()
        mark = Mark(status.st_mtime_ns, status.st_size, status.st_ino)
        if is_patient and mark == known.mark:
            return known
        source = path.read_bytes()
    except FileNotFoundError:
        if is_patient and not known.is_missed:
            return Kept(None, known.good, known.problems, is_missed=True)
        return Kept(None, None, (Problem(str(path), "", "cannot be read: it is not there"),))
    except OSError as error:
        return Kept(
            None, known.good, _stays((Problem(str(path), "", f"cannot be read: {error.strerror}"),), known.good)
        )
    is_fresh = abs(now_ns - mark.changed_ns) < SETTLES_NS
    lasting = None if is_fresh else mark  # a clock's tick is coarse: it may change again and look the same
    if known.good is not None and known.good.runbook.source == source:
        return Kept(lasting, known.good)
    try:
        return Kept(lasting, read(source, str(path)))
    except BadRunbook as bad:
        if is_fresh and is_patient:
            return Kept(None, known.good, known.problems)
        return Kept(lasting, known.good, _stays(bad.problems, known.good))


def _stays(problems: Sequence[Problem], good: Read | None) -> tuple[Problem, ...]:
    """What is wrong, and what is used all the same."""
    if good is None:
        return tuple(problems)
    used = f"{named(good.runbook)} as read before stays in use"
    return tuple(replace(one, text=f"{one.text}; {used}") for one in problems)
