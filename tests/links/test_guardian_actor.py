"""The link as an actor among pykka actors: what it is told is done, answered once, and never by its own thread."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest

from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message
from guardian_link import Ack, Alert, BadAlert, DaemonUnreachable, Event, GuardianLinkActor
from guardian_link.errors import LinkBusy, OutboxUnusable
from guardian_link.lane import Lane
from guardian_link.link_messages import (
    BadRequest,
    ExecuteRecovery,
    GetExecutionStatus,
    GetRecoveryStatistics,
    Reply,
    SendAlert,
    Subscribe,
    TriggerRecovery,
    Unsubscribe,
    WaitForExecution,
    read_request,
)
from guardian_link.outbox import Outbox
from tests.links.scripted_daemon import ScriptedDaemon, daemon, obliging, together
from tests.support.eventually import eventually, holds_for

ALERT = {"type": "service_failure", "service": "risk-manager"}


class Asker(pykka.ThreadingActor):
    """Keeps what it is told."""

    def __init__(self, kept: list[Any]) -> None:
        super().__init__()
        self._kept = kept

    def on_receive(self, message: Any) -> None:
        self._kept.append(message)


@pytest.fixture(autouse=True)
def _no_actor_is_left() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all(block=True, timeout=30)


@pytest.fixture
def kept() -> list[Any]:
    return []


@pytest.fixture
def asker(kept: list[Any]) -> pykka.ActorRef[Asker]:
    return Asker.start(kept)


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def replies(kept: list[Any], *tags: object) -> dict[object, Reply]:
    """The answers with these tags, once all have come; each came once."""
    found = eventually(lambda: kept if {one.tag for one in kept} >= set(tags) else None, within_s=30)
    assert len(found) == len(tags), found
    return {one.tag: one for one in found}


def test_every_request_is_answered_with_its_tag(kept: list[Any], asker: pykka.ActorRef[Asker]) -> None:
    with daemon() as (scripted, address):
        link = GuardianLinkActor.start(address)
        for request in (
            SendAlert(ALERT, asker, "send"),
            ExecuteRecovery("silent", {"system": "database"}, asker, "execute"),
            TriggerRecovery({"constraint_type": "service_availability", "service": "a"}, asker, "trigger"),
            GetExecutionStatus("x-1", asker, "status"),
            GetRecoveryStatistics(asker, "statistics"),
            WaitForExecution("x-1", asker, 10.0, "wait"),
            {"do": "execute_recovery", "error_id": "e", "error_data": ALERT, "reply_to": asker, "tag": "dictionary"},
            {**ALERT, "reply_to": asker, "tag": "plain dictionary"},
        ):
            link.tell(request)
        tags = ("send", "execute", "trigger", "status", "statistics", "wait", "dictionary", "plain dictionary")
        found = replies(kept, *tags)
        link.stop()
    assert {one.error for one in kept} == {None}
    assert isinstance(found["send"].result, Ack)
    assert [found[tag].result for tag in ("execute", "trigger", "dictionary")] == ["x-1"] * 3
    assert found["status"].result["status"] == "succeeded"
    assert found["statistics"].result["total_executions"] == 3
    assert found["wait"].result.is_recovered
    bodies = [one.body for one in scripted.seen if one.kind is Kind.ALERT]
    assert {body["type"] for body in bodies} == {"service_failure", "database_connection_failure", "service_down"}
    assert {body["dedup_key"] for body in bodies if "dedup_key" in body} == {"silent", "e"}


@pytest.mark.parametrize(
    "junk",
    [
        None,
        7,
        "text",
        b"\xff",
        object(),
        {},
        {"do": "fly"},
        {"do": ["send"]},
        {"do": "wait"},
        {"do": "wait", "execution_id": "x", "reply_to": 5},
        {"type": "x y"},
        {"type": "a", "severity": "PURPLE"},
        SendAlert({"type": 7}),
        SendAlert(ALERT, reply_to="nobody"),  # type: ignore[arg-type]
        ExecuteRecovery("e", None),  # type: ignore[arg-type]
        TriggerRecovery(object()),
        TriggerRecovery(None),
    ],
    ids=lambda junk: type(junk).__name__,
)
def test_it_survives_what_is_no_request(junk: Any, caplog: pytest.LogCaptureFixture) -> None:
    with daemon() as (scripted, address):
        link = GuardianLinkActor.start(address)
        link.tell(junk)
        assert link.ask(ALERT, timeout=10) is not None
        eventually(lambda: [one.body["service"] for one in scripted.seen] == ["risk-manager"])
        link.stop()
    assert "guardian_link" in {record.name for record in caplog.records if record.levelname == "ERROR"}


def test_who_asks_wrongly_is_told_so(kept: list[Any], asker: pykka.ActorRef[Asker]) -> None:
    link = GuardianLinkActor.start(nobody())
    link.tell({"do": "fly", "reply_to": asker, "tag": 1})
    link.tell({"type": "x y", "reply_to": asker, "tag": 2})
    found = replies(kept, 1, 2)
    assert isinstance(found[1].error, BadRequest)
    assert "fly" in str(found[1].error)
    assert isinstance(found[2].error, BadAlert)


def test_its_own_thread_waits_for_nobody(kept: list[Any], asker: pykka.ActorRef[Asker], tmp_path: Path) -> None:
    """A silent daemon and more questions than threads: the next alert is taken at once, and kept."""
    with daemon(lambda *_: []) as (_, address):
        link = GuardianLinkActor.start(address, outbox=tmp_path / "outbox.db", timeout_s=0.5)
        for number in range(12):
            link.tell(GetRecoveryStatistics(asker, number))
            link.tell(WaitForExecution("x-1", asker, 0.5, 100 + number))
        began = time.monotonic()
        alert_id = link.ask(ALERT, timeout=10)
        assert time.monotonic() - began < 1.0
        box = Outbox(tmp_path / "outbox.db")
        eventually(lambda: [one.id for one in box.waiting(9)] == [alert_id])
        box.close()
        found = replies(kept, *range(12), *range(100, 112))
        assert {type(one.error) for one in found.values()} >= {DaemonUnreachable}
        assert all(one.error is not None for one in found.values())
        link.stop()


def test_each_recovery_is_answered_in_its_own_time(
    kept: list[Any], asker: pykka.ActorRef[Asker], tmp_path: Path
) -> None:
    """Nobody is there. One behind the other's time, forty of them would take a quarter of a minute."""
    link = GuardianLinkActor.start(nobody(), outbox=tmp_path / "outbox.db", timeout_s=1.5)
    began = time.monotonic()
    for number in range(40):
        link.tell(ExecuteRecovery(f"e{number}", ALERT, asker, number))
    found = replies(kept, *range(40))
    assert time.monotonic() - began < 5.0
    assert {type(one.error) for one in found.values()} == {DaemonUnreachable}
    link.stop()
    box = Outbox(tmp_path / "outbox.db")
    assert [one.dedup_key for one in box.waiting(99)] == [f"e{number}" for number in range(40)]
    box.close()


def test_all_that_are_told_are_on_their_way_at_once(kept: list[Any], asker: pykka.ActorRef[Asker]) -> None:
    """None is decided before the last one has come."""
    with daemon(together(40)) as (_, address):
        link = GuardianLinkActor.start(address, timeout_s=20.0)
        for number in range(40):
            link.tell(ExecuteRecovery(f"e{number}", ALERT, asker, number))
        assert {(one.result, one.error) for one in replies(kept, *range(40)).values()} == {("x-1", None)}
        link.stop()


def test_the_time_of_an_alert_counts_from_when_it_was_told(
    kept: list[Any], asker: pykka.ActorRef[Asker], tmp_path: Path
) -> None:
    """The outbox is held for two of the three seconds it has."""
    link = GuardianLinkActor.start(nobody(), outbox=tmp_path / "outbox.db", timeout_s=3.0)
    link.tell(GetExecutionStatus("x-1", asker, "the link has begun"))
    replies(kept, "the link has begun")
    kept.clear()
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    link.tell(ALERT)  # the other one waits behind it
    link.tell(SendAlert(ALERT, asker, 1))
    holds_for(lambda: not kept, 2.0)
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(replies(kept, 1)[1].error, DaemonUnreachable)
    assert 2.9 < time.monotonic() - began < 4.5
    link.stop()


def test_a_decision_for_which_nobody_can_wait_is_said_and_its_alert_is_kept(
    kept: list[Any], asker: pykka.ActorRef[Asker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardian_link.link_work.MOST_DECISIONS", 1)
    link = GuardianLinkActor.start(nobody(), outbox=tmp_path / "outbox.db", timeout_s=1.5)
    for number in (1, 2):
        link.tell(ExecuteRecovery(f"e{number}", ALERT, asker, number))
    found = replies(kept, 1, 2)
    assert {number: type(one.error) for number, one in found.items()} == {1: DaemonUnreachable, 2: LinkBusy}
    assert "it is kept and goes on being sent" in str(found[2].error)
    link.tell(ExecuteRecovery("e3", ALERT, asker, 3))
    eventually(lambda: len(kept) == 3)
    assert isinstance(kept[2].error, DaemonUnreachable), "there is room again"
    link.stop()
    box = Outbox(tmp_path / "outbox.db")
    assert [one.dedup_key for one in box.waiting(9)] == ["e1", "e2", "e3"]
    box.close()


def test_what_it_was_told_before_its_stop_is_kept_and_delivered_later(
    kept: list[Any], asker: pykka.ActorRef[Asker], tmp_path: Path
) -> None:
    address, path = nobody(), tmp_path / "outbox.db"
    link = GuardianLinkActor.start(address, outbox=path)
    for number in range(50):
        link.tell(Alert(type="noise", message=str(number)))
    link.tell(SendAlert(ALERT, asker, "open"))
    link.stop(timeout=20)
    assert isinstance(replies(kept, "open")["open"].error, (DaemonUnreachable, OutboxUnusable))
    box = Outbox(path)
    assert [one.message for one in box.waiting(99)] == [*map(str, range(50)), ""]
    box.close()
    scripted = ScriptedDaemon(obliging)
    scripted.open(address)
    try:
        again = GuardianLinkActor.start(address, outbox=path)
        eventually(lambda: len({one.id for one in scripted.seen}) == 51, within_s=20)
        again.stop()
    finally:
        scripted.pump.close()


def test_no_daemon_yet_and_no_outbox_is_said(
    kept: list[Any], asker: pykka.ActorRef[Asker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = GuardianLinkActor.start(state_dir=tmp_path)
    link.tell(ALERT)
    link.tell(SendAlert(ALERT, asker, 1))
    assert "is the daemon running?" in str(replies(kept, 1)[1].error)
    assert "was not done" in caplog.text
    with daemon() as (scripted, address):
        (tmp_path / "guardian.address").write_text(address)
        link.tell(ALERT)
        eventually(lambda: scripted.seen)
        link.stop()


def test_alerts_that_wait_at_the_stop_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with daemon(lambda *_: []) as (scripted, address):
        link = GuardianLinkActor.start(address)
        link.tell(ALERT)
        eventually(lambda: scripted.seen)
        link.stop()
    assert "stopped with 1 alerts that are not known to be delivered" in caplog.text


def test_one_who_asked_and_died_harms_nobody(kept: list[Any]) -> None:
    dead = Asker.start(kept)
    dead.stop()
    with daemon() as (scripted, address):
        link = GuardianLinkActor.start(address)
        link.tell(GetRecoveryStatistics(dead))
        link.tell(SendAlert(ALERT, dead))
        link.tell(Subscribe(dead, after=0))
        assert link.ask(ALERT, timeout=10) is not None
        eventually(lambda: len([one for one in scripted.seen if one.kind is Kind.ALERT]) == 2)
        link.stop()
    assert kept == []


def test_a_stop_ends_every_thread_and_answers_who_waits(kept: list[Any], asker: pykka.ActorRef[Asker]) -> None:
    def running(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.kind is Kind.QUERY and incoming.message.body["ask"] == "execution":
            return [Message(Kind.ANSWER, incoming.message.id, {"ok": True, "result": {"status": "running"}})]
        return obliging(incoming, times)

    with daemon(running) as (scripted, address):
        link = GuardianLinkActor.start(address)
        link.tell(WaitForExecution("x-1", asker, 600.0, "wait"))
        eventually(lambda: scripted.seen)
        began = time.monotonic()
        link.stop(timeout=20)
        assert time.monotonic() - began < 8
        assert isinstance(replies(kept, "wait")["wait"].error, DaemonUnreachable)
    eventually(lambda: not [one.name for one in threading.enumerate() if one.name.startswith("guardian-link")])


def test_a_subscriber_is_told_each_event_until_it_wants_no_more(kept: list[Any], asker: pykka.ActorRef[Asker]) -> None:
    last = [2]

    def events(incoming: Incoming, times: int) -> list[Message]:
        question = incoming.message.body
        if question.get("ask") != "events":
            return obliging(incoming, times)
        shown = [
            {"seq": seq, "at": "", "path": "root", "event": "e", "text": "", "evidence": {}}
            for seq in range(question["after"] + 1, last[0] + 1)
        ]
        result = {"epoch": "e" * 8, "first": 1, "last": last[0], "events": shown, "address": None}
        return [Message(Kind.ANSWER, incoming.message.id, {"ok": True, "result": result})]

    with daemon(events) as (_, address):
        link = GuardianLinkActor.start(address)
        link.tell(Subscribe(asker, after=0, tag="events"))
        eventually(lambda: len(kept) == 3)
        assert kept[0] == Reply(kept[0].request, "events")
        last[0] = 4
        eventually(lambda: len(kept) == 5, within_s=20)
        assert [one.seq for one in kept if isinstance(one, Event)] == [1, 2, 3, 4]
        link.tell(Unsubscribe(asker, "over"))
        eventually(lambda: any(isinstance(one, Reply) and one.tag == "over" for one in kept))
        eventually(lambda: not any(one.name == "guardian-link-events" for one in threading.enumerate()))
        link.stop()


def test_a_lane_is_bounded_and_keeps_its_order() -> None:
    hold = threading.Event()
    done: list[int] = []
    lane = Lane("test-lane", most=2, threads=1)

    def first() -> None:
        hold.wait(30)
        done.append(0)

    assert lane.put(first)
    eventually(lambda: not lane._jobs)
    assert [lane.put(lambda n=n: done.append(n)) for n in (1, 2, 3)] == [True, True, False]  # type: ignore[misc]
    assert lane.close(0.05) == 2
    hold.set()
    assert lane.close(10) == 0
    assert done == [0, 1, 2]
    assert not lane.put(lambda: None)


def test_too_many_who_wait_are_told_that_it_is_busy(
    kept: list[Any], asker: pykka.ActorRef[Asker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardian_link.link_work.MOST_WAITS", 1)
    with daemon(lambda *_: []) as (_, address):
        link = GuardianLinkActor.start(address)
        link.tell(WaitForExecution("x-1", asker, 600.0, 1))
        link.tell(WaitForExecution("x-1", asker, 600.0, 2))
        eventually(lambda: kept)
        assert (kept[0].tag, type(kept[0].error)) == (2, LinkBusy)
        link.stop()


def test_what_a_request_is() -> None:
    alert = Alert(type="a")
    assert read_request(alert) == SendAlert(alert)
    assert read_request({"type": "a", "tag": 3}) == SendAlert({"type": "a"}, None, 3)
    assert read_request({"do": "send", "alert": alert}) == SendAlert(alert)


def test_the_light_install_names_what_the_actor_needs() -> None:
    code = (
        "import sys\n"
        "sys.modules['pykka'] = None\n"
        "import guardian_link\n"
        "guardian_link.GuardianAgent, guardian_link.Event\n"
        "try:\n"
        "    guardian_link.GuardianLinkActor\n"
        "except ModuleNotFoundError as missing:\n"
        "    print(missing)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "GuardianLinkActor needs pykka: pip install pykka\n"
