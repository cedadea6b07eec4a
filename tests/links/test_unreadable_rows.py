"""A row that holds nothing of ours keeps no other: it is set aside with its bytes and the reason."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from bridge_link import BridgeClient
from bridge_link.store import BridgeStore, KnownCommand
from bridge_link.wire import Kind
from guardian_link import Alert, GuardianClient
from guardian_link.delivery import Delivery
from guardian_link.errors import OutboxUnusable
from guardian_link.outbox import Outbox
from tests.links.scripted_daemon import daemon
from tests.support.eventually import eventually

BROKEN = {
    "no-json-1": b"{half a bod",
    "no-text-1": b'{"type": "\xff\xfe"}',
    "no-alert-1": b"[1, 2]",
    "no-alert-2": b'{"severity": "high"}',
    "no-alert-3": b'{"type": "x", "labels": 3}',
    "too-deep-1": b"[" * 100_000,
}
NO_ID = ("no id", b'{"type": "x"}')


def break_rows(path: Path, table: str, column: str) -> None:
    database = sqlite3.connect(path)
    rows = [(one, raw, *([0.0] if table == "letters" else [])) for one, raw in [*BROKEN.items(), NO_ID]]
    more, marks = (", posted_s", ", ?") if table == "letters" else ("", "")
    text = f"INSERT INTO {table} (id, {column}{more}) VALUES (?, CAST(? AS TEXT){marks})"  # noqa: S608
    database.executemany(text, rows)
    database.commit()
    database.close()


def test_an_outbox_with_broken_rows_is_delivered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, late = tmp_path / "outbox.db", list[str]()
    box = Outbox(path)
    break_rows(path, "letters", "alert")
    good = [Alert(type="x", message=str(number)) for number in range(3)]
    box.put_all(good)
    assert box.waiting(2) == good[:2], "a window of broken ones is not the end"
    box.close()
    with daemon() as (scripted, address), GuardianClient(address, outbox=path, on_late=late.append) as guardian:  # type: ignore[arg-type]
        assert guardian.outbox is not None
        eventually(lambda: len(guardian.outbox or ()) == 0)
        assert {one.id for one in scripted.seen if one.kind is Kind.ALERT} == {one.id for one in good}
        dead = guardian.outbox.dead()
        assert [one.raw for one in dead] == [*BROKEN.values(), NO_ID[1]]
        assert {one.code for one in dead} == {"unreadable"}
        assert [one.alert.id for one in dead[:-1]] == list(BROKEN)
        assert "JSONDecodeError" in dead[0].why
        assert "id: is not" in dead[-1].why
        guardian.outbox.forget_dead("no-json-1")
        assert len(guardian.outbox.dead()) == len(BROKEN)
    said = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(said) == len(BROKEN) + 1, "each once"


def test_the_fallback_tells_what_is_late_beside_broken_rows(tmp_path: Path) -> None:
    path, late = tmp_path / "outbox.db", list[Alert]()
    Outbox(path).close()
    break_rows(path, "letters", "alert")
    with GuardianClient("tcp://127.0.0.1:1", outbox=path, on_late=late.append) as guardian:
        wanted = guardian.post(Alert(type="x"))
        eventually(lambda: [one.id for one in late] == [wanted])


def test_the_fallback_goes_on_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, late, calls = Outbox(tmp_path / "outbox.db"), list[Alert](), list[None]()
    original = box.late

    def failing(after_s: float, *, behind: int, most: int) -> list[tuple[int, Alert]]:
        calls.append(None)
        if len(calls) < 3:
            raise OutboxUnusable("not now") if len(calls) == 1 else KeyError("whatever")
        return original(after_s, behind=behind, most=most)

    monkeypatch.setattr(box, "late", failing)
    box.put(Alert(type="x"))
    delivery = Delivery(box, lambda: "tcp://127.0.0.1:1", on_late=late.append)
    try:
        eventually(lambda: "KeyError" in str(delivery.trouble))
        eventually(lambda: len(late) == 1)
    finally:
        delivery.close()
        box.close()


def test_a_bridge_with_broken_rows_is_delivered(tmp_path: Path) -> None:
    BridgeStore(tmp_path, "mt4").close()
    break_rows(tmp_path / "mt4.bridge.db", "errors", "body")
    with daemon() as (scripted, address):
        bridge = BridgeClient(address, name="mt4", folder=tmp_path)
        try:
            wanted = bridge.post_error({"system": "mt4", "error_message": "x"})
            eventually(lambda: wanted in {one.id for one in scripted.seen})
            eventually(lambda: bridge.waiting == 0)
            refused = {one.id: one for one in bridge.refused}
            assert refused["no-json-1"].raw == BROKEN["no-json-1"]
            assert {refused[one].code for one in ("no-json-1", "no-text-1", "no-alert-1", "no id")} == {"unreadable"}
        finally:
            bridge.close()


def test_a_command_whose_answer_cannot_be_read_may_have_been_run(tmp_path: Path) -> None:
    store = BridgeStore(tmp_path, "mt4")
    try:
        store.begin("command-1", ())
        store.finish("command-1", "done", {"ok": True})
        assert store.command("command-1") == KnownCommand("done", {"ok": True}, is_of_this_process=True)
        store._database.execute("UPDATE commands SET body = '{half'")
        assert store.command("command-1") == KnownCommand("begun", {}, is_of_this_process=False)
    finally:
        store.close()
