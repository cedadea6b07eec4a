"""The routes of the platform's service manager: ``/services/...``. Handlers run in the thread pool and may block."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from supervisors.manager import DEFAULT_TIMEOUT_S, SCHEMA, Applied, Manager, Node, Result

LONGEST_WAIT_S = 3600.0

By = Annotated[str, Query(max_length=200, description="who asks, for the record")]
Why = Annotated[str, Query(max_length=500, description="why, for the record")]
Wait = Annotated[bool, Query(description="answer only when it is done")]
Timeout = Annotated[float, Query(gt=0, le=LONGEST_WAIT_S, description="seconds to wait for it")]


class ScaleOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    replicas: int | None
    by: str = Field("http", max_length=200)
    why: str = Field("", max_length=500)
    timeout_s: float = Field(DEFAULT_TIMEOUT_S, gt=0, le=LONGEST_WAIT_S)


def services_router(manager: Manager) -> APIRouter:
    routes = APIRouter(prefix="/services", tags=["services"])

    @routes.get("/status")
    def status() -> dict[str, Any]:
        return {"schema": SCHEMA, "services": manager.services()}

    @routes.post("/start-all")
    def start_all(by: By = "http", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S) -> JSONResponse:
        return _results(manager.start_all(by=by, wait=wait, timeout_s=timeout_s))

    @routes.post("/stop-all")
    def stop_all(
        by: By = "http", why: Why = "", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S
    ) -> JSONResponse:
        return _results(manager.stop_all(by=by, why=why, wait=wait, timeout_s=timeout_s))

    @routes.post("/restart-all")
    def restart_all(by: By = "http", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S) -> JSONResponse:
        return _results(manager.restart_all(by=by, wait=wait, timeout_s=timeout_s))

    @routes.post("/{name:path}/start")
    def start(name: str, by: By = "http", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        return _service(manager.start(name, by=by, wait=wait, timeout_s=timeout_s))

    @routes.post("/{name:path}/stop")
    def stop(
        name: str, by: By = "http", why: Why = "", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S
    ) -> dict[str, Any]:
        return _service(manager.stop(name, by=by, why=why, wait=wait, timeout_s=timeout_s))

    @routes.post("/{name:path}/pause")
    def pause(
        name: str, by: By = "http", why: Why = "", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S
    ) -> dict[str, Any]:
        return _service(manager.pause(name, by=by, why=why, wait=wait, timeout_s=timeout_s))

    @routes.post("/{name:path}/resume")
    def resume(name: str, by: By = "http", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        return _service(manager.resume(name, by=by, wait=wait, timeout_s=timeout_s))

    @routes.post("/{name:path}/restart")
    def restart(
        name: str, by: By = "http", wait: Wait = True, timeout_s: Timeout = DEFAULT_TIMEOUT_S
    ) -> dict[str, Any]:
        return _service(manager.restart(name, by=by, wait=wait, timeout_s=timeout_s))

    @routes.post("/{name:path}/scale")
    def scale(name: str, order: ScaleOrder) -> JSONResponse:
        """``replicas`` null: as many as the file says."""
        made = manager.scale(name, order.replicas, by=order.by, why=order.why, timeout_s=order.timeout_s)
        return edited(made)

    return routes


def edited(made: Applied) -> JSONResponse:
    """All steps went well: 200. Otherwise 409 with what did not."""
    if made["ok"]:
        return JSONResponse(made)
    failed = [one["node"] for one in made["nodes"] if one.get("ok") is False]
    error = f"{len(failed)} of {len(made['nodes'])} nodes failed: {', '.join(failed)}"
    return JSONResponse({**made, "error": error, "kind": "some_failed", "suggestion": None}, status_code=409)


def _service(node: Node) -> dict[str, Any]:
    return {"schema": SCHEMA, "service": node}


def _results(results: list[Result]) -> JSONResponse:
    """All went well: 200. Otherwise 409 with what did not, and the results of all."""
    failed = [one["name"] for one in results if not one["ok"]]
    if not failed:
        return JSONResponse({"schema": SCHEMA, "results": results})
    error = f"{len(failed)} of {len(results)} services failed: {', '.join(failed)}"
    body = {"schema": SCHEMA, "error": error, "kind": "some_failed", "suggestion": None, "results": results}
    return JSONResponse(body, status_code=409)
