"""Users of this machine, by name."""

from __future__ import annotations

import pwd


def user_name(user: int) -> str:
    """The name of a user id; the number itself for one without a name, as in many containers."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
