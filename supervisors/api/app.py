"""The HTTP application on a manager. Builds routes only: no socket, no thread (see ``supervisors.api.server``)."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from supervisors.api.alertmanager import Door, alertmanager_router
from supervisors.api.approvals import approvals_router
from supervisors.api.failures import AnswerOurFaults, answer_failures
from supervisors.api.guard import LoopbackOnly
from supervisors.api.held import held_router
from supervisors.api.identity import KnowsWhoAsks, Tokens
from supervisors.api.logs import logs_router
from supervisors.api.patience import AnswersWhenOpen
from supervisors.api.reload import reload_router
from supervisors.api.services import services_router
from supervisors.api.v1 import v1_router
from supervisors.manager import SCHEMA, Manager
from supervisors.tree_json import walk
from supervisors.wellness import daemon_status, is_bad

REQUESTS_AT_ONCE: Final = 100
"""Threads for handlers: a command that waits holds one."""


def create_app(
    manager: Manager,
    is_open: threading.Event | None = None,
    alertmanager: Door | None = None,
    tokens: Tokens = dict,
) -> FastAPI:
    """The application. ``app.state.closing`` is set by the server to end streams and long waits.

    Args:
        is_open: until it is set requests wait; None: they are answered at once.
        alertmanager: where its notifications go; None: there is no route for them.
        tokens: those of operators, by name.
    """
    app = FastAPI(
        title="Selfheal",
        description="One supervision tree: its services, alerts and recoveries.",
        version=manager.info()["version"],
        lifespan=_lifespan,
    )
    app.state.closing = threading.Event()
    app.add_middleware(AnswerOurFaults)
    if is_open is not None:
        app.add_middleware(AnswersWhenOpen, is_open=is_open)
    app.add_middleware(KnowsWhoAsks, tokens=tokens)
    app.add_middleware(LoopbackOnly)
    answer_failures(app)

    @app.get("/healthz", tags=["daemon"])
    def healthz() -> JSONResponse:
        """``healthy``, ``degraded`` (a service or bridge is down) or ``unhealthy`` (503: the daemon itself is)."""
        return _health(manager)

    if alertmanager is not None:
        app.include_router(alertmanager_router(alertmanager))
    app.include_router(services_router(manager))
    app.include_router(v1_router(manager))
    app.include_router(held_router(manager))
    app.include_router(reload_router(manager))
    app.include_router(approvals_router(manager, tokens))
    app.include_router(logs_router(manager))
    return app


def _health(manager: Manager) -> JSONResponse:
    tree = manager.tree()
    status = daemon_status(tree)
    down = [node["name"] for node in walk(tree["root"]) if is_bad(node)]
    body: dict[str, Any] = {"schema": SCHEMA, "status": status, "down": down, **manager.info()}
    return JSONResponse(body, status_code=503 if status == "unhealthy" else 200)


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = REQUESTS_AT_ONCE
    yield
