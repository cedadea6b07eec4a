"""Another body under a known id: refused, on record for security, and people hear of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors import intake
from actors.journal import rows as journal_rows
from actors.plain_alerts import PlainAlerts
from guardian_link import Alert, AlertRefused, GuardianClient
from tests.recovery.place import Place, recovering
from tests.support.eventually import eventually

PATH = "root/links/alerts"


def conflicts(place: Place) -> list[dict[str, Any]]:
    events = place.recovery._journal.read(lambda db: journal_rows.events(db, PATH, 1000))
    return [dict(one["evidence"]) for one in events if one["event"] == "alert_conflict"]


def rows(place: Place) -> list[dict[str, Any]]:
    """Of the chain."""
    read = place.recovery._journal.read
    found = read(lambda db: db.execute("SELECT body FROM audit WHERE kind='conflict' ORDER BY seq").fetchall())
    return [json.loads(row["body"]) for row in found]


def test_it_is_an_event_a_row_of_the_chain_and_a_line_of_the_log(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian, capture_logs() as logs:
        guardian.send(Alert(type="noise", id="alert-no-1"))
        guardian.send(Alert(type="noise", id="alert-no-1", source=Alert(type="noise").source))
        assert conflicts(place) == [], "the same again is none"
        with pytest.raises(AlertRefused, match="conflict"):
            guardian.send(Alert(type="noise", id="alert-no-1", message="another"))
        (told,) = eventually(lambda: conflicts(place))
        assert (told["count"], told["alerts"]) == (1, ["alert-no-1"])
        assert rows(place) == [told]
        (line,) = [one for one in logs if one["event"] == "alerts with another body under a known id"]
        assert (line["log_level"], line["client"]) == ("warning", told["client"])


def test_many_are_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_CONFLICTS_TOLD", 3)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        for number in range(12):
            guardian.post(Alert(type="noise", id=f"alert-no-{number}"))
        eventually(lambda: guardian.unacknowledged == 0, within_s=20)
        for number in range(12):
            guardian.post(Alert(type="noise", id=f"alert-no-{number}", message="another"))
        eventually(lambda: guardian.unacknowledged == 0, within_s=20)

        def all_told() -> bool:
            guardian.send(Alert(type="noise"))  # whatever comes next says what was counted
            return bool(sum(one["count"] for one in conflicts(place)) == 12)

        eventually(all_told, within_s=20, every_s=0.2)
        assert any(one["alerts"] == [] for one in conflicts(place))
        assert rows(place) == conflicts(place)[::-1]


def test_people_hear_of_another_alert_under_a_known_id() -> None:
    told: list[Any] = []

    class Sink:
        name = "list"

        def tell(self, one: Any) -> None:
            told.append(one)

    plain = PlainAlerts([Sink()])
    plain.begin()
    try:
        first = {"type": "noise", "severity": "high", "message": "one"}
        for facts in (first, dict(first), first | {"message": "two"}, first):
            plain.offer_all("ann", [("alert-no-1", facts)])
        plain.offer("alertmanager", "am-1", first)
        plain.offer("alertmanager", "am-1", first | {"message": "its text is another by now"})
    finally:
        plain.close()
    assert [one["message"] for one in told] == ["one", "two", "one"]
    assert [one["client"] for one in told] == ["ann", "ann", "alertmanager"]
