"""One database as a service of the daemon, which nobody but a runbook brings back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.faults import postgres as postgres_rig
from tests.faults import redis as redis_rig
from tests.faults.ended import Ended
from tests.faults.postgres import Postgres, postgres
from tests.faults.redis import Redis, redis_server
from tests.faults.ward import Bed

MAIN = "database_connection_failure"
LOCK = "database_lock_left"
RigT = TypeVar("RigT", Postgres, Redis)


@dataclass
class Stage(Generic[RigT]):
    """``ready``: what is to be ready before anything is broken."""

    rig: RigT
    bed: Bed
    config: Mapping[str, Any]
    ready: tuple[str, ...]
    broke_at: float = field(default_factory=time.monotonic)

    def alert(self, kind: str = MAIN, **labels: Any) -> Ended:
        """What becomes of an alert; the time counts from ``broke_at``."""
        return self.bed.answered(kind, self.broke_at, **labels)

    def service(self) -> dict[str, Any]:
        return self.bed.service()

    def steps(self, runbook: str = MAIN) -> dict[str, str]:
        """How each step of the last execution ended."""
        return self.bed.steps(runbook, f"service:{self.bed.name}")


@contextmanager
def postgres_stage(bed: Bed, *, user: str = "postgres", **more: Any) -> Iterator[Stage[Postgres]]:
    with postgres() as rig:
        yield Stage(rig, bed, *_config(bed, rig, rig.url(user), **more))


@contextmanager
def redis_stage(bed: Bed, **more: Any) -> Iterator[Stage[Redis]]:
    with redis_server(bed.folder) as rig:
        yield Stage(rig, bed, *_config(bed, rig, rig.url(), **more))


def _config(
    bed: Bed, rig: Postgres | Redis, url: str, *, seen: bool = True, service: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``seen`` False: without a url. ``service``: more of it, with which it need not become ready."""
    secret = bed.folder / "db.url"
    secret.write_text(f"{url}\n", encoding="utf-8")
    secret.chmod(0o600)
    name = f"{bed.name}.url"
    config: dict[str, Any] = {
        "services": {bed.name: rig.service(**(service or {}))},
        "secrets": {name: {"file": str(secret)}},
    }
    if seen:
        config["runbooks"] = {"databases": {bed.name: {"url": {"secret": name}}}}
    return config, () if service else (bed.name,)


def holds_no_password(folder: Path) -> None:
    """Nothing that the daemon of this folder wrote, or said."""
    state = [path for path in (folder / "state").rglob("*") if path.is_file()]
    left = b"".join(path.read_bytes() for path in (*state, folder / "state.log"))
    assert b"database" in left
    for canary in (postgres_rig.PASSWORD, redis_rig.PASSWORD):
        assert canary.encode() not in left, f"{canary} was written down"
