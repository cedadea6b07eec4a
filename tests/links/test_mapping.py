"""The file that maps alert sources to runbooks: every row is true of what the daemon really does with such an alert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from config.models import WatchConfig
from guardian_link.alertmanager import Notified, Words, alert_of
from guardian_link.as_alert import constraint_alert
from guardian_link.mapping import MAPPING, SOURCES
from guardian_link.messages import Alert, facts_of
from runbooks.deciding.words import Health, History
from runbooks.matching import decide, explain
from runbooks.model import Mode
from runbooks.parse import load_library
from supervisors.endpoint_errors import endpoint_error, endpoint_labels
from supervisors.self_words import CRASH_LOOP, SERVICE_SCOPE, Subject, crash_loop_figure
from supervisors.self_words import alert_of as alert_of_subject
from tests.links.mapping_table import DOC, text

LIBRARY = load_library()
LABELS = {"port": "8443", "path": "/data", "cleanup_root": "/data/logs"}
ROWS = [(table, word, row) for table in SOURCES for word, row in MAPPING[table].items()]


def facts(table: str, word: str, *needs: str) -> Mapping[str, Any]:
    """What the platform sends, with the labels that are needed, as the daemon's own intake takes it."""
    more = {name: LABELS[name] for name in needs}
    match table:
        case "systems":
            return facts_of({"error_id": "e-1", "error_message": "m", "system": word, "service_name": "web", **more})
        case "components":
            said = {"type": "COMPONENT_FAILURE", "component": word, "service": "web", **more}
            return facts_of({"timestamp": "2026-01-01T00:00:00", "message": "m", "severity": "HIGH", **said})
        case "guardian_types":
            return facts_of({"type": word, "message": "m", "severity": "MEDIUM"})
        case "constraints":
            violated = {"constraint_type": word, "service": "web", "description": "d", **more}
            return facts_of(constraint_alert(violated))
        case "alertnames":
            labels = {"alertname": word, "service": "web", **more}
            return alert_of(Notified("c54677b52ff79812", 1.0, None, labels, {}), Words(), lambda _: True).to_body()
        case _:
            return facts_of(endpoint_error("desk", word, None, {"error_message": "m"}))


@pytest.mark.parametrize(("table", "word", "row"), ROWS, ids=[f"{table}-{word}" for table, word, _ in ROWS])
def test_a_row_says_what_really_answers(table: str, word: str, row: Mapping[str, Any]) -> None:
    needs = row.get("needs", ())
    alert = facts(table, word, *needs)
    assert alert["type"] == row["type"]
    answering = LIBRARY.get(row["runbook"])
    assert answering is not None, f"{row['runbook']} is not shipped"
    assert explain(alert, LIBRARY)[answering.id] == ""
    for left_out in needs:
        others = [name for name in needs if name != left_out]
        assert explain(facts(table, word, *others), LIBRARY)[answering.id] != "", f"{left_out} is not needed"
    asks = answering.mode is Mode.OBSERVE or answering.approval is not None
    assert asks == ("reason" in row)


@pytest.mark.parametrize("word", MAPPING["alertnames"])
def test_of_the_nine_names_none_is_left_without_an_answer(word: str) -> None:
    history = History(health=lambda: Health(ready=2, wanted=2))
    decision = decide(facts("alertnames", word), LIBRARY, history, 0.0)
    assert decision.outcome.value in ("run", "observed"), decision
    assert (decision.outcome.value == "observed") == ("reason" in MAPPING["alertnames"][word])


@pytest.mark.parametrize("kind", MAPPING["endpoint_kinds"])
def test_an_endpoint_in_a_crash_loop_is_answered_by_the_runbook_of_its_errors(kind: str) -> None:
    figure = crash_loop_figure(False, "parked", WatchConfig(), endpoint_labels("desk", kind))
    alert = Alert(**alert_of_subject(Subject(CRASH_LOOP, SERVICE_SCOPE, "desk"), figure), source="selfheal").to_body()
    answering = [name for name, why_not in explain(alert, LIBRARY).items() if why_not == ""]
    assert answering == [MAPPING["endpoint_kinds"][kind]["runbook"]]


def test_a_plain_problem_is_of_the_default_type() -> None:
    assert Alert.from_mapping({"message": "m"}).type == MAPPING["default"]["type"]


def test_the_page_shows_the_file() -> None:
    assert DOC.read_text(encoding="utf-8") == text(), "python -m tests.links.mapping_table"
