"""Whatever the platform hands over for recovery, as an alert. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bridge_link.bodies import check, pack_msgpack
from bridge_link.errors import WireError
from bridge_link.report import plain, severity_of
from guardian_link.mapping import TYPE_OF_CONSTRAINT
from guardian_link.messages import MAX_MESSAGE_CHARS, Alert, BadAlert

Issue = Alert | Mapping[str, Any]
"""An alert, or any of the dictionaries ``Alert.from_mapping`` understands, of whatever Python values."""

_FACTS: Final = ("type", "constraint_type", "severity", "message", "description", "service", "service_name", "id")


_TEXTS: Final = ("message", "error_message", "source", "dedup_key", "error_id")
"""Whatever these are given as, they are for people, or a key: its text will do."""


def as_alert(issue: Issue) -> Alert:
    """An alert is taken as it is. A dictionary's values are made such as can be sent, where they are not: dates, enums
    and exceptions become text, tuples and sets lists; what is too long is cut, and ends in ``...``; a program's own
    word for a severity becomes ours.

    Raises:
        BadAlert: naming the field.
    """
    if isinstance(issue, Alert):
        return issue
    if not isinstance(issue, Mapping):
        raise BadAlert("alert", "is no mapping")
    try:
        alert = Alert.from_mapping(issue)
        body = alert.to_body()
        check(body)
        pack_msgpack(body)
    except (BadAlert, WireError):
        return Alert.from_mapping(_sendable(issue))
    return alert


def _sendable(issue: Mapping[str, Any]) -> dict[str, Any]:
    """Never what may be a name, or none: a ``type`` that is no text stays so, and is refused."""
    made = plain(issue, message_chars=MAX_MESSAGE_CHARS)
    for name in _TEXTS:
        if made.get(name) is not None and not isinstance(made[name], str):
            made[name] = plain({name: str(made[name])})[name]
    if (severity := severity_of(issue.get("severity"))) is not None:
        made["severity"] = severity
    return {key: value for key, value in made.items() if value is not None}


def recovery_alert(error_id: str, error_data: Issue) -> Alert:
    """``error_id`` is the trouble's key, never the message's id. Raises BadAlert."""
    if isinstance(error_data, Alert):
        return replace(error_data, dedup_key=error_id)
    if not isinstance(error_data, Mapping):
        raise BadAlert("error_data", "is no mapping")
    return as_alert({**error_data, "error_id": error_id})


def constraint_alert(violation: object) -> dict[str, Any]:
    """A violated constraint (a mapping, or an object with such attributes) as an alert's dictionary. A type that is not
    in the table stays itself.
    """
    given = violation if isinstance(violation, Mapping) else _attributes(violation)
    facts = {key: _bare(value) for key, value in given.items()}  # the platform's own enums
    kind = str(facts.pop("constraint_type", None) or facts.pop("type", None) or "")
    description, key = facts.pop("description", None), facts.pop("id", None)
    alert: dict[str, Any] = {"type": TYPE_OF_CONSTRAINT.get(kind, kind), "constraint_type": kind, **facts}
    if description is not None:
        alert.setdefault("message", str(description))
    if key is not None:
        alert["error_id"] = str(key)
    return alert


def _bare(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name
    return getattr(value, "value", value)


def _attributes(violation: object) -> dict[str, Any]:
    return {name: getattr(violation, name) for name in _FACTS if getattr(violation, name, None) is not None}
