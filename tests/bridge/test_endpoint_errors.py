"""Errors the daemon hears of an endpoint: which endpoint, which service behind it, and what answers them."""

from __future__ import annotations

from typing import Any

import pytest

from guardian_link.messages import facts_of
from supervisors.endpoint_errors import endpoint_error


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
