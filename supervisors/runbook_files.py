"""The runbooks the daemon uses, as their files are: looked at once a second, and when the configuration is applied.

A file that was edited counts as soon as it is whole and good; until then its last good version is used, and its node
says what is wrong. Files are read on the I/O pool or by who applies, never by an actor. Any thread may ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from runbooks.parse import Library
from runbooks.shelf import Difference, Shelf, differences, named, read_again

BY_THE_FILES: Final = "their files"


@dataclass
class RunbookFiles:
    """Args:
    directories: in their order; a later one's runbooks replace an earlier one's. ``reread`` may change them.
    wall: Unix time in seconds.
    run: has the files looked at (on the I/O pool).
    changed: told of the runbooks that are others than before, and by whom; from whichever thread read them.
    """

    directories: Sequence[Path]
    wall: Callable[[], float]
    run: Callable[[Callable[[], Any]], object]
    changed: Callable[[Sequence[Difference], str], object]
    _shelf: Shelf = field(default_factory=Shelf)
    _is_looking: bool = False
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._shelf = read_again(self.directories, Shelf(), self._now_ns())
        self._complain(Library())

    @property
    def library(self) -> Library:
        """All of it at one moment: who decides takes it once."""
        return self._shelf.library

    def trouble(self) -> str | None:
        """What is wrong with the files; has them looked at meanwhile. Does not block."""
        if not self._is_looking:
            self._is_looking = True
            self.run(self._look)
        problems = self.library.problems
        if not problems:
            return None
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{problems[0]}{more}"

    def reread(self, by: str, directories: Sequence[Path] | None = None) -> list[str]:
        """Read all of them now; what came of it, in words. Blocks.

        ``directories``: those that count from now on, all at once: whoever decides meanwhile has the runbooks of the
        old ones or of the new ones, never a mixture.
        """
        found = self._read(by, is_patient=False, directories=directories)
        return [f"{one}, at once" for one in found] + [f"not used: {one}" for one in self.library.problems]

    def shown(self) -> Mapping[str, Any]:
        """The runbooks in use, and what is wrong with files, in the shape of ``GET /v1/runbooks``."""
        return shown_of(self.library)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            self._read(BY_THE_FILES, is_patient=True)
        finally:
            self._is_looking = False

    def _read(self, by: str, *, is_patient: bool, directories: Sequence[Path] | None = None) -> Sequence[Difference]:
        with self._reading:
            before = self._shelf
            wanted = self.directories if directories is None else directories
            made = read_again(wanted, before, self._now_ns(), is_patient=is_patient)
            self.directories, self._shelf = wanted, made
            found = differences(before.library, self.library)
            self._complain(before.library)
        for one in found:
            structlog.get_logger().info("runbook taken up", what=str(one), by=by)
        if found:
            self.changed(found, by)
        return found

    def _complain(self, before: Library) -> None:
        for problem in self.library.problems:
            if problem not in before.problems:
                structlog.get_logger().error("runbook refused, the others are used", problem=str(problem))

    def _now_ns(self) -> int:
        return int(self.wall() * 1e9)


def shown_of(library: Library) -> Mapping[str, Any]:
    """The shape of ``GET /v1/runbooks``. Pure."""
    return {
        "runbooks": [
            {
                "id": one.id,
                "version": one.version,
                "name": one.name,
                "enabled": one.enabled,
                "mode": one.mode.value,
                "sha256": one.sha256,
                "file": library.files[one.id],
            }
            for one in library.runbooks
        ],
        "problems": [str(one) for one in library.problems],
    }


def unlike(here: Library, daemon: Mapping[str, Any]) -> list[str]:
    """Where a daemon (``shown``) uses other runbooks than the files here hold, in words. Pure."""
    own = {one.id: one for one in here.runbooks}
    used = {str(one["id"]): one for one in daemon["runbooks"]}
    said = []
    for key in sorted(own.keys() | used.keys()):
        mine, its = own.get(key), used.get(key)
        if mine is not None and its is None:
            said.append(f"{named(mine)}: the daemon does not use it")
        elif its is not None and (mine is None or mine.sha256 != its["sha256"]):
            said.append(f"{key}: the daemon uses {its['version']} ({str(its['sha256'])[:12]}) of {its['file']}")
    return said
