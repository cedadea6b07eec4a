"""What happens at the borders of this process, heard by an audit hook (sys.addaudithook): processes, files that are
written, connections. And what becomes of a hostile string on its way into a step.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from runbooks.model import Action, Runbook
from runbooks.parameters import BadParameter, resolve
from runbooks.plan import bind, bound_action
from runbooks.templating import BadTemplate
from tests.injection.audited import STARTS
from tests.injection.books import made, step

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Heard:
    is_on: bool = False
    processes: list[tuple[str, Any]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    connections: list[Any] = field(default_factory=list)


HEARD = Heard()


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if not HEARD.is_on:
        return
    if event in STARTS:
        HEARD.processes.append((event, given[:2]))
    elif event == "open" and isinstance(given[2], int) and given[2] & WRITES:
        HEARD.written.append(str(given[0]))
    elif event == "socket.connect":
        HEARD.connections.append(given[1])


@functools.cache
def _hook() -> None:
    """Only once: a hook cannot be taken away. It does nothing while nobody listens."""
    sys.addaudithook(_hear)


@contextmanager
def listening() -> Iterator[Heard]:
    _hook()
    HEARD.processes, HEARD.written, HEARD.connections = [], [], []
    HEARD.is_on = True
    try:
        yield HEARD
    finally:
        HEARD.is_on = False


ANY = made("some", step("command", {}, command=["true"]))


def is_resolved(value: str) -> bool:
    """Whether a step can have it as a value at all: else it is refused long before."""
    try:
        resolve(ANY.parameters, {"labels": {"value": value}})
    except BadParameter:
        return False
    return True


def is_argument(value: str) -> bool:
    """Whether a program can have it as an item, where the runbook writes no option."""
    return is_resolved(value) and not value.startswith("-")


def bound(book: Runbook, value: str) -> Action | None:
    """The step with the string as its value; None where that is refused."""
    try:
        values = resolve(book.parameters, {"type": "t", "labels": {"value": value}})
        return bound_action(bind(book, values), 0, {})
    except (BadParameter, BadTemplate):
        return None
