"""``POST /alerts/alertmanager``: Alertmanager's webhook. Handlers run on the event loop and wait for the commit there.

Alertmanager sends again what is answered with 5xx, and drops (until the group's next notification, if there is one)
what is answered with 4xx. So 4xx is for what it never sends by itself, and whatever may pass is a 503.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import structlog
from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect

from actors.alertmanager import Taken
from actors.journal.schema import JournalTrouble
from guardian_link.alertmanager import Notified
from supervisors.api.failures import failure
from supervisors.manager import SCHEMA

PATHS: Final = ("/alerts/alertmanager", "/v1/alerts/alertmanager")
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
AT_ONCE: Final = 16
"""Notifications read and written at the same time: bounds memory to so many bodies."""
READ_WITHIN_S: Final = 10.0
COMMIT_WITHIN_S: Final = 10.0
RETRY_AFTER_S: Final = 5
PROBLEMS_SHOWN: Final = 5


class WebhookAlert(BaseModel):
    """One alert of the group. ``endsAt`` counts when it is resolved."""

    model_config = ConfigDict(frozen=True)
    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(min_length=1, max_length=256)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=256)
    startsAt: AwareDatetime  # noqa: N815  Alertmanager's own word
    endsAt: AwareDatetime | None = None  # noqa: N815
    generatorURL: str = ""  # noqa: N815
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{1,32}$")]


class Webhook(BaseModel):
    """Alertmanager's webhook payload, version 4. What is not named here is ignored."""

    model_config = ConfigDict(frozen=True)
    version: Literal["4"]
    groupKey: str = ""  # noqa: N815
    receiver: str = ""
    status: Literal["firing", "resolved"] | None = None
    externalURL: str = ""  # noqa: N815
    truncatedAlerts: int = Field(0, ge=0)  # noqa: N815
    alerts: tuple[WebhookAlert, ...] = Field(max_length=10_000)


class Kept(BaseModel):
    """What came of one alert: ``stored``, ``duplicate``, ``resolved``, or ``over``: resolved, and none fired here; or a
    firing that had ended before it was told.
    """

    id: str
    fingerprint: str
    status: str


class Answer(BaseModel):
    """All of it is on disk. ``truncated``: so many alerts of the group Alertmanager left out (its ``max_alerts``)."""

    model_config = ConfigDict(populate_by_name=True)
    version: int = Field(alias="schema")
    truncated: int
    alerts: list[Kept]


class Inbox(Protocol):
    def take(self, notified: Sequence[Notified]) -> Future[tuple[Taken, ...]]:
        """All or nothing; the future completes after the commit, or fails with JournalTrouble."""


@dataclass(frozen=True)
class Door:
    """``token`` gives what ``Authorization: Bearer`` must hold, None: nothing is asked for; it raises OSError or
    ValueError when it should be there and is not.
    """

    inbox: Inbox
    token: Callable[[], str | None] = lambda: None


class _Refused(Exception):
    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind


def alertmanager_router(door: Door) -> APIRouter:
    routes = APIRouter(tags=["recovery"])
    room = asyncio.Semaphore(AT_ONCE)

    async def take(request: Request) -> JSONResponse:
        """Takes all alerts of the notification into the inbox. 200 only when all are on disk; 503: send it again."""
        if room.locked():
            return _later(f"{AT_ONCE} notifications are being taken already")
        async with room:
            try:
                _admit(request, door)
                webhook = await _read(request)
                taken = await _keep(door.inbox, webhook)
            except _Refused as refused:
                return _refusal(refused)
            except JournalTrouble as trouble:
                return _later(f"the alerts could not be kept: {trouble}")
            except TimeoutError:
                return _later(f"the alerts were not on disk within {COMMIT_WITHIN_S:g} s")
        return JSONResponse(_answer(webhook, taken))

    for path in PATHS:
        routes.add_api_route(
            path, take, methods=["POST"], response_model=Answer, responses=_RESPONSES, openapi_extra=_request_shown()
        )
    return routes


def _request_shown() -> dict[str, Any]:
    """The body in OpenAPI: the route reads it by itself, so the framework does not know it."""
    schema = Webhook.model_json_schema()
    schema["properties"]["alerts"]["items"] = schema.pop("$defs")["WebhookAlert"]
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "no JSON"},
    401: {"description": "the token is missing or wrong"},
    408: {"description": "the body came too slowly"},
    413: {"description": f"more than {MAX_BODY_BYTES} bytes"},
    415: {"description": "no application/json"},
    422: {"description": "no webhook payload of version 4: which field, and why"},
    503: {"description": "nothing was kept; send it again after Retry-After seconds"},
}


def _admit(request: Request, door: Door) -> None:
    """Raises _Refused."""
    try:
        token = door.token()
    except (OSError, ValueError) as error:
        raise _Refused(503, "no_token", f"the daemon cannot read its own token: {error}") from error
    given = request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        text = "the bearer token is missing or wrong; see http_config.authorization in Alertmanager's file"
        raise _Refused(401, "unauthorized", text)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(415, "bad_request", f"the content type is {kind!r}, not application/json")
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise _Refused(415, "bad_request", f"the content encoding is {coding!r}; only plain bodies are taken")


async def _read(request: Request) -> Webhook:
    """Raises _Refused."""
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            body = await _body(request)
    except ClientDisconnect:
        raise _Refused(400, "bad_request", "the body ended before its end") from None
    except TimeoutError:
        raise _Refused(408, "bad_request", f"the body did not come within {READ_WITHIN_S:g} s") from None
    try:
        return await to_thread.run_sync(Webhook.model_validate_json, body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        is_json = all(one["type"] != "json_invalid" for one in problems)
        raise _Refused(422 if is_json else 400, "bad_request", _said(problems)) from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            text = f"the body has more than {MAX_BODY_BYTES} bytes; let Alertmanager group by more labels (group_by)"
            raise _Refused(413, "too_large", text)
    return bytes(body)


def _said(problems: Sequence[Any]) -> str:
    texts = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in problems[:PROBLEMS_SHOWN]]
    more = len(problems) - len(texts)
    return "; ".join([*texts, *([f"and {more} more"] if more > 0 else [])])


async def _keep(inbox: Inbox, webhook: Webhook) -> tuple[Taken, ...]:
    """Raises JournalTrouble, TimeoutError; what is written after that is known when it comes again."""
    notified = [_notified(one) for one in webhook.alerts]
    future = await to_thread.run_sync(inbox.take, notified)
    return await asyncio.wait_for(asyncio.wrap_future(future), COMMIT_WITHIN_S)


def _notified(alert: WebhookAlert) -> Notified:
    starts_at = alert.startsAt.timestamp()
    ends_at = None
    if alert.status == "resolved":
        ends_at = starts_at if alert.endsAt is None else max(starts_at, alert.endsAt.timestamp())
    return Notified(alert.fingerprint, starts_at, ends_at, alert.labels, alert.annotations, alert.generatorURL)


def _answer(webhook: Webhook, taken: Sequence[Taken]) -> dict[str, Any]:
    if webhook.truncatedAlerts:
        structlog.get_logger().warning(
            "alertmanager left alerts out", truncated=webhook.truncatedAlerts, group=webhook.groupKey
        )
    alerts = [{"id": one.id, "fingerprint": one.fingerprint, "status": one.status} for one in taken]
    return {"schema": SCHEMA, "truncated": webhook.truncatedAlerts, "alerts": alerts}


def _later(text: str) -> JSONResponse:
    answer = failure(503, "busy", text, "send it again")
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def _refusal(refused: _Refused) -> JSONResponse:
    structlog.get_logger().warning("notification of alertmanager refused", status=refused.status, problem=str(refused))
    if refused.status == 503:
        return _later(str(refused))
    answer = failure(refused.status, refused.kind, str(refused))
    if refused.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if refused.status in (408, 413):
        answer.headers["Connection"] = "close"  # the rest of the body is not waited for
    return answer
