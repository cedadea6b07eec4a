"""What goes wrong, as JSON: ``{"error", "kind", "suggestion"}`` and the matching HTTP status, for every error alike."""

from __future__ import annotations

from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisors.manager import (
    BadConfig,
    CommandFailed,
    DaemonUnreachable,
    ManagerError,
    NotAllowed,
    TimedOut,
    UnknownNode,
)

STATUS: Final[dict[type[ManagerError], int]] = {
    UnknownNode: 404,
    BadConfig: 422,
    CommandFailed: 409,
    NotAllowed: 403,
    TimedOut: 504,
    DaemonUnreachable: 503,
}
KINDS: Final[dict[type[ManagerError], str]] = {
    UnknownNode: "unknown_node",
    BadConfig: "bad_config",
    CommandFailed: "command_failed",
    NotAllowed: "not_allowed",
    TimedOut: "timed_out",
    DaemonUnreachable: "unreachable",
}


def failure(status: int, kind: str, error: str, suggestion: str | None = None, **more: Any) -> JSONResponse:
    return JSONResponse({"error": error, "kind": kind, "suggestion": suggestion, **more}, status_code=status)


def answer_failures(app: FastAPI) -> None:
    """Give every kind of error its answer."""

    @app.exception_handler(ManagerError)
    def _manager(_request: Request, error: ManagerError) -> JSONResponse:
        status, kind = STATUS.get(type(error), 409), KINDS.get(type(error), "command_failed")
        if isinstance(error, UnknownNode):
            return failure(status, kind, str(error), error.suggestion, name=error.name, what=error.what)
        if isinstance(error, BadConfig):
            return failure(status, kind, str(error), problems=list(error.problems))
        return failure(status, kind, str(error))

    @app.exception_handler(RequestValidationError)
    def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return failure(422, "bad_request", problems)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        text = str(error.detail)
        if error.status_code == 404:
            text = f"there is no {request.url.path}; see /docs for what there is"
        return failure(error.status_code, "bad_request", text)


class AnswerOurFaults:
    """ASGI middleware: an exception nobody expected becomes a 500 in JSON and a line in the log.

    The framework's own way raises it on, which makes the server drop the connection under the client's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if scope["type"] != "http" or has_begun:
                raise
            structlog.get_logger().error("request failed", path=scope["path"], exc_info=True)
            text = f"internal error, see the daemon's log: {type(error).__name__}: {error}"
            await failure(500, "internal", text)(scope, receive, send)
