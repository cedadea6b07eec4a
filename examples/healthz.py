"""A drop-in `/healthz` for FastAPI services: copy this file, include the router, register your checks.

    health = Health("risk-manager")
    health.check("database", lambda: None if database.is_up else "no connection")
    app.include_router(health.router)

A check returns None when all is well, or says what is wrong. A failed *vital* check makes the service unhealthy (HTTP
503), any other makes it degraded (HTTP 200): Selfheal restarts on the first and shows the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

Check = Callable[[], str | None]


@dataclass
class Health:
    """The checks of one service, and the route that runs them."""

    service: str
    router: APIRouter = field(default_factory=APIRouter)
    _checks: dict[str, tuple[Check, bool]] = field(default_factory=dict)
    _began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.router.add_api_route("/healthz", self.healthz, methods=["GET"])

    def check(self, name: str, check: Check, *, vital: bool = True) -> None:
        """Register a check; one that raises counts as failed."""
        self._checks[name] = (check, vital)

    def healthz(self) -> JSONResponse:
        troubles = {name: trouble for name, (check, _) in self._checks.items() if (trouble := _run(check))}
        is_vital = any(self._checks[name][1] for name in troubles)
        status = "unhealthy" if is_vital else "degraded" if troubles else "healthy"
        body: dict[str, Any] = {
            "status": status,
            "service": self.service,
            "uptime_s": round(time.time() - self._began, 1),
            "checks": {name: troubles.get(name, "ok") for name in self._checks},
        }
        return JSONResponse(body, status_code=503 if is_vital else 200)


def _run(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
