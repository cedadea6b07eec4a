"""The routes of reload by plan: what the file would change, and changing it. Handlers run in the thread pool."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from supervisors.api.services import LONGEST_WAIT_S, edited
from supervisors.manager import DEFAULT_TIMEOUT_S, Manager


class PlanOrder(BaseModel):
    """``config`` null is the file the daemon was started with."""

    model_config = ConfigDict(extra="forbid")
    config: str | None = Field(None, max_length=4096)


class ApplyOrder(PlanOrder):
    by: str = Field("http", max_length=200)
    plan: str | None = Field(None, max_length=64, description="only if the plan is still this one")
    timeout_s: float = Field(DEFAULT_TIMEOUT_S, gt=0, le=LONGEST_WAIT_S)


def reload_router(manager: Manager) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["reload"])

    @routes.get("/plan")
    def plan() -> dict[str, Any]:
        """What the daemon's own file would change."""
        return dict(manager.plan())

    @routes.post("/plan")
    def plan_of(order: PlanOrder) -> dict[str, Any]:
        """What a file would change."""
        return dict(manager.plan(order.config))

    @routes.post("/apply")
    def apply(order: ApplyOrder) -> JSONResponse:
        return edited(manager.apply(order.config, by=order.by, plan=order.plan, timeout_s=order.timeout_s))

    return routes
