"""Every program's dictionary becomes an alert; what cannot is refused with the field's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardian_link.as_alert import constraint_alert
from guardian_link.mapping import TYPE_OF_COMPONENT, TYPE_OF_CONSTRAINT, TYPE_OF_SYSTEM
from guardian_link.messages import Alert, BadAlert


def test_our_own_shape_goes_round() -> None:
    alert = Alert("service_failure", "a", "critical", "m", "s", {"k": "v"}, "key")
    assert Alert.from_mapping(alert.to_body(), id=alert.id) == alert


def test_the_plans_error_data() -> None:
    alert = Alert.from_mapping(
        {
            "error_id": "db_connection_test",
            "error_message": "failed",
            "system": "database",
            "service_name": "api_server",
            "x": 1,
        }
    )
    assert (alert.type, alert.service, alert.message) == ("database_connection_failure", "api_server", "failed")
    assert (alert.dedup_key, alert.severity) == ("db_connection_test", "high")
    assert alert.labels == {"system": "database", "x": 1}
    assert alert.id != "db_connection_test"


@pytest.mark.parametrize("system", TYPE_OF_SYSTEM)
def test_every_system_has_its_type(system: str) -> None:
    assert Alert.from_mapping({"system": system.upper()}).type == TYPE_OF_SYSTEM[system]


@pytest.mark.parametrize("component", TYPE_OF_COMPONENT)
def test_guardians_component_failures(component: str) -> None:
    alert = Alert.from_mapping(
        {"timestamp": "t", "type": "COMPONENT_FAILURE", "component": component, "message": "m", "severity": "HIGH"}
    )
    assert (alert.type, alert.severity) == (TYPE_OF_COMPONENT[component], "high")
    assert alert.labels["component"] == component


def test_guardians_mode_change_and_an_unknown_component() -> None:
    assert Alert.from_mapping({"type": "MODE_CHANGE", "severity": "MEDIUM"}).type == "mode_change"
    alert = Alert.from_mapping({"type": "COMPONENT_FAILURE", "component": "risk-manager"})
    assert (alert.type, alert.service) == ("service_failure", "risk-manager")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            {"system": "mql4", "error_type": "MQL4Error", "error_code": 4051, "error_message": "x"},
            "bridge_mql4_failure",
        ),
        (
            {"system": "powershell", "error_type": "E", "exit_code": 1, "error_message": "x"},
            "bridge_powershell_failure",
        ),
        ({"system": "python", "error_type": "SyntaxError", "traceback": "..."}, "bridge_python_failure"),
    ],
)
def test_bridge_errors(error: dict[str, Any], kind: str) -> None:
    assert Alert.from_mapping(error).type == kind


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({}, "type"),
        ({"type": 3}, "type"),
        ({"type": "a b"}, "type"),
        ({"type": "a", "severity": "worst"}, "severity"),
        ({"type": "a", "severity": 3}, "severity"),
        ({"type": "a", "service": "x; touch y"}, "service"),
        ({"type": "a", "service": ["x"]}, "service"),
        ({"type": "a", "message": "x" * 9000}, "message"),
        ({"type": "a", "labels": [1]}, "labels"),
        ({"type": "a", "dedup_key": 3}, "dedup_key"),
        ({"type": "a", "id": "short"}, "id"),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(BadAlert) as caught:
        Alert.from_mapping(raw)
    assert caught.value.field == field


@given(
    st.dictionaries(st.text(max_size=10), st.none() | st.text(max_size=10) | st.integers() | st.lists(st.integers()))
)
def test_any_dictionary_is_an_alert_or_a_bad_alert(raw: dict[str, Any]) -> None:
    try:
        alert = Alert.from_mapping(raw)
    except BadAlert:
        return
    assert alert.type


@pytest.mark.parametrize("kind", TYPE_OF_CONSTRAINT)
def test_violated_constraints(kind: str) -> None:
    class Violation:
        id = "v-1"
        constraint_type = kind
        severity = "critical"
        description = "too much"

    as_mapping = {"id": "v-1", "constraint_type": kind, "severity": "critical", "description": "too much"}
    for violation in (Violation(), as_mapping):
        alert = Alert.from_mapping(constraint_alert(violation))
        assert (alert.type, alert.severity) == (TYPE_OF_CONSTRAINT[kind], "critical")
        assert (alert.message, alert.dedup_key) == ("too much", "v-1")
