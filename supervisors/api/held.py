"""The routes of silences and latches: ``/v1/silences``, ``/v1/latches``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from supervisors.api.services import By, Why
from supervisors.manager import SCHEMA, Manager

MOST_S = 366 * 86400.0


class SilenceOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    matchers: list[str] = Field(min_length=1, max_length=50)
    for_s: float = Field(gt=0, le=MOST_S)
    by: str = Field("http", max_length=200)
    why: str = Field("", max_length=500)


class ReleaseOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    target: str = Field(max_length=500)
    by: str = Field("http", max_length=200)
    why: str = Field(min_length=1, max_length=500)


def held_router(manager: Manager) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["recovery"])

    @routes.get("/silences")
    def silences() -> dict[str, Any]:
        return {"schema": SCHEMA, "silences": manager.silences()}

    @routes.post("/silences", status_code=201)
    def add(order: SilenceOrder) -> dict[str, Any]:
        made = manager.add_silence(order.matchers, order.for_s, by=order.by, why=order.why)
        return {"schema": SCHEMA, "silences": [made]}

    @routes.delete("/silences/{silence_id:path}")
    def end(silence_id: str, by: By = "http", why: Why = "") -> dict[str, Any]:
        return {"schema": SCHEMA, "silences": [manager.end_silence(silence_id, by=by, why=why)]}

    @routes.get("/latches")
    def latches() -> dict[str, Any]:
        return {"schema": SCHEMA, "latches": manager.latches()}

    @routes.post("/latches/release")
    def release(order: ReleaseOrder) -> dict[str, Any]:
        return {"schema": SCHEMA, "latches": [manager.release(order.target, by=order.by, why=order.why)]}

    return routes
