"""The outbox: what was posted is delivered, whoever dies meanwhile, and what is refused is not lost either."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack
from guardian_link import Alert, AlertRefused, DaemonUnreachable, GuardianClient
from guardian_link.errors import OutboxFull, OutboxUnusable
from guardian_link.late import AT_ONCE
from guardian_link.outbox import _PUT, Outbox, _written
from tests.links.scripted_daemon import ScriptedDaemon, daemon, obliging
from tests.support.eventually import eventually, holds_for

LONG_S = 30.0


def alert(**changes: Any) -> Alert:
    return Alert(**({"type": "service_failure", "service": "risk-manager", "source": "test"} | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "senders" / "outbox.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Outbox]]:
    made: list[Outbox] = []

    def make(**more: Any) -> Outbox:
        made.append(Outbox(path, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


# -- the file ---------------------------------------------------------------------------------------------------------


def test_what_was_put_is_there_in_order_after_reopening(opened: Callable[..., Outbox], path: Path) -> None:
    alerts = [alert(message=f"number {n} ü", labels={"n": n, "deep": {"a": [1, None]}}) for n in range(5)]
    first = opened()
    for one in alerts:
        first.put(one)
    first.close()
    second = opened()
    assert second.waiting(3) == alerts[:3]
    second.delivered([alerts[0].id, alerts[2].id])
    assert second.waiting(9) == [alerts[1], alerts[3], alerts[4]]
    assert len(second) == 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_commit_is_on_disk(opened: Callable[..., Outbox]) -> None:
    database = opened()._database
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_only_what_leaves_may_come_back_after_a_power_cut(opened: Callable[..., Outbox]) -> None:
    """The daemon knows it again. Whatever else is written is on disk when its call returns."""
    box, one = opened(), alert()
    level, commits = 2, list[int]()

    def look(statement: str) -> None:
        nonlocal level
        words = {"PRAGMA synchronous = NORMAL": 1, "PRAGMA synchronous = FULL": 2}
        level = words.get(statement, level)
        if statement == "COMMIT":
            commits.append(level)

    box._database.set_trace_callback(look)
    box.put(one)
    box.bury(one.id, "conflict", "another")
    box.bring_back(one.id)
    box.told([one.id])
    box.delivered([one.id])
    box.put(one)
    assert commits == [2, 2, 2, 2, 1, 2]
    with pytest.raises(OutboxUnusable):
        box.delivered([object()])  # type: ignore[list-item]
    assert box._database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL again, whatever went wrong"


def test_the_same_alert_is_kept_once_and_another_under_its_id_is_refused(opened: Callable[..., Outbox]) -> None:
    box, one = opened(), alert(id="same-id-1")
    box.put(one)
    box.put(one)
    assert len(box) == 1
    with pytest.raises(AlertRefused, match=r"conflict.*same-id-1"):
        box.put(alert(id="same-id-1", message="another"))
    assert box.waiting(9) == [one]


def test_what_cannot_be_written_is_refused_and_changes_nothing(opened: Callable[..., Outbox]) -> None:
    box = opened()
    for labels in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(AlertRefused, match="malformed: labels"):
            box.put(alert(labels=labels))
    assert len(box) == 0


def test_a_full_outbox_takes_no_more_and_says_so(opened: Callable[..., Outbox]) -> None:
    box = opened(most_letters=2)
    box.put(alert())
    box.put(alert())
    with pytest.raises(OutboxFull, match="2 alerts wait"):
        box.put(alert())
    box.delivered([box.waiting(1)[0].id])
    box.put(alert())


def test_a_dead_letter_is_kept_and_can_be_sent_again(opened: Callable[..., Outbox]) -> None:
    box, one = opened(), alert()
    box.put(one)
    box.bury(one.id, "malformed", "no such type")
    assert box.waiting(9) == []
    (dead,) = box.dead()
    assert (dead.alert, dead.code, dead.why) == (one, "malformed", "no such type")
    assert abs(dead.at - time.time()) < LONG_S
    assert box.bring_back(one.id)
    assert not box.bring_back(one.id)
    assert (box.waiting(9), box.dead()) == ([one], [])
    box.bury(one.id, "malformed", "still")
    box.forget_dead(one.id)
    assert (box.waiting(9), box.dead()) == ([], [])


def test_who_waits_too_long_is_told_once_also_when_it_was_put_before_a_reboot(opened: Callable[..., Outbox]) -> None:
    box, old, future = opened(), alert(), alert()
    box.put(old)
    assert box.late(3600.0) == []
    assert box.late(0.0) == box.late(0.0) == [(1, old)]
    box.told([old.id])
    assert box.late(0.0) == []
    box.put(future)
    box._database.execute("UPDATE letters SET posted_s = posted_s + 1e9 WHERE id = ?", (future.id,))
    assert box.late(3600.0) == [(2, future)]


def test_what_is_put_while_it_is_asked_for_is_not_late(opened: Callable[..., Outbox]) -> None:
    """It was put after the question's time: as if before a reboot."""
    box = opened()
    with ThreadPoolExecutor(1) as pool:
        with box._lock:
            asked = pool.submit(box.late, 3600.0)
            eventually(asked.running)
            holds_for(lambda: not asked.done(), 0.1)
            box._database.execute(_PUT, (*_row(alert()), time.monotonic()))
        assert asked.result(LONG_S) == []


def _row(one: Alert) -> tuple[str, str]:
    return one.id, _written(one)


def test_those_who_wait_too_long_are_asked_for_in_pages(opened: Callable[..., Outbox]) -> None:
    box, alerts = opened(), [alert() for _ in range(5)]
    assert box.first() is None
    box.put_all(alerts)
    assert [one for _, one in box.late(0.0, most=2)] == alerts[:2]
    assert [one for _, one in box.late(0.0, behind=2, most=2)] == alerts[2:4]
    box.delivered([alerts[0].id])
    assert box.first() == 2


def test_one_at_a_time_delivers(opened: Callable[..., Outbox]) -> None:
    first, second = opened(), opened()
    assert first.take_office()
    assert first.take_office()
    assert not second.take_office()
    first.close()
    assert second.take_office()


def test_a_file_that_is_no_outbox_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("these are notes, no database\n" * 100)
    with pytest.raises(OutboxUnusable, match=r"outbox\.db.*not a database"):
        Outbox(path)
    with pytest.raises(OutboxUnusable, match="outbox"):
        Outbox(path.parent)


def test_a_full_disk_is_said_and_nothing_half_is_kept(opened: Callable[..., Outbox]) -> None:
    box = opened()
    box.put(alert())
    (pages,) = box._database.execute("PRAGMA page_count").fetchone()
    box._database.execute(f"PRAGMA max_page_count = {pages}")
    large = [alert(message="x" * 4000) for _ in range(100)]

    def put_all() -> None:
        for one in large:
            box.put(one)

    with pytest.raises(OutboxUnusable, match="full"):
        put_all()
    kept = len(box)
    assert 1 <= kept < 100
    assert box.waiting(200)[1:] == large[: kept - 1]
    box._database.execute("PRAGMA max_page_count = 100000")
    box.put(alert())
    assert len(box) == kept + 1


# -- the way to the daemon --------------------------------------------------------------------------------------------


def test_an_alert_posted_before_there_is_a_daemon_is_delivered_when_it_comes(path: Path) -> None:
    address = free_address()
    with GuardianClient(address, outbox=path) as guardian:
        ids = [guardian.post(alert()) for _ in range(200)]
        scripted = ScriptedDaemon(obliging)
        scripted.open(address)
        try:
            eventually(lambda: {one.id for one in scripted.seen} == set(ids), within_s=LONG_S)
            assert guardian.outbox is not None
            box = guardian.outbox
            eventually(lambda: len(box) == 0, within_s=LONG_S)
        finally:
            scripted.pump.close()


def test_a_daemon_nobody_knows_of_yet_is_found_when_it_comes_and_when_it_moves(path: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with GuardianClient(state_dir=state, outbox=path) as guardian:
        with pytest.raises(DaemonUnreachable, match="no guardian address"):
            guardian.send(alert(), timeout_s=0.1)
        eventually(lambda: guardian.trouble and "no guardian address" in guardian.trouble, within_s=LONG_S)
        for _ in range(2):
            with daemon() as (scripted, address):
                (state / "guardian.address").write_text(address + "\n")
                last = guardian.post(alert())
                eventually(lambda s=scripted, i=last: i in {one.id for one in s.seen}, within_s=LONG_S)  # type: ignore[misc]
                assert guardian.send(alert(), timeout_s=LONG_S).status == "stored"
                assert guardian.trouble is None


@pytest.mark.parametrize("is_kept", [True, False])
def test_who_waits_for_an_answer_hears_from_a_daemon_that_has_moved(path: Path, tmp_path: Path, is_kept: bool) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "guardian.address").write_text(free_address())
    box = path if is_kept else None
    with GuardianClient(state_dir=state, outbox=box) as guardian, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(lambda: guardian.send(alert(), timeout_s=LONG_S / 3))
        with daemon() as (scripted, address):
            fresh = state / "guardian.new"
            fresh.write_text(address)
            fresh.replace(state / "guardian.address")
            ack = sent.result(LONG_S)
            assert ack.decision is not None
            assert ack.id in {one.id for one in scripted.seen}


def test_whatever_goes_wrong_on_the_way_is_told_and_tried_again(path: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "guardian.address").write_bytes(b"\xff\xfe")
    with GuardianClient(state_dir=state, outbox=path) as guardian:
        box = guardian.outbox
        assert box is not None
        guardian.post(alert())
        eventually(lambda: guardian.trouble and "UnicodeDecodeError" in guardian.trouble, within_s=LONG_S)
        with daemon() as (_, address):
            (state / "guardian.address").write_text(address)
            eventually(lambda: len(box) == 0, within_s=LONG_S)
            eventually(lambda: guardian.trouble is None, within_s=LONG_S)
        guardian.post(alert())
        eventually(lambda: guardian.trouble and f"{address}: no answer for" in guardian.trouble, within_s=LONG_S)


def test_two_refused_under_one_id_are_both_kept(opened: Callable[..., Outbox]) -> None:
    box, first, second = opened(), alert(id="same-id-1", message="1"), alert(id="same-id-1", message="2")
    for one in (first, second):
        box.put(one)
        box.bury(one.id, "conflict", "known")
    assert [one.alert for one in box.dead()] == [first, second]
    assert box.bring_back("same-id-1")
    assert (box.waiting(9), [one.alert for one in box.dead()]) == ([second], [first])
    assert not box.bring_back("same-id-1"), "another one waits"
    assert [one.alert for one in box.dead()] == [first]


def test_what_is_refused_for_good_is_buried_and_the_rest_goes_on(path: Path) -> None:
    bad, good = alert(message="bad"), [alert() for _ in range(3)]

    def script(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.id == bad.id:
            return [nack(bad.id, "malformed", "nobody can read this", permanent=True)]
        return obliging(incoming, times)

    with daemon(script) as (scripted, address), GuardianClient(address, outbox=path) as guardian:
        box = guardian.outbox
        assert box is not None
        for one in (bad, *good):
            guardian.post(one)
        eventually(lambda: len(box) == 0, within_s=LONG_S)
        assert [(one.alert.id, one.code, one.why) for one in box.dead()] == [
            (bad.id, "malformed", "nobody can read this")
        ]
        assert {one.id for one in scripted.seen} == {one.id for one in (bad, *good)}
        with pytest.raises(AlertRefused, match="malformed"):
            guardian.send(bad, timeout_s=LONG_S)
        assert len(box.dead()) == 1


def test_a_daemon_that_is_busy_gets_it_again_later(path: Path) -> None:
    def script(incoming: Incoming, times: int) -> list[Message]:
        if times < 3 and incoming.message.kind is Kind.ALERT:
            return [nack(incoming.message.id, "busy", "not now", permanent=False, retry_after_ms=50)]
        return obliging(incoming, times)

    with daemon(script) as (scripted, address), GuardianClient(address, outbox=path) as guardian:
        message_id = guardian.post(alert())
        box = guardian.outbox
        assert box is not None
        eventually(lambda: len(box) == 0, within_s=LONG_S)
        assert [one.id for one in scripted.seen] == [message_id] * 3
        assert box.dead() == []


def test_a_sent_alert_that_came_too_late_for_its_sender_is_delivered_all_the_same(path: Path) -> None:
    address = free_address()
    with GuardianClient(address, outbox=path) as guardian:
        one = alert()
        with pytest.raises(DaemonUnreachable):
            guardian.send(one, timeout_s=0.1)
        scripted = ScriptedDaemon(obliging)
        scripted.open(address)
        try:
            eventually(lambda: one.id in {seen.id for seen in scripted.seen}, within_s=LONG_S)
        finally:
            scripted.pump.close()


def test_an_alert_the_daemon_does_not_have_within_a_second_is_told_otherwise_once(path: Path) -> None:
    told: list[tuple[str, float]] = []

    def tell(one: Alert) -> None:
        told.append((one.id, time.monotonic()))
        raise RuntimeError("the pager is broken")

    address = free_address()
    with GuardianClient(address, outbox=path, on_late=tell) as guardian:
        began = time.monotonic()
        message_id = guardian.post(alert())
        eventually(lambda: told, within_s=LONG_S)
        took_s = told[0][1] - began
        eventually(lambda: guardian.trouble and "the pager is broken" in guardian.trouble, within_s=LONG_S)
        holds_for(lambda: [one for one, _ in told] == [message_id], 0.5)
        scripted = ScriptedDaemon(obliging)
        scripted.open(address)
        try:
            eventually(lambda: scripted.seen, within_s=LONG_S, what="it is sent all the same")
            assert guardian.send(alert(), timeout_s=LONG_S).status == "stored"
            holds_for(lambda: [one for one, _ in told].count(message_id) == 1, 1.2)
        finally:
            scripted.pump.close()
    assert took_s > 0.5, "not before the daemon had its chance"


def test_an_on_late_that_never_returns_is_bounded_and_said(path: Path) -> None:
    release, called = threading.Event(), list[str]()

    def hang(one: Alert) -> None:
        called.append(one.message)
        release.wait(LONG_S * 2)

    with GuardianClient(free_address(), outbox=path, on_late=hang) as guardian:
        guardian.post_all([alert(message=str(n)) for n in range(AT_ONCE + 3)])
        eventually(lambda: len(called) == AT_ONCE, within_s=LONG_S)
        eventually(lambda: f"({AT_ONCE} such calls)" in str(guardian.trouble), within_s=LONG_S)
        assert "on_late has not returned for" in str(guardian.trouble)
        assert sorted(called) == sorted(map(str, range(AT_ONCE)))
        release.set()
        eventually(lambda: len(called) == AT_ONCE + 3, within_s=LONG_S, what="the rest, once there is a place")
        eventually(lambda: "on_late" not in str(guardian.trouble), within_s=LONG_S)
        assert guardian.outbox is not None
        box = guardian.outbox
        eventually(lambda: box.late(0.0) == [], within_s=LONG_S, what="noted")
    assert sorted(called, key=int) == [str(n) for n in range(AT_ONCE + 3)], "each once"


def test_a_crowd_of_late_alerts_is_told_in_time_with_few_commits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, float] = {}
    notes: list[int] = []
    note = Outbox.told

    def noted(box: Outbox, ids: Iterable[str]) -> None:
        wanted = list(ids)
        notes.append(len(wanted))
        note(box, wanted)

    def tell(one: Alert) -> None:
        told.setdefault(one.message, time.monotonic())

    monkeypatch.setattr(Outbox, "told", noted)
    count = 3_000
    with GuardianClient(free_address(), outbox=path, on_late=tell) as guardian:
        guardian.post_all([alert(message=str(n)) for n in range(count)])
        began = time.monotonic()
        eventually(lambda: len(told) == count, within_s=LONG_S)
        eventually(lambda: sum(notes) == count, within_s=LONG_S)
    assert max(told.values()) - began < 2.0, "a second, and as much again for a busy machine"
    assert len(notes) < 30, "not a commit for each"


SENDER = """
import sys
from guardian_link import Alert, GuardianClient
guardian = GuardianClient(sys.argv[1], outbox=sys.argv[2])
while True:
    print(guardian.post(Alert(type="service_failure", service="a")), flush=True)
"""


def test_a_killed_sender_has_promised_nothing_that_is_not_delivered(path: Path) -> None:
    """Real deaths in the midst of posting, before and while there is a daemon: whatever id was returned arrives."""
    address, promised = free_address(), set()
    with_daemon = ScriptedDaemon(obliging)
    for number in range(6):
        if number == 3:
            with_daemon.open(address)
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, address, str(path)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert sender.stdout is not None
        promised |= {sender.stdout.readline().strip() for _ in range(40 + 13 * number)}
        sender.send_signal(signal.SIGKILL)
        promised |= {line for line in sender.stdout.read().splitlines() if len(line) == 32}  # the last may be torn
        sender.stdout.close()
        assert sender.wait() == -signal.SIGKILL
    try:
        with GuardianClient(address, outbox=path) as guardian:
            box = guardian.outbox
            assert box is not None
            eventually(lambda: len(box) == 0, within_s=LONG_S)
        arrived = {one.id for one in with_daemon.seen}
        assert promised
        assert promised <= arrived
    finally:
        with_daemon.pump.close()


def test_when_the_one_who_delivers_is_gone_another_one_does(path: Path) -> None:
    address = free_address()
    first, second = GuardianClient(address, outbox=path), GuardianClient(address, outbox=path)
    try:
        eventually(lambda: _is_in_office(path), within_s=LONG_S)
        ids = {first.post(alert()), second.post(alert())}
        first.close()
        scripted = ScriptedDaemon(obliging)
        scripted.open(address)
        try:
            eventually(lambda: {one.id for one in scripted.seen} == ids, within_s=LONG_S)
        finally:
            scripted.pump.close()
    finally:
        first.close()
        second.close()


HOLDER = """
import sys
from guardian_link import Alert, GuardianClient
guardian = GuardianClient(sys.argv[1], outbox=sys.argv[2])
for line in sys.stdin:
    print(len(guardian.outbox), flush=True)
"""


def test_when_the_one_who_delivers_is_stopped_another_one_says_so_and_delivers(path: Path) -> None:
    with daemon() as (scripted, address):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, address, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        try:
            assert holder.stdin is not None
            assert holder.stdout is not None
            print("?", file=holder.stdin, flush=True)
            assert holder.stdout.readline() == "0\n"
            eventually(lambda: _is_in_office(path), within_s=LONG_S)
            holder.send_signal(signal.SIGSTOP)
            with GuardianClient(address, outbox=path) as guardian:
                said: list[str] = []
                message_id = guardian.post(alert())

                def has_come() -> bool:
                    said.extend([guardian.trouble] if guardian.trouble else [])
                    return message_id in {one.id for one in scripted.seen}

                eventually(has_come, within_s=LONG_S)
                assert any("another program is to deliver from it" in one for one in said)
                assert guardian.outbox is not None
                box = guardian.outbox
                eventually(lambda: len(box) == 0, within_s=LONG_S)
                eventually(lambda: guardian.trouble is None, within_s=LONG_S)
        finally:
            holder.kill()
            holder.communicate()


def _is_in_office(path: Path) -> bool:
    probe = sqlite3.connect(f"{path}.office", timeout=0, isolation_level=None)
    try:
        probe.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return True
    finally:
        probe.close()
    return False
