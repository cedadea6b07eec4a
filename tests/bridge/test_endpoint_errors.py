"""Errors the daemon hears of an endpoint: which endpoint, which service behind it, and what answers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.deciding.words import ESCALATED_FROM, ESCALATED_TO, INSIDE, OPERATOR, RUNG
from guardian_link.messages import facts_of
from supervisors.endpoint_errors import endpoint_error, endpoint_labels, sender_of
from tests.recovery.place import recovering
from tests.support.eventually import eventually


@pytest.mark.parametrize(
    ("endpoint", "kind", "error", "kind_of_alert"),
    [
        ("mql4", "tcp", {"error_code": 4051}, "bridge_mql4_failure"),
        ("desk", "tcp", {"error_code": 4051}, "bridge_mql4_failure"),
        ("pipe", "fifo", {"error_code": 4051}, "bridge_mql4_failure"),
        ("inbox", "spool", {"error_type": "SpoolTooFull"}, "bridge_config_sync_failure"),
        ("shell", "powershell", {"exit_code": 1}, "bridge_powershell_failure"),
        ("python", "tcp", {"error_message": "m"}, "bridge_python_failure"),
        ("desk", "tcp", {"system": "python", "error_message": "m"}, "bridge_python_failure"),
        ("desk", "tcp", {"type": "own_failure"}, "own_failure"),
        ("worker", None, {"error_message": "m"}, "bridge_worker_failure"),
    ],
)
def test_an_endpoints_error_is_of_the_system_it_stands_for(
    endpoint: str, kind: str | None, error: dict[str, Any], kind_of_alert: str
) -> None:
    said = facts_of(endpoint_error(endpoint, kind, "gateway", error))
    assert said["type"] == kind_of_alert
    assert (said["service"], said["labels"]["endpoint"]) == ("gateway", endpoint)


def test_an_error_that_names_a_service_keeps_it() -> None:
    said = facts_of(endpoint_error("mql4", "tcp", "gateway", {"service_name": "terminal", "error_code": 1}))
    assert said["service"] == "terminal"
    assert "service" not in facts_of(endpoint_error("mql4", "tcp", None, {"error_code": 1}))


@pytest.mark.parametrize(
    "error",
    [
        {"labels": {"endpoint": "other"}},
        {"endpoint": "other", "labels": {"endpoint": "other"}},
        {"endpoint": "other", "source": "selfheal", "error_message": "m"},
    ],
)
def test_an_endpoint_speaks_for_itself_only(error: dict[str, Any]) -> None:
    said = facts_of(endpoint_error("mql4", "tcp", None, {"error_code": 1, **error}))
    assert (said["labels"]["endpoint"], said["source"]) == ("mql4", "bridge:mql4")


def test_what_the_daemon_says_of_an_endpoint_itself() -> None:
    assert endpoint_labels("desk", "tcp") == {"endpoint": "desk", "system": "mql4"}
    assert endpoint_labels("python", "tcp") == {"endpoint": "python", "system": "python"}


def test_no_peer_speaks_as_the_daemon_or_as_a_person(tmp_path: Path) -> None:
    """Of those two the labels name a runbook that is taken whatever the alert is like."""
    assert sender_of("selfheal") not in (INSIDE, OPERATOR)
    climbing = {RUNG: "0", ESCALATED_FROM: "x-1", ESCALATED_TO: "service_failure", "runbook": "service_failure"}
    with recovering(tmp_path) as place:
        for error in (climbing, {"labels": climbing}):
            place.recovery.bridge_error("mql4", {"type": "nothing_known", "service": "a", **error})

        def decided() -> bool:
            alerts = place.recovery.records.alerts(10)
            assert [one["outcome"] for one in alerts] == ["no_match", "no_match"], alerts
            return True

        eventually(decided)
        assert place.world.restarts == []
