"""Users of this machine by name, and who gives the command that is being carried out."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

asking: Final[ContextVar[Callable[[], str] | None]] = ContextVar("asking", default=None)
"""Set for each request over HTTP: tells who asks as far as that is proven ("" when it is not). It may block."""


def user_name(user: int) -> str:
    """The name of a user id; the number itself for one without a name, as in many containers."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def whose(by: str, why: str) -> str:
    """``alice (holiday)``."""
    return f"{by} ({why})" if why else by


def who_asks(by: str, why: str = "") -> dict[str, str]:
    """For the record: ``by``, his own word; ``proven``: what the kernel or a token says; ``why``. Nothing empty."""
    ask = asking.get()
    said = {"by": by, "proven": "" if ask is None else ask(), "why": why}
    return {key: value for key, value in said.items() if value}
