"""An endpoint's client: what it keeps, what it says of itself, and the platform's mixin round it."""

from __future__ import annotations

import enum
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_link import BridgeClient, CommunicationBridge, store
from bridge_link.errors import BadAddress, KeyMissing, LinkClosed, LinkTimeout, Refused, StoreUnusable, WireError
from bridge_link.pump import Incoming
from bridge_link.report import as_report
from bridge_link.store import BridgeStore
from bridge_link.wire import Kind, Message, decode, encode, nack
from guardian_link.messages import Alert
from tests.links.scripted_daemon import ScriptedDaemon, daemon, obliging
from tests.support.eventually import eventually
from tests.system.running import free_port

MQL4 = {"system": "mql4", "error_code": 4051, "error_message": "Invalid function parameter value", "severity": "medium"}


def alerts(scripted: ScriptedDaemon) -> list[Message]:
    return [one for one in scripted.seen if one.kind is Kind.ALERT]


def silent(_: Incoming, __: int) -> list[Message]:
    return []


# -- errors as alerts -------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers(), inner, max_size=5),
    max_leaves=30,
)
words = st.sampled_from(
    ["type", "service", "severity", "id", "labels", "error_message", "error_id", "system", "error_type", "dedup_key"]
)


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(words | st.text(max_size=5), anything, max_size=8))
def test_whatever_an_error_is_made_of_the_daemon_can_read_it(error: dict[str, Any]) -> None:
    sent = decode(encode(Message(Kind.ALERT, "golden-0001", as_report(error))))
    alert = Alert.from_mapping(sent.body, id=sent.id)
    assert alert.id == "golden-0001"


@pytest.mark.parametrize(
    ("error", "alert_type", "severity"),
    [
        (MQL4, "bridge_mql4_failure", "medium"),
        ({"system": "powershell", "error_type": "PowerShellError", "severity": "Warning"}, None, "medium"),
        ({"error_type": "MQL4Error"}, "bridge_mql4_failure", "high"),
        ({"error_type": "ConfigSyncError"}, "bridge_config_sync_failure", "high"),
        ({"error_type": "KeyError"}, "bridge_python_failure", "high"),
        ({"system": "Some Thing/7"}, "bridge_some_thing_7_failure", "high"),
        ({"type": "database_connection_failure"}, "database_connection_failure", "high"),
        ({"severity": "panic"}, "bridge_python_failure", "high"),
    ],
)
def test_the_type_and_severity_of_an_error(error: Mapping[str, Any], alert_type: str | None, severity: str) -> None:
    alert = Alert.from_mapping(as_report(error))
    assert alert.type == (alert_type or "bridge_powershell_failure")
    assert alert.severity == severity


def test_an_exception_tells_where_it_was_and_a_huge_error_is_cut() -> None:
    try:
        os.stat("/no/such/file")  # noqa: PTH116  the error it raises is what is wanted
    except OSError as error:
        report = as_report(error)
    assert report["error_type"] == "FileNotFoundError"
    assert "test_bridge_client.py" in report["location"]
    assert "os.stat" in report["traceback"]
    huge = as_report({"error_message": "x" * 10**6, "context": {str(n): ["y" * 5000] * 50 for n in range(90)}})
    assert huge["error_message"].endswith("...")
    assert "was_cut" in huge
    encode(Message(Kind.ALERT, "golden-0001", huge))


class Code(enum.IntEnum):
    """A range would be walked for one: 2**63 steps."""

    BAD = 4051


def test_a_number_of_an_enum_is_a_number() -> None:
    assert as_report({"error_code": Code.BAD})["error_code"] == 4051
    encode(Message(Kind.ALERT, "golden-0001", {"type": "a", "labels": {"code": Code.BAD}}))
    with pytest.raises(WireError, match="64 bits"):
        encode(Message(Kind.ALERT, "golden-0001", {"type": "a", "labels": {"code": 2**63}}))


@pytest.mark.parametrize(
    "text", ["\N{GRINNING FACE}\n" * 9000, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 20_000, "a\n" * 9000]
)
def test_however_its_texts_are_written_an_error_fits(text: str) -> None:
    names = ("error_message", "message", "error_type", "dedup_key", "source", "system", "traceback")
    report = as_report(dict.fromkeys(names, text) | {"labels": {"path": "/data", "huge": ["x" * 1900] * 50}})
    encode(Message(Kind.ALERT, "golden-0001", report))
    assert report["labels"]["path"] == "/data", "what is short is kept"
    assert report["error_message"].endswith("...")
    assert "was_cut" in report


def test_what_is_inside_itself_has_an_end() -> None:
    many: list[Any] = []
    many.extend([many] * 100)
    encode(Message(Kind.ALERT, "golden-0001", as_report({"error_code": 1, "context": many})))


def test_of_many_facts_those_that_people_need_are_kept() -> None:
    report = as_report({f"fact{number}": number for number in range(200)} | {"error_message": "gone"})
    assert (report["error_message"], "was_cut" in report) == ("gone", True)


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_an_error_nobody_takes_is_kept_and_sent_when_somebody_comes(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with BridgeClient(address, name="mql4", folder=tmp_path) as bridge:
        with pytest.raises(LinkTimeout, match="kept and goes on being sent"):
            bridge.send_error(MQL4, timeout_s=0.2)
        assert bridge.waiting == 1
    with BridgeClient(address, name="mql4", folder=tmp_path) as bridge:
        scripted = ScriptedDaemon(obliging)
        scripted.open(address)
        eventually(lambda: bridge.waiting == 0)
        scripted.pump.close()
    (alert, *_) = alerts(scripted)
    assert (alert.body["error_code"], alert.body["source"]) == (4051, "bridge:mql4")


KILLED = """
import sys, threading
from bridge_link import BridgeClient
bridge = BridgeClient(sys.argv[1], name="mql4", folder=sys.argv[2])
for number in range(200):
    print(bridge.post_error({"system": "mql4", "error_code": number}), flush=True)
threading.Event().wait()
"""


def test_trap_1_a_bridge_killed_while_errors_wait_loses_none(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, address, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as dying:
        assert dying.stdout is not None
        posted = [dying.stdout.readline().strip() for _ in range(120)]
        dying.send_signal(signal.SIGKILL)
        posted += [line.strip() for line in dying.stdout if line.endswith("\n")]
    scripted = ScriptedDaemon(obliging)
    scripted.open(address)
    with BridgeClient(address, name="mql4", folder=tmp_path) as bridge:
        eventually(lambda: bridge.waiting == 0, within_s=30)
    scripted.pump.close()
    assert {one.id for one in alerts(scripted)} >= set(posted)


def test_a_decision_is_heard_although_the_daemon_moved_after_storing(tmp_path: Path) -> None:
    def stores_only(incoming: Incoming, times: int) -> list[Message]:
        return [one for one in obliging(incoming, times) if one.kind is Kind.STORED]

    with daemon(stores_only) as (first, one), daemon() as (_, other):
        (tmp_path / "bridge.address").write_text(one)
        with BridgeClient(name="mql4", state_dir=tmp_path) as bridge:
            told: list[str | None] = []
            waiting = threading.Thread(target=lambda: told.append(bridge.send_error(MQL4, timeout_s=20)))
            waiting.start()
            eventually(lambda: alerts(first) and bridge.waiting == 0)
            (tmp_path / "bridge.address").write_text(other)
            waiting.join(20)
            assert told == ["x-1"]


def test_trap_9_what_is_refused_is_said_kept_aside_and_stops_nothing(tmp_path: Path) -> None:
    def picky(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.body.get("error_code") == 13:
            return [nack(incoming.message.id, "forbidden", "not you", permanent=True)]
        return obliging(incoming, times)

    with daemon(picky) as (_, address), BridgeClient(address, name="mql4", folder=tmp_path) as bridge:
        with pytest.raises(Refused, match="forbidden"):
            bridge.send_error(MQL4 | {"error_code": 13})
        assert bridge.send_error(MQL4) == "x-1"
        assert [(one.code, one.body["error_code"]) for one in bridge.refused] == [("forbidden", 13)]
        assert bridge.waiting == 0


def test_a_disk_that_takes_nothing_does_not_stop_an_error(tmp_path: Path) -> None:
    with daemon() as (scripted, address), BridgeClient(address, name="mql4", folder=tmp_path) as bridge:
        with sqlite3.connect(tmp_path / "mql4.bridge.db") as other:
            other.execute("DROP TABLE errors")
            other.commit()
        other.close()
        posted = bridge.post_error(MQL4)
        assert "no such table" in (bridge.trouble or "")
        eventually(lambda: posted in {one.id for one in alerts(scripted)})


def test_a_file_that_is_no_store_and_one_that_is_full_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mql4.bridge.db").write_text("not a database " * 1000)
    with pytest.raises(StoreUnusable, match="mql4"):
        BridgeStore(tmp_path, "mql4")


def test_what_waits_is_bounded_and_what_was_refused_takes_none_of_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ERRORS", 5)
    monkeypatch.setattr(store, "MOST_REFUSED", 3)
    box = BridgeStore(tmp_path, "full")
    for number in range(20):
        box.keep(f"number-{number}", {"n": number})
        if number % 5:
            box.bury(f"number-{number}", "forbidden", "not you")
    assert [one.id for one in box.refused()] == ["number-17", "number-18", "number-19"]
    assert [one for one, _ in box.waiting(9)] == ["number-0", "number-5", "number-10", "number-15"]
    box.keep("the-fifth", {})
    with pytest.raises(StoreUnusable, match="5 errors wait already"):
        box.keep("one-more", {})
    box.delivered(["number-5"])
    box.keep("one-more", {})
    box.close()


def test_a_refused_error_is_sent_again_or_forgotten(tmp_path: Path) -> None:
    answers = [nack, nack]

    def strict(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.kind is Kind.ALERT and answers:
            return [answers.pop()(incoming.message.id, "forbidden", "not you", permanent=True)]
        return obliging(incoming, times)

    with daemon(strict) as (scripted, address), BridgeClient(address, name="mql4", folder=tmp_path) as bridge:
        first, second = bridge.post_error(MQL4), bridge.post_error(MQL4)
        eventually(lambda: {one.id for one in bridge.refused} == {first, second})
        assert bridge.bring_back(first)
        eventually(lambda: [one.id for one in alerts(scripted)].count(first) == 2 and bridge.waiting == 0)
        assert not bridge.bring_back(first)
        bridge.forget_refused(second)
        assert bridge.refused == []


# -- the link ---------------------------------------------------------------------------------------------------------


def test_it_introduces_itself_and_its_heartbeats_carry_its_facts() -> None:
    facts: list[Any] = [{"account": 7, "terminal": object}]
    with (
        daemon() as (scripted, address),
        BridgeClient(
            address,
            name="mql4",
            kind="mt4",
            version="1.2",
            commands={"reconnect": print},
            facts=lambda: facts[0],
            beat_every_s=0.05,
        ) as bridge,
    ):
        hello = eventually(lambda: next((one for one in scripted.seen if one.kind is Kind.HELLO), None))
        beat = eventually(lambda: next((one for one in scripted.seen if one.kind is Kind.HEARTBEAT), None))
        assert (hello.body["name"], hello.body["kind"], hello.body["version"]) == ("mql4", "mt4", "1.2")
        assert hello.body["commands"] == ["reconnect"]
        assert (beat.body["session"], beat.body["facts"]["account"]) == (hello.body["session"], 7)
        facts[0] = None
        eventually(lambda: "facts failed" in (bridge.trouble or ""))
        seen = len(scripted.seen)
        eventually(lambda: len(scripted.seen) > seen + 3)


def test_the_first_thing_after_a_reconnect_is_a_heartbeat() -> None:
    """A client that beats once a minute is heard at once: silence must not be counted against it."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with BridgeClient(address, name="mql4", beat_every_s=60) as bridge:
        eventually(lambda: bridge._courier._reach)
        scripted = ScriptedDaemon(silent)
        scripted.open(address)
        eventually(lambda: any(one.kind is Kind.HEARTBEAT for one in scripted.seen), within_s=20)
        scripted.pump.close()


def test_a_daemon_that_comes_later_is_found_and_what_is_named_and_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BridgeClient(name="mql4", state_dir=tmp_path) as bridge:
        eventually(lambda: str(tmp_path / "bridge.address") in (bridge.trouble or ""))
        with daemon() as (_, address):
            (tmp_path / "bridge.address").write_text(address)
            assert bridge.send_error(MQL4, timeout_s=20) == "x-1"
    with pytest.raises(LinkClosed):
        bridge.post_error(MQL4)
    with pytest.raises(BadAddress):
        BridgeClient("nowhere", name="mql4")
    with pytest.raises(KeyMissing, match=r"missing\.key"):
        BridgeClient(name="mql4", key_file=tmp_path / "missing.key")
    monkeypatch.delenv("SELFHEAL_KEY")
    BridgeClient(name="mql4", state_dir=tmp_path).close()


# -- the mixin --------------------------------------------------------------------------------------------------------


class Bridge(CommunicationBridge):
    bridge_name = "mql4"
    bridge_timeout_s = 20.0


def test_the_mixin_takes_data_and_exceptions_from_many_threads() -> None:
    bridge, told = Bridge(), []
    with daemon() as (scripted, bridge.bridge_address):
        calls: list[tuple[Any, ...]] = [
            ("MQL4Error", MQL4),
            ("SyncError", ValueError("bad row")),
            (RuntimeError("lost"),),
            ("MQL4Error", MQL4 | {"error_id": "mine"}),
        ] * 4
        threads = [
            threading.Thread(target=lambda one=call: told.append(bridge.handle_bridge_error(*one))) for call in calls
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        eventually(lambda: any(one.kind is Kind.HELLO for one in scripted.seen))
        bridge.close_bridge()
    assert told == ["x-1"] * len(calls)
    sent = {(one.body["error_type"], one.body["error_id"], one.body["type"]) for one in alerts(scripted)}
    assert sent == {
        ("MQL4Error", "bridge_MQL4Error", "bridge_mql4_failure"),
        ("MQL4Error", "mine", "bridge_mql4_failure"),
        ("SyncError", "bridge_SyncError", "bridge_python_failure"),
        ("RuntimeError", "bridge_RuntimeError", "bridge_python_failure"),
    }
    sessions = {one.body["session"] for one in scripted.seen if one.kind in (Kind.HEARTBEAT, Kind.HELLO)}
    assert len(sessions) == 1, "one client for all threads"


def test_the_mixin_answers_none_while_the_daemon_is_away_and_the_error_is_sent_later(tmp_path: Path) -> None:
    bridge = Bridge()
    bridge.bridge_address = f"tcp://127.0.0.1:{free_port()}"
    bridge.bridge_folder, bridge.bridge_timeout_s = tmp_path, 0.1
    assert bridge.handle_bridge_error("MQL4Error", MQL4) is None
    scripted = ScriptedDaemon(obliging)
    scripted.open(bridge.bridge_address)
    (alert, *_) = eventually(lambda: alerts(scripted), within_s=20)
    assert alert.body["error_code"] == 4051
    bridge.close_bridge()
    scripted.pump.close()
