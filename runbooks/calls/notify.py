"""Notices to people: delivered at least once, each with a key by which a repeated one is known."""

from __future__ import annotations

from typing import Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, yes_no
from runbooks.model import Call, CallType
from runbooks.ports import Notice, Notices, PortError

DEFAULT_CHANNEL: Final = "default"


def _notices(context: Context) -> Notices:
    if context.ports.notices is None:
        raise PortError("nobody can be notified here")
    return context.ports.notices


def _key(context: Context) -> str:
    """The same for every attempt of a step."""
    return context.token if context.of is None else f"{context.token}.{context.of.step}"


def _channel(call: Call) -> str:
    return str(call.arguments.get("channel", DEFAULT_CHANNEL))


def _notify(call: Call, context: Context) -> CallOutcome:
    given = call.arguments
    notice = Notice(_key(context), str(given["message"]), str(given.get("severity", "high")), context.token)
    return CallOutcome(ok=True, output=_notices(context).send(_channel(call), notice, call.timeout_s))


def _notified(call: Call, context: Context) -> CheckOutcome:
    is_sent = _notices(context).was_sent(_channel(call), _key(context))
    return yes_no(is_sent, f"notice {_key(context)} is {'' if is_sent else 'not '}recorded as delivered")


FAMILY: Final = Family(acts={CallType.NOTIFY: _notify}, looks={CallType.NOTIFIED: _notified})
