"""Looks at the alert a run answers: whether its condition is gone."""

from __future__ import annotations

from typing import Any, Final

from runbooks.border import seconds
from runbooks.calls.family import CheckOutcome, Context, Family
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import PortError

QUIET_S: Final = 30.0
"""An alert of a kind that is never said to be over goes on for so long after it was sent last."""


def _cleared(call: Call, context: Context) -> CheckOutcome:
    alerts = context.ports.alerts
    if alerts is None:
        raise PortError("there are no records of alerts here: whether one is over cannot be told")
    going_on = alerts.going_on(context.token, _quiet_s(call.arguments.get("quiet_for", QUIET_S)))
    return CheckOutcome(Answer.NO, going_on) if going_on else CheckOutcome(Answer.YES, "the alert is over")


def _quiet_s(given: Any) -> float:
    try:
        return seconds(given)
    except ValueError as bad:
        raise PortError(f"quiet_for: {bad}") from bad


FAMILY: Final = Family(looks={CallType.ALERT_CLEARED: _cleared})
