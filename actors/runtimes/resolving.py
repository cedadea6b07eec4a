"""From what a service asks for to what its process gets: names of users to numbers, files to variables.

Done at each launch, on the I/O pool: a user made since, or a file changed since, counts.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass, field
from typing import Final

from actors.keeper.attributes import PLAIN, Attributes
from actors.keeper.words import FileStamp
from actors.runtimes.base import LaunchError, LaunchSpec
from actors.runtimes.environment import read_variables
from actors.runtimes.settings import ProcessSettings

BIGGEST_ID: Final = 2**32 - 2
"""Of a user or group. The next number means "no change" to the kernel: a service would stay what the daemon is."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """``environment`` holds values of secrets: it is never printed."""

    environment: dict[str, str] = field(repr=False)
    attributes: Attributes = PLAIN
    stamps: tuple[FileStamp, ...] = ()


@dataclass(frozen=True, slots=True)
class _Identity:
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    home: tuple[tuple[str, str], ...] = ()


def resolve(spec: LaunchSpec) -> Resolved:
    """What the process of this launch gets beside the daemon's own environment.

    Raises:
        LaunchError: a user, a group or a file is missing or bad; which one.
    """
    variables = read_variables(spec)
    settings = spec.settings
    if settings == ProcessSettings():
        return Resolved(variables.values, PLAIN, variables.stamps)
    who = _identity(spec)
    attributes = Attributes(
        rlimits=tuple((limit.name, limit.soft, limit.hard) for limit in settings.limits),
        nice=settings.nice,
        umask=settings.umask,
        uid=who.uid,
        gid=who.gid,
        groups=who.groups,
    )
    return Resolved({**dict(who.home), **variables.values}, attributes, variables.stamps)


def _identity(spec: LaunchSpec) -> _Identity:
    """The user with its own group, supplementary groups and home, where nothing else is said."""
    settings = spec.settings
    gid = None if settings.group is None else _gid(spec, settings.group)
    groups = None if settings.groups is None else tuple(_gid(spec, name) for name in settings.groups)
    if settings.user is None:
        return _Identity(None, gid, groups)
    uid, entry = _user(spec, settings.user)
    if gid is None:
        if entry is None:
            raise _missing(spec, f"user {uid} has no entry in the user database: say its `group` too")
        gid = entry.pw_gid
    if groups is None:
        groups = () if entry is None else _groups_of(spec, entry.pw_name, gid)
    if (uid, gid) == (os.getuid(), os.getgid()) and settings.groups is None:
        return _Identity()  # it is us: nothing to switch, and without root nothing could be
    home = () if entry is None else _home(entry)
    return _Identity(uid, gid, groups, home)


def _groups_of(spec: LaunchSpec, user: str, gid: int) -> tuple[int, ...]:
    try:
        return tuple(os.getgrouplist(user, gid))
    except OSError as error:
        raise _missing(spec, f"the groups of user {user!r} cannot be looked up: {error.strerror}") from error


def _home(entry: pwd.struct_passwd) -> tuple[tuple[str, str], ...]:
    """A program must not look for its files in the home of the daemon's user."""
    return (("HOME", entry.pw_dir), ("USER", entry.pw_name), ("LOGNAME", entry.pw_name), ("SHELL", entry.pw_shell))


def _user(spec: LaunchSpec, name: str) -> tuple[int, pwd.struct_passwd | None]:
    number = _number(spec, "user", name)
    try:
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except (KeyError, ValueError):  # ValueError: no name of anybody
        if number is not None:
            return number, None
        raise _missing(spec, f"there is no user {name!r} on this system: create it or correct `user`") from None
    return entry.pw_uid, entry


def _gid(spec: LaunchSpec, name: str) -> int:
    number = _number(spec, "group", name)
    if number is not None:
        return number
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise _missing(spec, f"there is no group {name!r} on this system: create it or correct it") from None


def _number(spec: LaunchSpec, what: str, name: str) -> int | None:
    """None: it is no number but a name."""
    if not (name.isascii() and name.isdigit()):
        return None
    if len(name.lstrip("0")) > len(str(BIGGEST_ID)) or int(name) > BIGGEST_ID:
        raise _missing(spec, f"{what} {name} is no number of a {what}: the biggest is {BIGGEST_ID}")
    return int(name)


def _missing(spec: LaunchSpec, text: str) -> LaunchError:
    return LaunchError(f"service {spec.service!r}: {text}", permanent=True)
