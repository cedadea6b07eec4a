"""The real daemon and its keys: one daemon for all of these, clients over its links, ``selfheal keys`` beside it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.access.keyring import Keyring, utc_now
from bridge_link import BridgeClient
from bridge_link.errors import Refused
from bridge_link.keys import find_key, new_client_key, write_key_file
from bridge_link.wire import Kind, Message
from guardian_link import Alert, AlertRefused, DaemonUnreachable, GuardianClient
from supervisors.cli.app import run
from tests.links.guarded import add_client, heard, raw_client, revoke, said
from tests.support.eventually import eventually
from tests.system.running import LINKS, SLEEPER, Running, daemon, write_config

BODY = {"type": "noise", "service": "a"}


@pytest.fixture(autouse=True)
def key_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is a real one: its clients find their keys as everywhere."""
    monkeypatch.delenv("SELFHEAL_KEY", raising=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("daemon")
    with daemon(write_config(folder, {"a": SLEEPER}), folder / "state") as selfheal:
        yield selfheal


def address(running: Running, link: str = "guardian") -> str:
    return (running.state / f"{link}.address").read_text().strip()


def key_of(running: Running, name: str) -> Path:
    return running.state / "keys" / f"{name}.key"


def answer(running: Running, name: str, kind: Kind, body: Mapping[str, object]) -> Message:
    with raw_client(address(running), find_key(key_of(running, name))) as socket:
        said(socket, kind, body)
        got = heard(socket, 10_000)
        assert got is not None
        return got


@pytest.fixture
def keys(running: Running, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``selfheal keys`` in this process, (exit code, output, errors): an interpreter for each word adds nothing."""

    def call(*words: str) -> tuple[int, str, str]:
        code = run(["keys", *words, "--state", str(running.state)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def denials(running: Running) -> list[str]:
    return [text for (text,) in journal(running, "SELECT text FROM events WHERE event='denied'")]


def journal(running: Running, question: str) -> list[Any]:
    """Read only, as a reader of the daemon's own."""
    db = sqlite3.connect(f"file:{running.state / 'journal.db'}?mode=ro", uri=True, timeout=10)
    try:
        return db.execute(question).fetchall()
    finally:
        db.close()


def known(running: Running, name: str, *roles: str, **facts: object) -> Path:
    """A client more, which the daemon knows."""
    add_client(running.state, name, *roles, **facts)

    def is_let_in() -> bool:
        with raw_client(address(running), find_key(key_of(running, name))) as socket:
            said(socket, Kind.HELLO, {})
            said(socket, Kind.QUERY, {"ask": "statistics"})
            return heard(socket, 500) is not None

    eventually(is_let_in, within_s=20)
    return key_of(running, name)


def test_alerts_are_stored_under_the_authenticated_name(running: Running) -> None:
    """The local key is `local`, as before there were keys: what was stored then stays a duplicate."""
    with GuardianClient(state_dir=running.state) as guardian:
        mine = guardian.send(Alert(type="noise", source="somebody else"), timeout_s=10).id
    other = Alert(type="noise", source="root")
    with GuardianClient(state_dir=running.state, key_file=known(running, "stored-1", "guardian")) as guardian:
        guardian.send(other, timeout_s=10)
    clients = dict(journal(running, "SELECT msg_id, client FROM alerts"))
    assert (clients[mine], clients[other.id]) == ("local", "stored-1")


def test_trap_16_a_key_revoked_by_command_is_refused_on_its_live_session(running: Running) -> None:
    key = find_key(known(running, "revoked-1", "guardian"))
    with raw_client(address(running), key) as socket:
        said(socket, Kind.ALERT, BODY)
        got = heard(socket, 10_000)
        assert got is not None
        assert got.kind is Kind.STORED
        assert running.call("keys", "revoke", "revoked-1").returncode == 0

        def is_refused() -> bool:
            message_id = said(socket, Kind.ALERT, BODY)
            while (got := heard(socket, 5000)) is not None:
                if got.id == message_id and got.kind is not Kind.DECIDED:
                    return got.kind is Kind.NACK and got.body["code"] == "key_refused" and not got.body["permanent"]
            return False

        eventually(is_refused, within_s=15)
    eventually(lambda: any("revoked-1 was revoked" in text for text in denials(running)))


def test_trap_17_a_bridge_may_send_its_own_types_only_and_that_is_on_record(running: Running) -> None:
    file = known(running, "bridge-1", "bridge")
    with GuardianClient(address(running), key_file=file) as guardian:
        with pytest.raises(AlertRefused, match=r"forbidden.*bridge-1.*position_limit"):
            guardian.send(Alert(type="position_limit"), timeout_s=10)
        assert guardian.send(Alert(type="bridge_mql4_failure"), timeout_s=10).status == "stored"
        with pytest.raises(AlertRefused, match="may not send QUERY"):
            guardian.statistics()
    with BridgeClient(state_dir=running.state, name="mql4", key_file=file) as bridge:
        bridge.send_error({"system": "mql4", "error_type": "MQL4Error", "error_message": "x"}, timeout_s=10)
        with pytest.raises(Refused, match="forbidden"):
            bridge.send_error({"type": "margin_requirement", "message": "x"}, timeout_s=10)
    eventually(lambda: any("bridge-1" in text and "position_limit" in text for text in denials(running)))


@pytest.mark.parametrize("role", ["operator", "viewer"])
def test_who_only_asks_may_not_alert(running: Running, role: str) -> None:
    known(running, f"{role}-1", role)
    refusal = answer(running, f"{role}-1", Kind.ALERT, BODY)
    assert (refusal.kind, refusal.body["code"]) == (Kind.NACK, "forbidden")
    assert answer(running, f"{role}-1", Kind.QUERY, {"ask": "statistics"}).kind is Kind.ANSWER


def test_a_rate_holds_back_and_loses_nothing(running: Running) -> None:
    file = known(running, "slow-1", "guardian", max_rate_per_s=5.0)
    with raw_client(address(running), find_key(file)) as socket:
        ids = [said(socket, Kind.ALERT, BODY) for _ in range(30)]
        busy = []
        while (got := heard(socket, 1000)) is not None:
            if got.kind is Kind.NACK:
                busy.append(got)
        assert {one.body["code"] for one in busy} == {"busy"}
        assert len(busy) >= 20
        assert all(not one.body["permanent"] and 0 < one.body["retry_after_ms"] <= 1000 for one in busy)
        assert {one.id for one in busy} < set(ids)
    with GuardianClient(address(running), key_file=file) as guardian:
        for _ in range(7):
            assert guardian.send(Alert(type="noise"), timeout_s=20).status in ("stored", "duplicate")


def test_a_key_expires_while_the_daemon_runs(running: Running) -> None:
    key = find_key(known(running, "short-1", "guardian", not_after=utc_now() + timedelta(seconds=4)))
    with raw_client(address(running), key) as socket:

        def is_refused() -> bool:
            said(socket, Kind.ALERT, BODY)
            got = heard(socket, 1000)
            return got is not None and got.kind is Kind.NACK and "expired" in got.body["text"]

        eventually(is_refused, within_s=20)


def test_a_strangers_key_is_refused_and_that_is_on_record(running: Running, tmp_path: Path) -> None:
    local = find_key(None, running.state)
    assert local is not None
    write_key_file(tmp_path / "k", new_client_key("local", local.server))
    with (
        GuardianClient(address(running), key_file=tmp_path / "k") as guardian,
        pytest.raises(DaemonUnreachable, match="key"),
    ):
        guardian.send(Alert(type="noise"), timeout_s=1)
    eventually(lambda: any("an unknown key" in text for text in denials(running)))


def test_a_broken_table_is_said_on_the_node_and_nobody_is_thrown_out(running: Running) -> None:
    table = Keyring(running.state).table_file

    def details() -> list[str]:
        root = running.get("/v1/tree")["root"]
        links = next(one for one in root["children"] if one["name"] == "links")
        return [str(one.get("detail")) for one in links["children"] if one["name"] in ("guardian", "bridge")]

    before = table.read_text()
    table.write_text("{ broken")
    try:
        eventually(lambda: all("clients.json" in text and "as it was" in text for text in details()), within_s=15)
        with GuardianClient(state_dir=running.state) as guardian:
            assert guardian.send(Alert(type="noise"), timeout_s=10).status == "stored"
    finally:
        table.write_text(before)
    eventually(lambda: all(text == "None" for text in details()), within_s=15)
    assert running.services()["a"]["state"] == "ready"


def test_the_command_line(running: Running, keys: Callable[..., tuple[int, str, str]]) -> None:
    words = ("--role", "bridge", "--types", "bridge_*", "--types", "x", "--rate", "5/s")
    made = json.loads(keys("new", "cli-1", *words, "--json")[1])
    assert (made["file"], made["client"]["state"]) == (str(key_of(running, "cli-1")), "valid")
    code, _, complaint = keys("new", "cli-1", "--role", "guardian")
    assert (code, "already" in complaint) == (1, True)
    listed = {one["name"]: one for one in running.json("keys", "list")["clients"]}
    assert (listed["cli-1"]["alert_types"], listed["cli-1"]["max_rate_per_s"]) == (["bridge_*", "x"], 5.0)
    assert keys("revoke", "nobody")[0] == 1
    for wrong in (
        ["new", "Bad Name", "--role", "viewer"],
        ["new", "x", "--role", "king"],
        ["new", "local", "--role", "viewer"],
    ):
        assert keys(*wrong)[0] == 2
    revoke(running.state, "cli-1")
    shown = keys("list")[1]
    assert "revoked" in next(line for line in shown.splitlines() if line.startswith("cli-1"))


def test_without_curve_local_programs_are_told_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER}, links=LINKS | {"curve": False})
    with daemon(config, tmp_path / "state") as selfheal:
        assert (selfheal.state / "keys" / "local.key").read_text() == "curve off\n"
        with GuardianClient(state_dir=selfheal.state) as guardian:
            assert guardian.send(Alert(type="noise"), timeout_s=10).status == "stored"


def test_trap_18_the_daemon_does_not_start_with_keys_that_others_can_read(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    Keyring(state).prepare(utc_now())
    secret = state / "keys" / "server.key"
    secret.chmod(0o644)
    with daemon(config, state, wait=False) as selfheal:
        assert selfheal.process.wait(30) != 0
        assert f"chmod 600 {secret}" in selfheal.log.read_text()
    text = secret.read_text()
    secret.unlink()
    (tmp_path / "elsewhere").write_text(text)
    secret.symlink_to(tmp_path / "elsewhere")
    with daemon(config, state, wait=False) as selfheal:
        assert selfheal.process.wait(30) != 0
        assert f"{secret} is a symbolic link" in selfheal.log.read_text()
