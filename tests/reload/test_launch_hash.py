"""The hash of what a run was launched with changes with just those keys whose edit makes it another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.runtimes.launch_hash import launch_hash
from supervisors.plans import SERVICE_KEYS, Action, make_plan
from supervisors.service_plans import service_plan
from tests.reload.files import nodes

PROCESS = {"command": ["sleep", "1000"]}
IMAGE = {"runtime": "docker", "image": "x:1", "command": ["sleep", "1000"]}
ATTACHED = {"runtime": "docker", "container": "theirs"}
COMPOSE = {"runtime": "docker", "compose": {"project": "p", "service": "s"}}
SECRET = {"secrets": {"TOKEN": {"file": "/tmp/token"}}}
EDITS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (PROCESS, {"description": "sleeps"}),
    (PROCESS, {"command": ["sleep", "5"]}),
    (PROCESS, {"working_dir": "/tmp"}),
    (PROCESS, {"environment": {"A": "1"}}),
    (PROCESS, {"restart_policy": "on_failure"}),
    (PROCESS, {"backoff": {"initial": "1s"}}),
    (PROCESS, {"max_restarts": 2}),
    (PROCESS, {"within": "50s"}),
    (PROCESS, {"on_exhausted": "escalate"}),
    (PROCESS, {"dependencies": ["b"]}),
    (PROCESS, {"health_check": {"tcp": "127.0.0.1:7001"}}),
    (PROCESS, {"graceful_shutdown_timeout": "1s"}),
    (PROCESS, {"required_resources": {"memory_mb": 5}}),
    (PROCESS, {"on_shutdown": "leave"}),
    (PROCESS, {"log": {"max_size": "1MB"}}),
    (PROCESS, {"log": {"backups": 1}}),
    (PROCESS, {"limits": {"nofile": 100}}),
    (PROCESS, {"nice": 5}),
    (PROCESS, {"umask": "027"}),
    (PROCESS, {"user": "nobody"}),
    (PROCESS, {"group": "nogroup"}),
    (PROCESS, {"groups": []}),
    (PROCESS, {"environment_files": ["/tmp/a.env"]}),
    (PROCESS | {"environment_files": ["/tmp/a.env"]}, {"environment_files": ["-/tmp/a.env"]}),
    (PROCESS, SECRET),
    (PROCESS | SECRET, {"secrets": {"TOKEN": {"file": "/tmp/token", "as_file": True}}}),
    (IMAGE, {"image": "x:2"}),
    (IMAGE, {"ports": ["127.0.0.1:8080:80"]}),
    (IMAGE, {"volumes": ["v:/v"]}),
    (IMAGE, {"network": "n"}),
    (IMAGE, {"log": {"max_size": "1MB"}}),
    (IMAGE, {"log": {"backups": 1}}),
    (IMAGE, {"description": "sleeps"}),
    (ATTACHED, {"container": "other"}),
    (COMPOSE, {"compose": {"project": "p", "service": "t"}}),
    (COMPOSE, {"compose": {"project": "q", "service": "s"}}),
)
ELSEWHERE = {"runtime", "replicas"}
"""The next test changes the runtime; replicas are nodes of their own."""


def hashed(service: dict[str, Any]) -> str:
    made = nodes({"version": 1, "services": {"a": service, "b": PROCESS}}).services["a"]
    return launch_hash(service_plan("a", made, Path("/var/log/selfheal")).launch)


@pytest.mark.parametrize(("service", "edit"), EDITS, ids=lambda one: next(iter(one)))
def test_it_changes_where_a_plan_would_restart(service: dict[str, Any], edit: dict[str, Any]) -> None:
    before, after = ({"version": 1, "services": {"a": one, "b": PROCESS}} for one in (service, service | edit))
    (entry,) = [one for one in make_plan(nodes(before), nodes(after)).changed if one.kind == "service"]
    assert (hashed(service) != hashed(service | edit)) == (entry.action is Action.RESTART)


def test_no_key_is_forgotten() -> None:
    assert {key for _, edit in EDITS for key in edit} | ELSEWHERE == SERVICE_KEYS.keys()


def test_every_kind_has_another_one() -> None:
    assert len({hashed(one) for one in (PROCESS, IMAGE, ATTACHED, COMPOSE)}) == 4


def test_it_stays_the_same_in_later_versions() -> None:
    """All services would be restarted by an update of Selfheal otherwise."""
    assert (hashed(PROCESS), hashed(IMAGE)) == ("4a9773d4bf17238b", "0d33cb4a6edfb05c")
