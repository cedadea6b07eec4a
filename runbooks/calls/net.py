"""Calls over the network: HTTP requests, and looks at ports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, as_result, yes_no
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType, Trouble
from runbooks.ports import HttpAnswer
from runbooks.predicates import MISSING, pointed

KEY: Final = "Idempotency-Key"
"""By it a server knows a repeated request again (draft-ietf-httpapi-idempotency-key-header)."""
MAX_SAID_CHARS: Final = 4096
_MUTATING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def _http(call: Call, context: Context) -> CallOutcome:
    given = call.arguments
    method, headers = given.get("method", "POST"), dict(given.get("headers", {}))
    if method in _MUTATING and context.of is not None and not any(name.lower() == KEY.lower() for name in headers):
        headers[KEY] = f"{context.token}.{context.of.step}"  # one for all attempts of the step
    answer = context.ports.http.request(method, given["url"], call.timeout_s, headers, given.get("body"))
    said = f"HTTP {answer.status} {answer.body[:MAX_SAID_CHARS]}".strip()
    if not _is_expected(answer, given):
        return CallOutcome(ok=False, error=said, trouble=Trouble.REFUSED)
    return CallOutcome(ok=True, output=said, result=as_result(answer.body))


def _is_expected(answer: HttpAnswer, given: Mapping[str, Any]) -> bool:
    return answer.status in given["expect"] if "expect" in given else 200 <= answer.status < 300


def _tcp(call: Call, context: Context) -> CheckOutcome:
    host, port = call.arguments.get("host", "127.0.0.1"), int(call.arguments["port"])
    accepts = context.ports.tcp.connects(host, port, call.timeout_s)
    return yes_no(accepts, f"tcp {host}:{port} {'accepts' if accepts else 'refuses'}")


def _http_ok(call: Call, context: Context) -> CheckOutcome:
    """404 and 410 are a no; other unexpected answers say nothing about what is asked. ``value`` points to what of the
    JSON answer is seen: without it nobody can tell.
    """
    url = call.arguments["url"]
    answer = context.ports.http.request("GET", url, call.timeout_s, {})
    if _is_expected(answer, call.arguments):
        return _seen(call, answer)
    is_no = answer.status in (404, 410)
    return CheckOutcome(Answer.NO if is_no else Answer.UNKNOWN, f"{url}: HTTP {answer.status}")


def _seen(call: Call, answer: HttpAnswer) -> CheckOutcome:
    if "value" not in call.arguments:
        return CheckOutcome(Answer.YES, f"HTTP {answer.status}")
    try:
        value = pointed(json.loads(answer.body), call.arguments["value"])
    except ValueError:
        value = MISSING
    if value is MISSING:
        return CheckOutcome(Answer.UNKNOWN, f"{call.arguments['url']}: nothing at {call.arguments['value']}")
    return CheckOutcome(Answer.YES, f"HTTP {answer.status}", value)


FAMILY: Final = Family(
    acts={CallType.HTTP_REQUEST: _http},
    looks={CallType.TCP_CONNECT: _tcp, CallType.HTTP_OK: _http_ok},
)
