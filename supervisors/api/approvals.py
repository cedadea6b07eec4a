"""The routes of runbooks and approval: what is used, what waits for people, their votes. Handlers may block."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from supervisors.api.identity import Tokens, operator_of
from supervisors.manager import SCHEMA, Manager


class VoteOrder(BaseModel):
    """``plan``: the hash of the plan that was seen, or its first 12 letters and more. Who votes is never said here."""

    model_config = ConfigDict(extra="forbid")
    plan: str | None = Field(None, pattern="^[0-9a-f]{12,64}$")
    why: str = Field("", max_length=500)


class RunOrder(BaseModel):
    """Values by parameter, as text. Who asks is never said here."""

    model_config = ConfigDict(extra="forbid")
    values: dict[str, str] = Field(default_factory=dict, max_length=100)
    why: str = Field("", max_length=500)


def approvals_router(manager: Manager, tokens: Tokens) -> APIRouter:
    routes = APIRouter(tags=["recovery"])

    @routes.get("/v1/approvals")
    def approvals() -> dict[str, Any]:
        """What awaits approval, oldest first."""
        return {"schema": SCHEMA, "approvals": manager.approvals()}

    @routes.post("/v1/approvals/{execution_id}/approve")
    def approve(request: Request, execution_id: str, order: VoteOrder) -> dict[str, Any]:
        by = operator_of(request, tokens)
        return {"schema": SCHEMA, **manager.approve(execution_id, by=by, plan=order.plan, why=order.why)}

    @routes.post("/v1/approvals/{execution_id}/reject")
    def reject(request: Request, execution_id: str, order: VoteOrder) -> dict[str, Any]:
        by = operator_of(request, tokens)
        return {"schema": SCHEMA, **manager.reject(execution_id, by=by, plan=order.plan, why=order.why)}

    @routes.get("/v1/runbooks")
    def runbooks() -> dict[str, Any]:
        """Those in use now, and what is wrong with files."""
        return {"schema": SCHEMA, **manager.runbooks()}

    @routes.post("/v1/runbooks/{runbook_id}/run")
    def run(request: Request, runbook_id: str, order: RunOrder) -> dict[str, Any]:
        """Ask for a run, as an alert would."""
        by = operator_of(request, tokens)
        return {"schema": SCHEMA, **manager.run_runbook(runbook_id, order.values, by=by, why=order.why)}

    return routes
