"""Calls of functions that other packages register (entry point group ``selfheal.functions``)."""

from __future__ import annotations

from typing import Any, Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import PortError

_ANSWERS: Final = {True: Answer.YES, False: Answer.NO, None: Answer.UNKNOWN}


def _result(call: Call, context: Context) -> Any:
    functions = context.ports.functions
    if functions is None:
        raise PortError("there are no functions here; nothing was called")
    given = call.arguments
    return functions.call(given["name"], given.get("parameters", {}), call.timeout_s, context.token)


def _function(call: Call, context: Context) -> CallOutcome:
    return CallOutcome(ok=True, output=f"{call.arguments['name']}: done", result=_result(call, context))


def _ok(call: Call, context: Context) -> CheckOutcome:
    """``true``, ``false``, ``null`` (cannot tell), or ``{"ok": one of them, "detail": text}``."""
    result = _result(call, context)
    said, detail = (result.get("ok"), result.get("detail", "")) if isinstance(result, dict) else (result, "")
    if said is not None and not isinstance(said, bool):
        raise PortError(f"function {call.arguments['name']!r} answered neither true, false nor null")
    return CheckOutcome(_ANSWERS[said], str(detail))


FAMILY: Final = Family(acts={CallType.CUSTOM_FUNCTION: _function}, looks={CallType.CUSTOM_OK: _ok})
