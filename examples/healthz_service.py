"""A FastAPI service with `/healthz`: ``python examples/healthz_service.py --port 8081``; POST /break/queue and look."""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI
from healthz import Health


def make_app() -> FastAPI:
    app = FastAPI(title="healthz example")
    health = Health("example")
    broken: set[str] = set()

    def is_broken(name: str) -> str | None:
        return f"{name} does not answer" if name in broken else None

    health.check("database", lambda: is_broken("database"))
    health.check("queue", lambda: is_broken("queue"), vital=False)
    app.include_router(health.router)

    @app.post("/break/{name}")
    def break_it(name: str) -> dict[str, str]:
        broken.add(name)
        return {"broken": name}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8081)
    uvicorn.run(make_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
