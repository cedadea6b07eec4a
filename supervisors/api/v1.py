"""The routes of the command line and of dashboards: ``/v1/...``. The shapes are those of the ``--json`` outputs."""

from __future__ import annotations

import re
import threading
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from actors.board import NodeState
from supervisors.api.services import By, Timeout
from supervisors.manager import SCHEMA, CommandFailed, Manager, Node, TimedOut

WAIT_SLICE_S = 1.0
"""A long wait is cut into pieces, so that a server that closes need not wait for it."""

Limit = Annotated[int, Query(ge=1, le=10_000)]


class RecoveryOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    enabled: bool
    by: str = Field("http", max_length=200)
    why: str = Field("", max_length=500)


class CancelOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    by: str = Field("http", max_length=200)
    why: str = Field("", max_length=500)


def v1_router(manager: Manager) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.get("/tree", tags=["looking"])
    def tree() -> dict[str, Any]:
        return dict(manager.tree())

    @routes.get("/services", tags=["looking"])
    def services() -> dict[str, Any]:
        return {"schema": SCHEMA, "services": manager.services()}

    @routes.get("/info", tags=["daemon"])
    def info() -> dict[str, Any]:
        return {"schema": SCHEMA, **manager.info()}

    @routes.get("/why/{node:path}", tags=["looking"])
    def why(node: str, limit: Limit = 20) -> dict[str, Any]:
        return {"schema": SCHEMA, "transitions": manager.why(node, limit)}

    @routes.get("/wait/{node:path}", tags=["looking"])
    def wait(
        request: Request,
        node: str,
        state: Annotated[NodeState, Query(description="the state to wait for")] = NodeState.READY,
        timeout_s: Timeout = 30.0,
    ) -> dict[str, Any]:
        reached = _wait_in_slices(manager, node, state.value, timeout_s, request.app.state.closing)
        return {"schema": SCHEMA, "node": reached}

    @routes.post("/stop", tags=["daemon"], status_code=202)
    def stop(
        by: By = "http",
        keep_services: Annotated[bool, Query(description="leave all running for the next daemon")] = False,
    ) -> dict[str, Any]:
        manager.shutdown(keep_services=keep_services, by=by)
        return {"schema": SCHEMA, "stopping": True, "pid": manager.info()["pid"]}

    _add_recovery(routes, manager)
    return routes


def _add_recovery(routes: APIRouter, manager: Manager) -> None:
    @routes.get("/alerts", tags=["recovery"])
    def alerts(limit: Limit = 50) -> dict[str, Any]:
        return {"schema": SCHEMA, "alerts": manager.alerts(limit)}

    @routes.get("/executions", tags=["recovery"])
    def executions(limit: Limit = 50) -> dict[str, Any]:
        return {"schema": SCHEMA, "executions": manager.executions(limit)}

    @routes.get("/executions/{execution_id}", tags=["recovery"])
    def execution(execution_id: str) -> dict[str, Any]:
        return {"schema": SCHEMA, "executions": [manager.execution(execution_id)]}

    @routes.post("/executions/{execution_id}/cancel", tags=["recovery"])
    def cancel(execution_id: str, order: CancelOrder) -> dict[str, Any]:
        return {"schema": SCHEMA, "executions": [manager.cancel(execution_id, by=order.by, why=order.why)]}

    @routes.get("/recovery", tags=["recovery"])
    def recovery() -> dict[str, Any]:
        return {"schema": SCHEMA, **manager.recovery_status()}

    @routes.post("/recovery", tags=["recovery"])
    def switch(order: RecoveryOrder) -> dict[str, Any]:
        return {"schema": SCHEMA, **manager.set_recovery(order.enabled, by=order.by, why=order.why)}

    @routes.get("/statistics", tags=["recovery"])
    def statistics() -> dict[str, Any]:
        return {"schema": SCHEMA, **manager.statistics()}


def _wait_in_slices(manager: Manager, node: str, state: str, timeout_s: float, closing: threading.Event) -> Node:
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        try:
            return manager.wait_for(node, state, timeout_s=max(0.0, min(left_s, WAIT_SLICE_S)))
        except TimedOut as late:
            if closing.is_set():
                raise CommandFailed("the daemon is ending") from late
            if left_s <= WAIT_SLICE_S:
                raise TimedOut(_with_full_time(str(late), timeout_s)) from late


def _with_full_time(text: str, timeout_s: float) -> str:
    """The owner only knew of the last slice."""
    return re.sub(r"within \S+ s\b", f"within {timeout_s:g} s", text, count=1)
