"""Alerts and what comes back for them. Pure: plain data in and out, each refusal names the field."""

from __future__ import annotations

import enum
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from bridge_link.wire import is_id, new_id
from guardian_link.mapping import DEFAULT_TYPE, TYPE_OF_COMPONENT, TYPE_OF_GUARDIAN, TYPE_OF_SYSTEM

MAX_MESSAGE_CHARS: Final = 8192
_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}")


def is_service_name(text: str) -> bool:
    """Whether a text may be an alert's ``service``."""
    return _SERVICE.fullmatch(text) is not None


class Severity(enum.Enum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class BadAlert(ValueError):
    """An alert that cannot be taken; ``field`` is the one at fault."""

    def __init__(self, field_name: str, problem: str) -> None:
        super().__init__(f"{field_name}: {problem}")
        self.field = field_name
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Alert:
    """Something is wrong.

    Args:
        type: what, as runbooks match it: ``service_failure``.
        service: which service it is about, if it is about one.
        severity: low, medium, high (default) or critical.
        message: for people.
        source: who says so; the host's name by default.
        labels: more facts, as text.
        dedup_key: alerts with the same key are the same trouble (never the message's id).
        id: of this message; unique. Sending the same alert again under its id is harmless.

    Raises:
        BadAlert: naming the field.
    """

    type: str
    service: str | None = None
    severity: str = "high"
    message: str = ""
    source: str = field(default_factory=socket.gethostname)
    labels: Mapping[str, Any] = field(default_factory=dict)
    dedup_key: str | None = None
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        loose: Any = self  # what came over a wire, or from a caller without a type checker, may be anything
        _check_fields(loose.type, loose.service, loose.severity, loose.message, loose.source)
        if not _is_mapping(loose.labels) or any(type(key) is not str for key in loose.labels):
            raise BadAlert("labels", "is no mapping of names")
        if loose.dedup_key is not None:
            _check_text("dedup_key", loose.dedup_key, None)
        if not isinstance(loose.id, str) or not is_id(loose.id):
            raise BadAlert("id", "is not 8 to 64 of A-Z a-z 0-9 . _ : -")

    def to_body(self) -> dict[str, Any]:
        """As it goes over the wire (the id is a frame of its own)."""
        body: dict[str, Any] = {"type": self.type, "severity": self.severity, "source": self.source}
        if self.service:
            body["service"] = self.service
        if self.message:
            body["message"] = self.message
        if self.dedup_key:
            body["dedup_key"] = self.dedup_key
        if self.labels:
            body["labels"] = dict(self.labels)
        return body

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], *, id: str | None = None) -> Self:  # noqa: A002  the alert's own word
        """An alert from any dictionary the platform's programs make: our own shape, the plan's ``error_data``,
        Guardian's alerts, bridge errors.

        Raises:
            BadAlert: naming the field.
        """
        if not _is_mapping(raw):
            raise BadAlert("alert", "is no mapping")
        values = dict(raw) if _is_plain(raw) else _ours(raw)
        if id is not None:
            values["id"] = id
        values.setdefault("source", "unknown")
        return cls(**values)


_SEVERITIES: Final = frozenset(one.value for one in Severity)
_OWN: Final = ("type", "service", "severity", "message", "source", "dedup_key", "id")
_NONE: Final[dict[str, Any]] = {}
_RENAMED: Final = {"error_message": "message", "service_name": "service", "error_id": "dedup_key"}


def facts_of(raw: Any) -> dict[str, Any]:
    """``Alert.from_mapping(raw).to_body()`` for an alert whose id is known to be good, without the detour where ``raw``
    is plain. Raises BadAlert.
    """
    if not isinstance(raw, dict) or not _has_plain_shape(raw):
        return Alert.from_mapping(raw, id=_SOME_ID).to_body()
    get = raw.get
    kind, severity, source = get("type"), get("severity", "high"), get("source", "unknown")
    service, message, dedup_key, labels = get("service"), get("message", ""), get("dedup_key"), get("labels")
    names = (kind, service, severity, source)
    if _is_known(names):
        _check_text("message", message, None)
    elif _are_plain_words(kind, severity):
        _check_fields(kind, service, severity, message, source)
        _remember(names)
    else:
        return Alert.from_mapping(raw, id=_SOME_ID).to_body()
    facts: dict[str, Any] = {"type": kind, "severity": severity, "source": source}
    if service is not None:
        facts["service"] = service
    if message:
        facts["message"] = message
    if dedup_key is not None:
        _check_text("dedup_key", dedup_key, None)
        if dedup_key:
            facts["dedup_key"] = dedup_key
    if labels:
        facts["labels"] = labels
    return facts


def _check_fields(kind: object, service: object, severity: object, message: object, source: object) -> None:
    _check_text("type", kind, _TYPE)
    if service is not None:
        _check_text("service", service, _SERVICE)
    if not isinstance(severity, str) or severity not in _SEVERITIES:
        raise BadAlert("severity", f"{severity!r} is not one of low, medium, high, critical")
    _check_text("message", message, None)
    _check_text("source", source, None)


_SOME_ID: Final = "any-id-will-do"
_PLAIN: Final = frozenset({*_OWN, "labels"})


def _is_mapping(value: object) -> bool:
    return type(value) is dict or isinstance(value, Mapping)  # the second asks an abstract class: slow


def _is_plain(raw: Mapping[str, Any]) -> bool:
    """Our own shape, with nothing to derive."""
    return _has_plain_shape(raw) and _are_plain_words(raw.get("type"), raw.get("severity", "high"))


def _has_plain_shape(raw: Mapping[str, Any]) -> bool:
    return raw.keys() <= _PLAIN and type(raw.get("labels", _NONE)) is dict and None not in raw.values()


def _are_plain_words(kind: object, severity: object) -> bool:
    return type(kind) is str and not kind.isupper() and type(severity) is str and severity in _SEVERITIES


_Names = tuple[Any, Any, Any, Any]
_known_names: set[_Names] = set()
"""Type, service, severity and source of plain alerts that were found good: alerts are much alike."""
MOST_NAMES: Final = 4096
MOST_NAMES_CHARS: Final = 512


def have_known_names(alerts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether ``facts_of`` found type, service, severity and source of each of these plain alerts good before."""
    names = {(one["type"], one.get("service"), one["severity"], one["source"]) for one in alerts}
    return names <= _known_names


def _is_known(names: _Names) -> bool:
    try:
        return names in _known_names
    except TypeError:  # a list, or the like
        return False


def _remember(names: _Names) -> None:
    """They are texts, or None for no service."""
    if sum(len(one) for one in names if one is not None) <= MOST_NAMES_CHARS:
        if len(_known_names) >= MOST_NAMES:
            _known_names.clear()
        _known_names.add(names)


def _ours(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Known words to our fields, everything else to labels."""
    values: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for key, value in raw.items():
        name = _RENAMED.get(key, key)
        if key == "labels" and isinstance(value, Mapping):
            labels |= value
        elif key == "labels":
            raise BadAlert("labels", "is no mapping of names")
        elif value is None:
            continue
        elif name in _OWN and (name == key or name not in raw):
            values[name] = value
        else:
            labels[str(key)] = value
    _derive_type(values, labels)
    _lower_severity(values)
    if labels:
        values["labels"] = labels
    return values


def _derive_type(values: dict[str, Any], labels: dict[str, Any]) -> None:
    """Guardian's COMPONENT_FAILURE names a component, the plan's error_data a system; a bare type stays."""
    given = values.get("type")
    component, system = labels.get("component"), labels.get("system")
    if given == "COMPONENT_FAILURE":
        labels["guardian_type"] = given
        values["type"] = TYPE_OF_COMPONENT.get(str(component), DEFAULT_TYPE)
        if str(component) not in TYPE_OF_COMPONENT and component is not None:
            values.setdefault("service", component)
    elif isinstance(given, str) and given.isupper():
        labels["guardian_type"] = given
        values["type"] = TYPE_OF_GUARDIAN.get(given, given.lower())
    elif given is None:
        if not {"message", "service", "dedup_key"} & set(values) and system is None and "error_type" not in labels:
            raise BadAlert("type", "is missing")
        values["type"] = TYPE_OF_SYSTEM.get(str(system).lower(), DEFAULT_TYPE)


def _lower_severity(values: dict[str, Any]) -> None:
    severity = values.get("severity")
    if isinstance(severity, str):
        values["severity"] = severity.strip().lower()


def _check_text(name: str, value: object, shape: re.Pattern[str] | None) -> None:
    if not isinstance(value, str):
        raise BadAlert(name, f"{value!r} is no text")
    if len(value) > MAX_MESSAGE_CHARS:
        raise BadAlert(name, f"has {len(value)} characters; at most {MAX_MESSAGE_CHARS} are taken")
    if shape is not None and not shape.fullmatch(value):
        raise BadAlert(name, f"{value!r} is no name: letters, digits, '-', '_', '.'")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the daemon decided: run, duplicate, cooling, queued, no_match, recovery_off or rejected, and why."""

    outcome: str
    execution_id: str | None = None
    runbook: str | None = None
    reason: str = ""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        def text(key: str) -> str | None:
            return str(body[key]) if body.get(key) else None

        return cls(str(body.get("outcome", "")), text("execution_id"), text("runbook"), str(body.get("reason") or ""))


@dataclass(frozen=True, slots=True)
class Ack:
    """The alert is on disk (``status``: stored, or duplicate). ``decision`` is None when it did not come in time."""

    id: str
    status: str
    decision: Decision | None = None

    @property
    def execution_id(self) -> str | None:
        return self.decision.execution_id if self.decision is not None else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended: succeeded, failed, rolled_back, rollback_failed, unknown, cancelled, ..."""

    execution_id: str
    status: str
    detail: str = ""

    @property
    def is_recovered(self) -> bool:
        return self.status == "succeeded"
