"""From an alert over the link to a run that a person approved over the socket: real guardian, journal, HTTP, engine."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.chain.checking import check
from guardian_link import Alert, GuardianClient
from supervisors.api.app import create_app
from supervisors.api.server import ApiServer
from supervisors.manager import CommandFailed, NotAllowed
from supervisors.remote import Base, RemoteManager
from tests.outside.fake_manager import FakeManager
from tests.recovery.place import Place, World, recovering
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually, holds_for

ME = pwd.getpwuid(os.geteuid()).pw_name
TOKEN = "canary-token-5b1f"


class Votes(FakeManager):
    """A manager whose approvals are those of a real recovery."""

    place: Place

    def approvals(self) -> Any:
        return self.place.recovery.waiting_approvals()

    def approve(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Any:
        return self.place.recovery.approve(execution_id, by=by, plan=plan, why=why)

    def reject(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Any:
        return self.place.recovery.reject(execution_id, by=by, plan=plan, why=why)


@contextmanager
def asking(folder: Path, **approval: Any) -> Iterator[tuple[Place, ApiServer, Path]]:
    library = folder / "runbooks"
    library.mkdir()
    file = library / "reduce.json"
    file.write_text(json.dumps({**GOOD, "id": "reduce", "priority": 99, "approval": {"timeout": "60s", **approval}}))
    with recovering(folder / "state", World(), runbooks=(library,)) as place:
        manager = Votes()
        manager.place = place
        server = ApiServer(create_app(manager, tokens=lambda: {"cleo": TOKEN}), "127.0.0.1:0", folder / "operator.sock")
        server.start()
        try:
            yield place, server, file
        finally:
            server.close(10.0)


def wanted(place: Place) -> tuple[str, str]:
    with GuardianClient(place.address) as guardian:
        ack = guardian.send(Alert(type="service_failure", service="a", message="no heartbeat"), timeout_s=30)
        assert ack.decision is not None
        assert ack.decision.outcome == "awaiting_approval", ack
        execution_id = str(ack.decision.execution_id)

    def look() -> str | None:
        return next((one["plan"] for one in place.recovery.waiting_approvals() if "plan" in one), None)

    return execution_id, eventually(look, within_s=30, what="the request")


def status(place: Place, execution_id: str) -> str:
    found = place.recovery.records.execution(execution_id)
    assert found is not None
    return str(found["status"])


def test_it_runs_once_somebody_agreed_and_not_before(tmp_path: Path) -> None:
    with asking(tmp_path) as (place, _server, _file):
        execution_id, plan = wanted(place)
        holds_for(lambda: place.world.restarts == [], 0.5)
        with RemoteManager(Base(state_dir=tmp_path)) as remote:
            (shown,) = remote.approvals()
            assert shown["steps"][0].startswith("1. Restart: service_restart")
            came = remote.approve(execution_id, by="cli:somebody-else", plan=plan[:12])
        assert came["outcome"] == "granted"
        eventually(lambda: status(place, execution_id) == "succeeded", within_s=30)
        assert place.world.restarts == ["a"]
        with recording(place) as rows:
            assert rows == [f"user:{ME}"], "the name is the kernel's, not the one that was sent"
    assert check(tmp_path / "state").findings == []


@contextmanager
def recording(place: Place) -> Iterator[list[str]]:
    journal = place.recovery.records.journal
    yield journal.read(lambda db: [row["who"] for row in db.execute("SELECT who FROM approvals")])


def test_over_tcp_only_a_token_says_who_asks(tmp_path: Path) -> None:
    with asking(tmp_path, approvers=["cleo"]) as (place, server, _file):
        execution_id, plan = wanted(place)
        with RemoteManager(Base(address=server.address)) as nobody, pytest.raises(NotAllowed, match="not known"):
            nobody.approve(execution_id, by="user:cleo", plan=plan)
        stolen = Base(address=server.address, token="wrong")
        with RemoteManager(stolen) as other, pytest.raises(NotAllowed, match="no operator's"):
            other.approve(execution_id, by="user:cleo", plan=plan)
        with RemoteManager(Base(state_dir=tmp_path)) as me, pytest.raises(CommandFailed, match="none of those who may"):
            me.approve(execution_id, by="user:cleo", plan=plan)
        forged = {"plan": plan, "by": "user:cleo", "who": "user:cleo"}
        answer = httpx.post(f"{server.address}/v1/approvals/{execution_id}/approve", json=forged, timeout=30)
        assert answer.status_code == 422
        assert status(place, execution_id) == "awaiting_approval"
        with RemoteManager(Base(address=server.address, token=TOKEN)) as cleo:
            assert cleo.approve(execution_id, by="x", plan=plan)["outcome"] == "granted"
        with recording(place) as rows:
            assert rows == ["token:cleo"]


def test_an_edited_file_makes_it_void_also_when_the_daemon_has_not_read_it(tmp_path: Path) -> None:
    with asking(tmp_path) as (place, _server, file):
        execution_id, plan = wanted(place)
        file.write_text(file.read_text().replace("For tests", "Edited"))
        with RemoteManager(Base(state_dir=tmp_path)) as remote:
            came = remote.approve(execution_id, by="x", plan=plan)
        assert (came["outcome"], status(place, execution_id)) == ("void", "rejected")
        assert place.world.restarts == []
        alerts = eventually(
            lambda: [one for one in place.recovery.records.alerts(50) if one["type"] == "approval_void"], within_s=30
        )
        assert alerts[0]["severity"] == "critical"


def test_a_rejected_one_never_runs_and_its_sender_hears_of_it(tmp_path: Path) -> None:
    with asking(tmp_path) as (place, _server, _file):
        execution_id, _plan = wanted(place)
        with GuardianClient(place.address) as guardian, RemoteManager(Base(state_dir=tmp_path)) as remote:
            remote.reject(execution_id, by="x", why="not now")
            outcome = guardian.wait(execution_id, timeout_s=30)
        assert outcome.status == "rejected"
        assert place.world.restarts == []


def test_after_its_time_it_is_over_and_the_safe_runbook_ran(tmp_path: Path) -> None:
    with asking(tmp_path, timeout="1500ms", on_timeout="safe_action", safe_action="block") as (place, _server, file):
        safe = {**GOOD, "id": "block", "match": {"field": "/type", "op": "eq", "value": "never"}}
        (file.parent / "block.json").write_text(json.dumps(safe))
        execution_id, _plan = wanted(place)
        eventually(lambda: status(place, execution_id) == "expired", within_s=30)
        runs = eventually(
            lambda: [one for one in place.recovery.records.executions(9) if one["status"] == "succeeded"], within_s=30
        )
        assert [one["runbook"] for one in runs] == ["block"]
        assert place.world.restarts == ["a"]
