"""What Alertmanager's alerts become, as plain data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_link.bodies import check
from bridge_link.wire import is_id
from guardian_link.alertmanager import UNNAMED_TYPE, Notified, Words, alert_of, extended, snake_case
from guardian_link.mapping import TYPE_OF_ALERTNAME
from guardian_link.messages import MAX_MESSAGE_CHARS, Alert

NINE = {
    "ServiceDown": ("service_down", "web"),
    "HighErrorRate": ("high_error_rate", "web"),
    "HighLatency": ("high_latency", "web"),
    "TradingHalted": ("trading_halted", "web"),
    "PriceDataStale": ("price_data_stale", "web"),
    "RiskManagerUnresponsive": ("service_failure", "risk-manager"),
    "HighMemoryUsage": ("memory_exhaustion", "web"),
    "HighCPUUsage": ("high_cpu_usage", "web"),
    "DiskSpaceLow": ("disk_space_low", "web"),
}
"""The platform's alert names, and what one with the label ``service="web"`` is here."""


def translated(
    labels: dict[str, str], words: Words | None = None, known: tuple[str, ...] = (), **annotations: str
) -> Alert:
    notified = Notified("c54677b52ff79812", 1_795_000_000.125, None, labels, annotations)
    return alert_of(notified, words or Words(), lambda name: name in known)


@pytest.mark.parametrize("name", NINE)
def test_the_platforms_nine_names(name: str) -> None:
    made = translated({"alertname": name, "service": "web"})
    assert (made.type, made.service) == NINE[name]


def test_there_are_nine() -> None:
    assert set(TYPE_OF_ALERTNAME) == set(NINE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("KubePodCrashLooping", "kube_pod_crash_looping"),
        ("CPUThrottlingHigh", "cpu_throttling_high"),
        ("node-filesystem: almost full!", "node_filesystem_almost_full"),
        ("HTTP5xxRate", "http5xx_rate"),
        ("already_snake", "already_snake"),
        ("Störung", "st_rung"),
        ("Ошибка", UNNAMED_TYPE),
        ("", UNNAMED_TYPE),
        ("A" * 500, "a" * 100),
    ],
)
def test_other_names_in_snake_case(name: str, kind: str) -> None:
    assert snake_case(name) == kind
    assert translated({"alertname": name}).type == kind


@pytest.mark.parametrize(
    ("label", "severity"),
    [
        ("critical", "critical"),
        ("page", "critical"),
        ("error", "high"),
        ("Warning ", "medium"),
        ("info", "low"),
        ("none", "low"),
        ("p1", "high"),
        (None, "high"),
    ],
)
def test_severities(label: str | None, severity: str) -> None:
    made = translated({"alertname": "X"} | ({} if label is None else {"severity": label}))
    assert made.severity == severity


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"job": "eafix-risk-manager", "instance": "risk-manager:9005"}, "risk-manager"),  # the platform's own labels
        ({"service": "payments", "job": "web"}, "web"),
        ({"service": "payments", "job": "billing"}, "payments"),
        ({"job": "billing", "instance": "10.0.0.5:9100"}, "billing"),
        ({"container": "billing_1"}, "billing_1"),
        ({"instance": "10.0.0.5:9100"}, None),
        ({"instance": "[::1]:9100"}, None),
        ({"service": "  ", "job": "web:8080"}, "web"),
        ({"service": "my service!"}, None),
        ({"pod": "web"}, None),
        ({}, None),
    ],
)
def test_the_service_is_found_by_labels(labels: dict[str, str], service: str | None) -> None:
    assert translated({"alertname": "ServiceDown", **labels}, known=("web", "risk-manager")).service == service


def test_an_exporters_job_is_not_the_service_of_a_machines_trouble() -> None:
    labels = {"alertname": "HighMemoryUsage", "job": "node", "instance": "10.0.0.5:9100"}
    assert translated(labels).service is None
    assert translated(labels | {"service": "web"}).service == "web"
    assert translated(labels, known=("node",)).service == "node"


def test_a_users_words_are_laid_over_ours() -> None:
    words = extended(
        {"MyAlert": "my_type", "ServiceDown": "gone"}, {"MyAlert": "engine"}, {"P1": "critical"}, ("app", "service")
    )
    mine = translated({"alertname": "MyAlert", "severity": "p1", "service": "web"}, words)
    assert (mine.type, mine.service, mine.severity) == ("my_type", "engine", "critical")
    other = translated({"alertname": "ServiceDown", "app": "web", "service": "x", "job": "y"}, words)
    assert (other.type, other.service) == ("gone", "web")
    assert translated({"alertname": "DiskSpaceLow"}, words).type == "disk_space_low"


def test_what_is_said_for_people_and_what_is_kept_as_facts() -> None:
    made = translated(
        {"alertname": "ServiceDown", "env": "prod"},
        summary="web is down",
        description="no scrape",
        runbook_url="http://x",
    )
    assert made.message == "web is down: no scrape"
    assert made.source == "alertmanager"
    assert made.dedup_key == "alertmanager:c54677b52ff79812"
    assert made.labels == {
        "alertname": "ServiceDown",
        "env": "prod",
        "annotation:runbook_url": "http://x",
        "alertmanager:fingerprint": "c54677b52ff79812",
    }
    assert translated({"alertname": "X"}, summary="same", description="same").message == "same"
    assert translated({"alertname": "ServiceDown"}).message == "ServiceDown"


def test_the_id_is_of_the_firing_not_of_the_message() -> None:
    one = translated({"alertname": "X"}, summary="93%")
    again = translated({"alertname": "X"}, summary="95%")
    assert one.id == again.id == "am-c54677b52ff79812-1795000000125"
    later = Notified("c54677b52ff79812", 1_795_000_001.0, None, {"alertname": "X"})
    assert alert_of(later, Words(), lambda _name: False).id != one.id


@given(
    labels=st.dictionaries(st.text(max_size=30), st.text(max_size=200), max_size=6),
    annotations=st.dictionaries(
        st.sampled_from(["summary", "description", "message", "x"]), st.text(max_size=3 * MAX_MESSAGE_CHARS), max_size=3
    ),
    named=st.dictionaries(
        st.sampled_from(["alertname", "service", "job", "instance", "severity"]), st.text(), max_size=5
    ),
    starts_at=st.floats(-6.3e10, 2.5e11),
)
def test_nothing_is_refused_here(
    labels: dict[str, str], annotations: dict[str, str], named: dict[str, str], starts_at: float
) -> None:
    """A refusal would hold up its whole group for ever."""
    notified = Notified("a" * 32, starts_at, None, labels | named, annotations, "u" * 5000)
    made = alert_of(notified, Words(), lambda _name: True)
    assert is_id(f"{made.id}-100")
    assert Alert.from_mapping(made.to_body(), id=made.id).to_body() == made.to_body()


def test_whatever_a_label_or_annotation_holds_it_can_be_sent() -> None:
    bad = "half \ud800 and NUL \0"
    labels = {"alertname": "ServiceDown", "service": "web", bad: bad}
    annotations = {bad: bad, "summary": bad, "description": "\0"}
    made = alert_of(Notified("f1", 1_795_000_000.0, None, labels, annotations), Words(), lambda _name: True)
    check(made.to_body())
    assert made.message == "half ? and NUL �: �"
    assert made.labels["half ? and NUL �"] == "half ? and NUL �"
    assert made.labels["annotation:half ? and NUL �"] == "half ? and NUL �"
