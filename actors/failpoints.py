"""Fail points: named places where a crash test has this very process killed, for real, with SIGKILL.

The crash matrix sets an environment variable (``NAME`` or ``NAME:NTH``, the NTH passing counts) and starts the real
daemon; passing the place then ends the process as a power switch would: no handler, no flush, no ``finally``. Without
the variable a place costs one comparison. The names are in ``FAIL_POINTS``.

``SELFHEAL_FAIL_POINT_NOTES`` names a directory: a death leaves the file ``died.NAME`` there, as proof that it came at
this very place, and only one process dies for it (a lost keeper is replaced by one with the same environment). Every
place passed is noted in ``passed``; the name ``*`` does nothing but that.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DAEMON_VARIABLE: Final = "SELFHEAL_FAIL_POINT"
KEEPER_VARIABLE: Final = "SELFHEAL_KEEPER_FAIL_POINT"
NOTES_VARIABLE: Final = "SELFHEAL_FAIL_POINT_NOTES"
NOBODY: Final = "*"

FAIL_POINTS: Final[dict[str, str]] = {}
"""Every place, with what has and has not happened there. Filled by ``register``, so that a list can be printed."""


@dataclass
class _Armed:
    name: str | None = None
    passes_left: int = 1
    notes: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_armed: Final = _Armed()


def register(name: str, what: str) -> str:
    """Declare a place at import time; returns its name.

    Raises:
        ValueError: there is another place of this name.
    """
    if name in FAIL_POINTS:
        raise ValueError(f"two fail points are called {name!r}")
    FAIL_POINTS[name] = what
    return name


def arm(variable: str, environ: Mapping[str, str] = os.environ) -> None:
    """Read which place shall be deadly for this process.

    Raises:
        ValueError: the variable is no ``NAME`` or ``NAME:NTH``.
    """
    wanted = environ.get(variable)
    if not wanted:
        return
    name, _, nth = wanted.partition(":")
    notes = environ.get(NOTES_VARIABLE)
    _armed.notes = Path(notes) if notes else None
    _armed.passes_left = int(nth or 1)
    _armed.name = name


def reached(name: str) -> None:
    """This place was reached; the process may end here."""
    if _armed.name is not None:
        _passed(name)


def _passed(name: str) -> None:
    _append(name)
    if _armed.name != name:
        return
    with _armed.lock:
        _armed.passes_left -= 1
        if _armed.passes_left == 0 and _is_first(name):
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the signal may reach another thread first: this one goes no further


def _append(name: str) -> None:
    if _armed.notes is not None:
        with (_armed.notes / "passed").open("ab") as file:
            file.write(name.encode() + b"\n")


def _is_first(name: str) -> bool:
    """Leave the proof. False: somebody has died of this already."""
    if _armed.notes is None:
        return True
    try:
        (_armed.notes / f"died.{name}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
