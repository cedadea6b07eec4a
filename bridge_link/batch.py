"""Many alerts in one message: ``{"alerts": {ID: ALERT, ...}}``. Pure; specified in docs/wire.md.

Each alert keeps an id of its own: sent again in another message, or alone, it is the same alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from bridge_link.bodies import MAX_BODY_BYTES
from bridge_link.errors import WireError
from bridge_link.wire import Kind, Message, is_id, new_id

MOST_ALERTS: Final = 64
_ROOM_BYTES: Final = MAX_BODY_BYTES * 3 // 4
"""What a batch is filled up to; larger alerts go alone."""


def alerts_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The alerts of a message, by id; what each of them is worth is judged one by one.

    Raises:
        WireError: malformed.
    """
    alerts = body.get("alerts")
    if not isinstance(alerts, dict) or not 0 < len(alerts) <= MOST_ALERTS:
        raise WireError("malformed", f"alerts is no map of 1 to {MOST_ALERTS} alerts by their ids")
    for message_id in alerts:
        if not is_id(message_id):
            raise WireError("malformed", f"{message_id[:80]!r} is no message id: 8 to 64 of A-Z a-z 0-9 . _ : -")
    return alerts


def batch_of(alerts: Mapping[str, Mapping[str, Any]]) -> Message:
    return Message(Kind.ALERTS, new_id(), {"alerts": alerts})


def parts(alerts: Iterable[tuple[str, Mapping[str, Any], int]]) -> Iterator[dict[str, Mapping[str, Any]]]:
    """(id, body, size in bytes) in groups that each go into one message."""
    group: dict[str, Mapping[str, Any]] = {}
    used = 0
    for message_id, body, size in alerts:
        if group and (len(group) >= MOST_ALERTS or used + size > _ROOM_BYTES or message_id in group):
            yield group
            group, used = {}, 0
        group[message_id] = body
        used += size
    if group:
        yield group
