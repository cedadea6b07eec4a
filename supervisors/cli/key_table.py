"""What ``selfheal keys`` does to the keys of a state directory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.access.keyring import RESERVED, Keyring, utc_now
from actors.access.rules import Role
from actors.access.table import BadTable, Line, NameTaken, NoSuchClient, Table
from bridge_link.errors import KeyTrouble
from bridge_link.keys import LOCAL, is_client_name, new_client_key
from supervisors.cli.exits import FAILED, WRONG_USAGE, Quit
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain, print_json, say, table
from supervisors.manager import SCHEMA


def make_key(
    outside: Outside,
    name: str,
    roles: Sequence[str],
    types: Sequence[str],
    *,
    rate: str | None,
    expires: str | None,
    out: str | None,
    create: bool,
) -> None:
    """Make a client and its key file. Raises Quit."""
    now = utc_now()
    if not is_client_name(name) or name in RESERVED:
        why = "is a name of the daemon's own" if name in RESERVED else "is no name for a client: a-z 0-9 . _ -"
        raise Quit(WRONG_USAGE, f"{name!r} {why}")
    facts: dict[str, Any] = {
        "name": name,
        "roles": _roles(roles),
        "alert_types": tuple(types) or None,
        "max_rate_per_s": None if rate is None else _rate(rate),
        "not_after": None if expires is None else _moment(expires, now),
        "made_at": now,
    }
    hint = "--state names another, --create makes it for a daemon that will use it"
    keyring = Keyring(outside.state_dir() if create else outside.existing_state_dir(hint))
    file = keyring.directory / f"{name}.key" if out is None else Path(out).absolute()
    with _told(keyring):
        key = new_client_key(name, keyring.server_key().public)
        line = _line({**facts, "public": key.public})
        keyring.add(line, key, file)
    if outside.as_json:
        print_json({"schema": SCHEMA, "file": str(file), "client": _shown(line, now)})
    else:
        say(str(file))


def list_keys(outside: Outside) -> None:
    """Raises Quit."""
    keyring, now = Keyring(outside.existing_state_dir()), utc_now()
    with _told(keyring):
        lines = sorted(keyring.table().lines, key=lambda line: line.name)
    if not lines:
        complain(f"selfheal: no keys in {keyring.directory}; was a daemon ever started with this state directory?")
    shown = [_shown(line, now) for line in lines]
    if outside.as_json:
        print_json({"schema": SCHEMA, "clients": shown})
        return
    columns = ("name", "state", "roles", "alert_types", "max_rate_per_s", "not_after", "revoked_at", "public")
    heads = ("NAME", "STATE", "ROLES", "TYPES", "RATE/S", "EXPIRES", "REVOKED", "PUBLIC KEY")
    rows = [one | {"not_after": _last_day(line)} for one, line in zip(shown, lines, strict=True)]
    say(table(heads, [[_cell(one[column]) for column in columns] for one in rows]))


def revoke_key(outside: Outside, name: str) -> None:
    """Raises Quit."""
    keyring, now = Keyring(outside.existing_state_dir()), utc_now()
    before: list[Line | None] = []

    def change(clients: Table) -> Table:
        before.append(clients.line(name))
        return clients.with_revoked(name, now)

    with _told(keyring):
        line = keyring.change_table(change).line(name)
    if outside.as_json:
        print_json({"schema": SCHEMA, "client": None if line is None else _shown(line, now)})
    elif before[0] is not None and before[0].revoked_at is not None:
        say(f"{name} was revoked already, {_moment_text(before[0].revoked_at)}")
    else:
        say(f"revoked {name}")
    if name == LOCAL:
        file = keyring.directory / f"{LOCAL}.key"
        complain(
            "selfheal: with that key speak all programs of this user that have no other ('selfheal alert', 'selfheal "
            f"events' too). To have a new one: stop the daemon, remove {file}, start the daemon"
        )


@contextmanager
def _told(keyring: Keyring) -> Iterator[None]:
    try:
        yield
    except NameTaken as taken:
        text = f"there is a client {str(taken)!r} already (see 'selfheal keys list'); choose another name"
        raise Quit(FAILED, text) from None
    except NoSuchClient as missing:
        raise Quit(FAILED, f"there is no client {str(missing)!r} in {keyring.table_file}") from None
    except FileExistsError as error:
        where = error.filename2 or error.filename
        raise Quit(FAILED, f"{where} is there already; remove it, or say --out FILE") from None
    except (BadTable, KeyTrouble) as error:
        raise Quit(FAILED, str(error)) from None
    except OSError as error:
        raise Quit(FAILED, f"{error.filename or keyring.directory}: {error.strerror}") from None


def _roles(said: Sequence[str]) -> tuple[str, ...]:
    known = [role.value for role in Role]
    words = [word for one in said for word in one.split(",")]
    for word in words:
        if word not in known:
            raise Quit(WRONG_USAGE, f"--role {word!r} is none of {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def _rate(text: str) -> float:
    try:
        rate_per_s = float(text.removesuffix("/s"))
    except ValueError:
        rate_per_s = math.nan
    if not 0 < rate_per_s <= 1_000_000:
        raise Quit(WRONG_USAGE, f"--rate {text!r} is no rate; write it as 50/s")
    return rate_per_s


def _moment(text: str, now: datetime) -> datetime:
    try:
        moment = _end_of(date.fromisoformat(text)) if len(text) == len("2027-01-31") else datetime.fromisoformat(text)
    except ValueError:
        raise Quit(WRONG_USAGE, f"--expires {text!r} is no date; write it as 2027-01-31") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise Quit(WRONG_USAGE, f"--expires {text!r} is past already")
    return moment


def _end_of(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def _last_day(line: Line) -> str | None:
    """As it was said: the last day, or a moment."""
    if line.not_after is None:
        return None
    moment = line.not_after.astimezone(UTC)
    is_midnight = moment.timetz() == time(tzinfo=UTC)
    return (moment - timedelta(days=1)).date().isoformat() if is_midnight else _moment_text(moment)


def _moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _line(facts: dict[str, Any]) -> Line:
    try:
        return Line(**facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Quit(WRONG_USAGE, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _shown(line: Line, now: datetime) -> dict[str, Any]:
    """A client for people and ``--json``; the types are those that count."""
    if line.revoked_at is not None:
        state = "revoked"
    else:
        state = "expired" if line.not_after is not None and line.not_after <= now else "valid"
    return {**line.model_dump(mode="json"), "alert_types": list(line.client().alert_types), "state": state}


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
