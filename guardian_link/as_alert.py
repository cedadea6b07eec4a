"""Whatever the platform hands over for recovery, as an alert. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from guardian_link.mapping import TYPE_OF_CONSTRAINT
from guardian_link.messages import Alert

Issue = Alert | Mapping[str, Any]
"""An alert, or any of the dictionaries ``Alert.from_mapping`` understands."""

_FACTS: Final = ("type", "constraint_type", "severity", "message", "description", "service", "service_name", "id")


def as_alert(issue: Issue) -> Alert:
    """Raises BadAlert, naming the field."""
    return issue if isinstance(issue, Alert) else Alert.from_mapping(issue)


def recovery_alert(error_id: str, error_data: Issue) -> Alert:
    """``error_id`` is the trouble's key, never the message's id. Raises BadAlert."""
    if isinstance(error_data, Alert):
        return replace(error_data, dedup_key=error_id)
    return as_alert({**error_data, "error_id": error_id})


def constraint_alert(violation: object) -> dict[str, Any]:
    """A violated constraint (a mapping, or an object with such attributes) as an alert's dictionary. A type that is not
    in the table stays itself.
    """
    given = violation if isinstance(violation, Mapping) else _attributes(violation)
    facts = {key: getattr(value, "value", value) for key, value in given.items()}  # the platform's own enums
    kind = str(facts.pop("constraint_type", None) or facts.pop("type", None) or "")
    description, key = facts.pop("description", None), facts.pop("id", None)
    alert: dict[str, Any] = {"type": TYPE_OF_CONSTRAINT.get(kind, kind), "constraint_type": kind, **facts}
    if description is not None:
        alert.setdefault("message", str(description))
    if key is not None:
        alert["error_id"] = str(key)
    return alert


def _attributes(violation: object) -> dict[str, Any]:
    return {name: getattr(violation, name) for name in _FACTS if getattr(violation, name, None) is not None}
