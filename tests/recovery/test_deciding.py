"""What is decided, held back and let go by the guardian with a real journal and real actors."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from actors.journal import holds
from guardian_link import Alert, GuardianClient
from tests.recovery.place import Place, World, recovering
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually


def failure(service: str = "a", **more: Any) -> Alert:
    return Alert(type="service_failure", service=service, **more)


def own(folder: Path, *books: dict[str, Any]) -> tuple[Path, ...]:
    """Runbooks that are tried before the shipped ones."""
    folder.mkdir(exist_ok=True)
    for book in books:
        (folder / f"{book['id']}.json").write_text(json.dumps({"priority": 90} | book), encoding="utf-8")
    return (folder,)


def outcome(guardian: GuardianClient, alert: Alert) -> tuple[str, str]:
    decision = guardian.send(alert).decision
    assert decision is not None
    return decision.outcome, decision.reason


def in_journal(place: Place, work: Any) -> Any:
    return place.recovery._journal.submit(work).result(10)


def test_a_latched_target_is_refused_over_restarts_until_it_is_released(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with recovering(state) as place:
        in_journal(
            place, lambda db: db.execute("INSERT INTO latches VALUES ('service:a', 'x-0', 1.0, 'x-0 ended unknown')")
        )
    with recovering(state) as place, GuardianClient(place.address) as guardian:
        found, why = outcome(guardian, failure())
        assert (found, "x-0 ended unknown" in why) == ("latched", True)
        assert outcome(guardian, failure("b"))[0] == "run"


def test_what_the_records_forbid_is_queued_whatever_the_decider_knew(tmp_path: Path) -> None:
    """Its memory may lag behind: an earlier incarnation's decision was on its way to the disk when it looked."""
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        in_journal(
            place, lambda db: db.execute("INSERT INTO latches VALUES ('service:a', 'x-0', 1.0, 'unknown to it')")
        )
        found, why = outcome(guardian, failure())
        assert (found, "latched" in why) == ("queued", True)
        eventually(lambda: place.recovery.records.executions(1)[0]["status"] == "queued")
        assert place.world.restarts == []
        in_journal(place, lambda db: holds.release(db, "service:a", 1.0))
        eventually(lambda: place.world.restarts == ["a"], within_s=30)


def test_a_claim_is_refused_by_the_records(tmp_path: Path) -> None:
    """One target, one run; so many at once; none on a latched target: asked in the transaction that begins it."""
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        guardian.send(failure())
        eventually(lambda: place.recovery.records.executions(1)[0]["status"] == "succeeded", within_s=30)

        def add(db: sqlite3.Connection) -> None:
            for name, target, status in (("x-r", "t1", "running"), ("x-1", "t1", "queued"), ("x-2", "t2", "queued")):
                db.execute(
                    "INSERT INTO executions(id, alert_seq, runbook, source, sha256, target, parameters, fingerprint,"
                    " severity, priority, status, decided_at) SELECT ?, alert_seq, runbook, source, sha256, ?,"
                    " parameters, fingerprint, severity, priority, ?, decided_at FROM executions LIMIT 1",
                    (name, target, status),
                )
            assert not holds.may_begin(db, "t1", 5)
            assert holds.may_begin(db, "t2", 2)
            assert not holds.may_begin(db, "t2", 1)
            db.execute("INSERT INTO latches VALUES ('t2', '', 1.0, '')")
            assert not holds.may_begin(db, "t2", 2)
            raise _TakeItBackError

        with contextlib.suppress(_TakeItBackError):
            in_journal(place, add)


class _TakeItBackError(Exception):
    pass


def test_no_more_than_allowed_at_any_instant_of_the_journal_and_nothing_dropped(tmp_path: Path) -> None:
    names = [f"s{n}" for n in range(12)]
    world = World(runs=dict.fromkeys(names, 1))
    quick = {**GOOD, "id": "quick", "dedup": {"fingerprint": ["/message"]}}
    books = own(tmp_path / "books", quick)
    with recovering(tmp_path / "state", world, max_concurrent=3, runbooks=books) as place:
        with GuardianClient(place.address) as guardian:
            for n in range(60):
                guardian.post(failure(names[n % 12], message=str(n)))

            def ended() -> bool:
                runs = place.recovery.records.executions(100)
                assert len(runs) == 60, len(runs)
                assert {run["status"] for run in runs} == {"succeeded"}, [run["status"] for run in runs]
                return True

            eventually(ended, within_s=60)
        most, busy, at_once = 0, set(), {}
        for event in reversed(place.recovery._journal.read(_events)):
            what, told = event
            if what == "execution_started":
                assert told["target"] not in busy, "two runs on one target"
                busy.add(told["target"])
                at_once[told["execution_id"]] = True
            elif what == "execution_ended":
                busy.discard(told["target"])
                at_once.pop(told["execution_id"])
            most = max(most, len(at_once))
        assert most == 3


def _events(db: sqlite3.Connection) -> list[tuple[str, dict[str, Any]]]:
    found = db.execute("SELECT event, evidence FROM events WHERE event LIKE 'execution%' ORDER BY seq DESC")
    return [(row["event"], json.loads(row["evidence"])) for row in found]
