"""A real daemon with one database as its service ``db``, which nobody but a runbook brings back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from config.units import seconds
from guardian_link import Alert, GuardianClient
from runbooks.parse import SHIPPED
from tests.faults import postgres as postgres_rig
from tests.faults import redis as redis_rig
from tests.faults.postgres import Postgres, postgres
from tests.faults.redis import Redis, redis_server
from tests.faults.registry import Ended
from tests.system.running import Running, daemon, write_config

SERVICE: Final = "db"
ENDS_WITHIN_S: Final = 100.0
SHORT_S: Final = 3.0
OWN: Final = ("database_connection_failure", "database_lock_left")
RigT = TypeVar("RigT", Postgres, Redis)


@dataclass
class Stage(Generic[RigT]):
    rig: RigT
    running: Running
    broke_at: float = field(default_factory=time.monotonic)

    def alert(self, kind: str = "database_connection_failure", service: str = SERVICE, **labels: Any) -> Ended:
        """What becomes of an alert; the time counts from ``broke_at``."""
        with GuardianClient(state_dir=self.running.state) as guardian:
            ack = guardian.send(Alert(type=kind, service=service, labels=labels), timeout_s=30)
            assert ack.decision is not None
            if ack.execution_id is None:
                return Ended(ack.decision.outcome)
            outcome = guardian.wait(ack.execution_id, timeout_s=ENDS_WITHIN_S)
            return Ended(outcome.status, time.monotonic() - self.broke_at, outcome.detail)

    def service(self) -> dict[str, Any]:
        return self.running.services()[SERVICE]

    def steps(self) -> dict[str, str]:
        """How each step of the last execution ended."""
        (last, *_) = self.running.get("/v1/executions")["executions"]
        return {step["id"]: step["status"] for step in last["steps"]}


@contextmanager
def postgres_stage(
    folder: Path, *, acts: bool = True, user: str = "postgres", **more: Any
) -> Iterator[Stage[Postgres]]:
    with postgres() as rig, _daemon(folder, rig, rig.url(user), acts=acts, **more) as running:
        rig.until_ready()
        rig.make_users()
        yield Stage(rig, running)


@contextmanager
def redis_stage(folder: Path, *, acts: bool = True, **more: Any) -> Iterator[Stage[Redis]]:
    with redis_server(folder) as rig, _daemon(folder, rig, rig.url(), acts=acts, **more) as running:
        rig.until_ready()
        yield Stage(rig, running)


@contextmanager
def _daemon(
    folder: Path,
    rig: Postgres | Redis,
    url: str,
    *,
    acts: bool,
    hasty: bool = False,
    seen: bool = True,
    service: Mapping[str, Any] | None = None,
) -> Iterator[Running]:
    """``acts`` False: with runbooks whose acting calls do nothing. ``hasty``: with short patience, for cases that must
    fail. ``seen`` False: without a url.
    """
    secret = folder / "db.url"
    secret.write_text(f"{url}\n", encoding="utf-8")
    secret.chmod(0o600)
    runbooks: dict[str, Any] = {"databases": {SERVICE: {"url": {"secret": "db_url"}}}} if seen else {}
    if hasty or not acts:
        runbooks["directories"] = [str(_changed_library(folder, acts=acts))]
    secrets = {"db_url": {"file": str(secret)}}
    config = write_config(folder, {SERVICE: rig.service(**(service or {}))}, runbooks=runbooks, secrets=secrets)
    with daemon(config, folder / "state") as running:
        if service is None:
            running.until_ready(SERVICE, within_s=30)
        yield running
    _holds_no_password(folder)


def _holds_no_password(folder: Path) -> None:
    """Nothing that the daemon wrote, or said."""
    state = [path for path in (folder / "state").rglob("*") if path.is_file()]
    left = b"".join(path.read_bytes() for path in (*state, folder / "state.log"))
    assert b"database" in left
    for canary in (postgres_rig.PASSWORD, redis_rig.PASSWORD):
        assert canary.encode() not in left, f"{canary} was written down"


# -- runbooks that differ in one way from the shipped ones -------------------------------------------------------------


def _changed_library(folder: Path, *, acts: bool) -> Path:
    place = folder / "runbooks"
    place.mkdir()
    for name in OWN:
        runbook = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
        for part in (runbook["actions"], runbook["success_criteria"]):
            _hasten(part)
        if not acts:
            runbook["actions"] = [one if one["effect"] == "none" else _idle(one) for one in runbook["actions"]]
        (place / f"{name}.json").write_text(json.dumps(runbook), encoding="utf-8")
    return place


def _hasten(part: Any) -> None:
    """Nothing is waited for longer than ``SHORT_S``."""
    match part:
        case dict():
            for key, value in part.items():
                if key in ("timeout", "within") and _longer(value):
                    part[key] = SHORT_S
                _hasten(value)
        case list():
            for one in part:
                _hasten(one)


def _longer(value: Any) -> bool:
    return seconds(str(value)) > SHORT_S


def _idle(action: dict[str, Any]) -> dict[str, Any]:
    """The action doing nothing and saying it did; what it says of the world stays."""
    done = {"call": {"type": "command_ok", "argv": ["true"]}}
    action = action | {"action_type": "command", "command": ["true"], "parameters": {}}
    if "rollback" in action:
        action["rollback"] = {"call": {"type": "command", "argv": ["true"]}, "verify": done}
    return action
