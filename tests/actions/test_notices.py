"""notify: delivered at least once, with one key, recorded, and never longer than its time."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runbooks.engine_words import Answer
from runbooks.model import CallType
from runbooks.notices import Program, Webhook
from tests.actions.place import TOKEN, answer, do, look, ports_of
from tests.actions.web import web

KEY = f"{TOKEN}.step"
WRITES = "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read() + os.environ['SELFHEAL_NOTICE_KEY'])"


def test_a_webhook_gets_it_once_with_its_key(tmp_path: Path) -> None:
    with web() as it:
        ports = ports_of(tmp_path, channels={"ops": Webhook(it.base + "/hook", {"X-Team": "night"})})
        assert answer(ports, CallType.NOTIFIED, channel="ops") is Answer.NO
        assert do(ports, CallType.NOTIFY, channel="ops", message="disk full", severity="critical").ok
        assert do(ports, CallType.NOTIFY, channel="ops", message="disk full").output == "was delivered to ops already"
    (request,) = it.seen
    assert (request.method, request.path) == ("POST", "/hook")
    assert (request.headers["Idempotency-Key"], request.headers["X-Team"]) == (KEY, "night")
    assert json.loads(request.body) == {"key": KEY, "text": "disk full", "severity": "critical", "execution": TOKEN}
    assert answer(ports, CallType.NOTIFIED, channel="ops") is Answer.YES
    again = ports_of(tmp_path, channels={"ops": Webhook(it.base)})
    assert answer(again, CallType.NOTIFIED, channel="ops") is Answer.YES, "the next daemon knows"


def test_a_command_gets_it_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ports = ports_of(tmp_path, channels={"pager": Program((sys.executable, "-c", WRITES, str(out)))})
    nasty = "x; $(touch OWNED) `id` \"'"
    assert do(ports, CallType.NOTIFY, channel="pager", message=nasty).ok
    said, _, key = out.read_text().rpartition("}")
    assert json.loads(said + "}")["text"] == nasty
    assert key == KEY


def test_the_log_is_the_default(tmp_path: Path) -> None:
    ports = ports_of(tmp_path)
    with capture_logs() as lines:
        assert do(ports, CallType.NOTIFY, message="hello", severity="critical").ok
    assert [(line["log_level"], line["message"], line["key"]) for line in lines] == [("critical", "hello", KEY)]
    assert answer(ports, CallType.NOTIFIED) is Answer.YES


@pytest.mark.parametrize("how", ["refused", "HTTP 500", "nobody", "exit 3"])
def test_what_was_not_taken_is_not_recorded(tmp_path: Path, how: str) -> None:
    with web() as it, socket.create_server(("127.0.0.1", 0)) as taken:
        it.status = 500
        free = f"http://127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        channel: Any = {
            "refused": Webhook(free),
            "HTTP 500": Webhook(it.base),
            "nobody": Program(("/no/such/program",)),
            "exit 3": Program((sys.executable, "-c", "raise SystemExit(3)")),
        }[how]
        ports = ports_of(tmp_path, channels={"ops": channel})
        assert not do(ports, CallType.NOTIFY, channel="ops", message="x").ok
        assert answer(ports, CallType.NOTIFIED, channel="ops") is Answer.NO


@pytest.mark.parametrize("kind", ["webhook", "command"])
def test_a_channel_that_hangs_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    with web() as it:
        it.gate.clear()
        hangs = Program((sys.executable, "-c", "import signal; signal.pause()"))
        ports = ports_of(tmp_path, channels={"ops": Webhook(it.base) if kind == "webhook" else hangs})
        began = time.monotonic()
        assert not do(ports, CallType.NOTIFY, 1.0, channel="ops", message="x").ok
        assert time.monotonic() - began < 10
        assert answer(ports, CallType.NOTIFIED, channel="ops") is Answer.NO


def test_an_unknown_channel_is_said(tmp_path: Path) -> None:
    refused = do(ports_of(tmp_path), CallType.NOTIFY, channel="opps", message="x")
    assert "there is no channel 'opps' in notifications.channels; there are default, log" in refused.error
    assert look(ports_of(tmp_path), CallType.NOTIFIED, channel="opps").answer is Answer.UNKNOWN


def test_a_webhooks_address_is_not_told(tmp_path: Path) -> None:
    """It is often its only protection."""
    secret = "http://127.0.0.1:1/services/T000/CANARY"
    refused = do(ports_of(tmp_path, channels={"ops": Webhook(secret)}), CallType.NOTIFY, channel="ops", message="x")
    assert not refused.ok
    assert "CANARY" not in refused.error
