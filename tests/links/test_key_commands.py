"""``selfheal keys`` without a daemon, and what the command line says of its own key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.access.keyring import RESERVED, Keyring, utc_now
from actors.alertmanager import CLIENT
from actors.deciding.words import INSIDE
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message
from supervisors.cli.app import run
from tests.links.scripted_daemon import daemon

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in this process: (exit code, output, errors)."""
    monkeypatch.delenv("SELFHEAL_KEY", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        code = run([*words, "--state", str(tmp_path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def row(cli: Call, name: str) -> list[str]:
    return next(line.split() for line in cli("keys", "list")[1].splitlines() if line.startswith(name))


def test_names_alerts_are_stored_under_without_a_key_are_given_to_nobody(cli: Call) -> None:
    assert {CLIENT, INSIDE, "local"} <= RESERVED
    code, _, why = cli("keys", "new", CLIENT, "--role", "guardian")
    assert (code, f"{CLIENT!r} is a name of the daemon's own" in why) == (2, True)


def test_the_last_day_is_listed_as_it_was_said(cli: Call) -> None:
    day = ("--expires", "2127-01-31")
    made = json.loads(cli("keys", "new", "by-day", "--role", "viewer", *day, "--json")[1])
    assert made["client"]["not_after"] == "2127-02-01T00:00:00Z", "the exact moment is for programs"
    cli("keys", "new", "by-moment", "--role", "viewer", "--expires", "2127-01-31T12:30:00+00:00")
    assert "2127-01-31" in row(cli, "by-day")
    assert "2127-01-31T12:30:00Z" in row(cli, "by-moment")


def test_what_was_revoked_already_is_said(cli: Call, tmp_path: Path) -> None:
    cli("keys", "new", "guardian-1", "--role", "guardian", "--rate", "5")
    assert cli("keys", "revoke", "guardian-1") == (0, "revoked guardian-1\n", "")
    line = Keyring(tmp_path).table().line("guardian-1")
    code, out, _ = cli("keys", "revoke", "guardian-1")
    assert (code, out.startswith("guardian-1 was revoked already, 2")) == (0, True)
    assert Keyring(tmp_path).table().line("guardian-1") == line


def test_an_empty_table_is_explained(cli: Call, tmp_path: Path) -> None:
    code, _, hint = cli("keys", "list")
    assert (code, f"no keys in {tmp_path / 'keys'}" in hint) == (0, True)


@pytest.mark.parametrize("command", [("alert", "send", "--type", "noise"), ("events",)])
def test_the_command_lines_own_revoked_key_is_named_at_once(
    cli: Call, tmp_path: Path, command: tuple[str, ...]
) -> None:
    Keyring(tmp_path).prepare(utc_now())
    code, out, warning = cli("keys", "revoke", "local")
    local = tmp_path / "keys" / "local.key"
    assert (code, out) == (0, "revoked local\n")
    assert f"stop the daemon, remove {local}, start the daemon" in warning
    (tmp_path / "guardian.address").write_text("tcp://127.0.0.1:1")
    code, _, why = cli(*command)
    assert (code, f"the key of local was revoked: the daemon refuses {local}" in why) == (1, True), why


def test_an_empty_page_of_events_is_explained(cli: Call, tmp_path: Path) -> None:
    Keyring(tmp_path).say_curve_is_off()
    page = {"epoch": "one", "first": 1, "last": 57, "events": [], "address": None}

    def script(incoming: Incoming, _times: int) -> list[Message]:
        return [Message(Kind.ANSWER, incoming.message.id, {"ok": True, "result": page})]

    with daemon(script) as (_, address):
        (tmp_path / "guardian.address").write_text(address)
        code, _, hint = cli("events", "--after", "100000")
        assert (code, "no events behind 100000; the last is 57" in hint) == (0, True), hint
