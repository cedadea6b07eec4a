"""Every program's dictionary becomes an alert; what cannot is refused with the field's name."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_link.wire import Kind, Message, encode
from guardian_link.as_alert import as_alert, constraint_alert, recovery_alert
from guardian_link.mapping import TYPE_OF_COMPONENT, TYPE_OF_CONSTRAINT, TYPE_OF_SYSTEM
from guardian_link.messages import MAX_MESSAGE_CHARS, Alert, BadAlert
from guardian_link.outbox import Outbox


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


# -- dictionaries of ordinary Python values ---------------------------------------------------------------------------


class Word(enum.Enum):
    HIGH = "HIGH"


class Text(str, enum.Enum):  # noqa: UP042  as programs write it
    HIGH = "HIGH"


class Number(enum.IntEnum):
    HIGH = 3


FAILURE = {"type": "COMPONENT_FAILURE", "component": "database", "severity": "HIGH"}
AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
VALUES = [
    (AT, "2026-01-02T03:04:05+00:00"),
    (decimal.Decimal("1.5"), "1.5"),
    (float("nan"), "nan"),
    (2**70, str(2**70)),
    ((1, 2), [1, 2]),
    ({2, 1}, [1, 2]),
    ({1: 2}, {"1": 2}),
    (ValueError("x"), "ValueError: x"),
    (Word.HIGH, "HIGH"),
    (Number.HIGH, 3),
    (b"abc", "abc"),
    ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
    (object, str(object)),
    ("x" * 17_000, "x" * 1997 + "..."),
]


@pytest.mark.parametrize(("value", "kept"), VALUES)
@pytest.mark.parametrize("place", ["fact", "labels"])
def test_a_dictionary_of_python_values_is_sent_and_kept(tmp_path: Path, place: str, value: Any, kept: Any) -> None:
    alert = as_alert(FAILURE | ({"fact": value} if place == "fact" else {"labels": {"fact": value}}))
    assert (alert.type, alert.severity, alert.labels["fact"]) == ("database_connection_failure", "high", kept)
    encode(Message(Kind.ALERT, alert.id, alert.to_body()))
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put(alert)
    assert outbox.waiting(1) == [alert]
    outbox.close()


@pytest.mark.parametrize(
    ("given", "severity"),
    [
        (Word.HIGH, "high"),
        (Text.HIGH, "high"),
        (Number.HIGH, "high"),
        ("WARNING", "medium"),
        ("error", "high"),
        (" Info ", "low"),
        ("FATAL", "critical"),
        ("critical", "critical"),
        (None, "high"),
    ],
)
def test_a_programs_word_for_a_severity(given: Any, severity: str) -> None:
    assert as_alert(FAILURE | {"severity": given}).severity == severity
    assert as_alert(constraint_alert({"constraint_type": "margin", "severity": given})).severity == severity


def test_texts_are_made_of_what_is_for_people() -> None:
    alert = recovery_alert(7, FAILURE | {"message": {"a": 1}, "source": 5, "labels": None})  # type: ignore[arg-type]
    assert (alert.message, alert.source, alert.dedup_key) == ("{'a': 1}", "5", "7")
    long = as_alert(FAILURE | {"message": "x" * 9000}).message
    assert (len(long), long[-4:]) == (MAX_MESSAGE_CHARS, "x...")
    assert as_alert(FAILURE | {"message": "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 9000}).message.endswith("...")
    assert as_alert(FAILURE | {"message": ValueError("gone")}).message == "ValueError: gone"


def test_what_can_be_sent_is_not_touched() -> None:
    labels: dict[str, Any] = {"long": "x" * 9000, "deep": [[[[[[[[[1]]]]]]]]]} | {f"n{n}": n for n in range(500)}
    assert as_alert({"type": "a", "labels": labels}).labels == labels


def test_what_is_too_much_leaves_the_short_labels() -> None:
    labels = {"path": "/data", "cleanup_root": "/data/tmp", **{f"big{n}": "x" * 9000 for n in range(50)}}
    alert = as_alert(FAILURE | {"id": "given-0001", "labels": labels})
    encode(Message(Kind.ALERT, alert.id, alert.to_body()))
    assert (alert.id, alert.type) == ("given-0001", "database_connection_failure")
    assert (alert.labels["path"], alert.labels["cleanup_root"]) == ("/data", "/data/tmp")
    assert "was_cut" in json.dumps(alert.to_body())


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"type": 3}, "type"),
        ({"type": "a", "severity": "PURPLE"}, "severity"),
        ({"type": "a", "severity": 3}, "severity"),
        ({"type": "a", "service": ["x"]}, "service"),
        ({"type": "a", "labels": [1]}, "labels"),
        ({"type": "a", "id": 7}, "id"),
        (None, "alert"),
    ],
)
def test_what_is_no_alert_stays_none(raw: Any, field: str) -> None:
    with pytest.raises(BadAlert) as caught:
        as_alert(raw)
    assert caught.value.field == field
    with pytest.raises(BadAlert):
        recovery_alert("key", raw)


def test_an_alert_made_by_hand_is_as_strict_as_before() -> None:
    with pytest.raises(BadAlert):
        Alert("a", severity="WARNING")
    with pytest.raises(BadAlert):
        Alert("a", message="x" * 9000)
    made = Alert("a", labels={"at": AT})
    assert as_alert(made) is made
