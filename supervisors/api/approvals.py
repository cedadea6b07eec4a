"""The routes of approval: what waits for people, and their votes. Handlers run in the thread pool and may block."""

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


def approvals_router(manager: Manager, tokens: Tokens) -> APIRouter:
    routes = APIRouter(prefix="/v1/approvals", tags=["recovery"])

    @routes.get("")
    def approvals() -> dict[str, Any]:
        """What awaits approval, oldest first."""
        return {"schema": SCHEMA, "approvals": manager.approvals()}

    @routes.post("/{execution_id}/approve")
    def approve(request: Request, execution_id: str, order: VoteOrder) -> dict[str, Any]:
        by = operator_of(request, tokens)
        return {"schema": SCHEMA, **manager.approve(execution_id, by=by, plan=order.plan, why=order.why)}

    @routes.post("/{execution_id}/reject")
    def reject(request: Request, execution_id: str, order: VoteOrder) -> dict[str, Any]:
        by = operator_of(request, tokens)
        return {"schema": SCHEMA, **manager.reject(execution_id, by=by, plan=order.plan, why=order.why)}

    return routes
