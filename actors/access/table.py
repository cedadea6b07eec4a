"""The table of clients as its file says it: ``keys/clients.json``. Parsing and changing are pure; no thread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from actors.access.rules import TYPES, Client, Role
from bridge_link.keys import is_client_name, is_public_key

MARK: Final = 32
"""Letters of a mark."""
REVOKED: Final = " revoked"


class BadTable(Exception):
    """The file is no table of clients; the text says what and where."""


class NameTaken(Exception):
    """A client has this name already."""


class NoSuchClient(Exception):
    """No client has this name."""


def _checked(is_right: Callable[[str], bool], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not is_right(text):
            raise ValueError(f"{text!r} is no {what}")
        return text

    return AfterValidator(check)


class Line(BaseModel):
    """One client. Times with their zone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, _checked(is_client_name, "client name")]
    public: Annotated[str, _checked(is_public_key, "public key")]
    roles: Annotated[tuple[Literal["guardian", "bridge", "operator", "viewer"], ...], Field(min_length=1)]
    alert_types: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None = None
    """Globs; null: as its roles have them."""
    max_rate_per_s: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    not_after: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    made_at: AwareDatetime

    def client(self) -> Client:
        roles = frozenset(Role(role) for role in self.roles)
        usual = tuple(glob for role in Role if role in roles for glob in TYPES.get(role, ()))
        return Client(
            self.name,
            self.public,
            roles,
            usual if self.alert_types is None else self.alert_types,
            self.max_rate_per_s,
            None if self.not_after is None else self.not_after.timestamp(),
            None if self.revoked_at is None else self.revoked_at.timestamp(),
        )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    clients: tuple[Line, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for what in ("name", "public"):
            seen: set[str] = set()
            for line in self.clients:
                value = getattr(line, what)
                if value in seen:
                    raise ValueError(f"the {what} {value!r} stands twice")
                seen.add(value)
        return self


@dataclass(frozen=True)
class Table:
    """All clients. A revoked one stays: its name is not given to another."""

    lines: tuple[Line, ...] = ()

    @classmethod
    def parsed(cls, text: str) -> Table:
        """Raises BadTable."""
        try:
            return cls(_File.model_validate_json(text).clients)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BadTable(f"{place + ': ' if place else ''}{first['msg']}") from None

    def text(self) -> str:
        return json.dumps(_File(clients=self.lines).model_dump(mode="json"), indent=1) + "\n"

    def line(self, name: str) -> Line | None:
        return next((line for line in self.lines if line.name == name), None)

    def with_new(self, line: Line) -> Table:
        """Raises NameTaken, also for the name of a revoked client."""
        if self.line(line.name) is not None:
            raise NameTaken(line.name)
        return Table((*self.lines, line))

    def put(self, line: Line) -> Table:
        """``line`` in the place of the one with its name."""
        return Table((*(one for one in self.lines if one.name != line.name), line))

    def with_revoked(self, name: str, at: datetime) -> Table:
        """Raises NoSuchClient. Revoked twice, the first time counts."""
        line = self.line(name)
        if line is None:
            raise NoSuchClient(name)
        if line.revoked_at is not None:
            return self
        return Table(
            tuple(one.model_copy(update={"revoked_at": at}) if one.name == name else one for one in self.lines)
        )

    def clients(self) -> Mapping[str, Client]:
        return {line.name: line.client() for line in self.lines}

    def marks(self) -> Mapping[str, str]:
        """A digest of each client's line, by name: equal as long as nothing in it has changed. ``REVOKED`` behind that
        of one who may not speak any more.
        """
        return {line.name: _mark(line) for line in self.lines}


def _mark(line: Line) -> str:
    mark = hashlib.sha256(line.model_dump_json().encode()).hexdigest()[:MARK]
    return mark if line.revoked_at is None else mark + REVOKED
