"""A dry run shows the plan a real run has, looks at its preconditions, and does nothing else whatever."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runbooks import engine
from runbooks.asking import asked_facts, planned
from runbooks.engine_words import Kind
from runbooks.parameters import BadParameter
from runbooks.plan import bind
from runbooks.rehearsal import _Stage
from runbooks.rehearsal_world import World
from supervisors.cli.app import run
from tests.runbooks.files import COMMAND, GOOD, changed, runbook

PARAMETERS = {
    **GOOD["parameters"],
    "count": {"type": "integer", "from": "/labels/count", "default": 1, "maximum": 9},
    "token": {"type": "string", "from": "/labels/token", "default": "none", "redact": True},
}
RICH = {
    **changed(
        "/actions",
        [
            {**GOOD["actions"][0], "outputs": {"run": "/run"}},
            {**COMMAND, "command": ["echo", "{count}"]},
            {
                **COMMAND,
                "id": "tell",
                "action_type": "http_request",
                "parameters": {"url": "http://127.0.0.1:1/", "method": "POST", "body": {"token": "{token}"}},
            },
        ],
    ),
    "parameters": PARAMETERS,
}
del RICH["actions"][2]["command"]


def test_the_plan_is_that_of_the_real_run() -> None:
    """What a dry run says would be done has the digests under which a real run writes its intents."""
    made = runbook(RICH)
    facts = asked_facts(made, {"service": "a", "count": "3", "token": "s3cret"})
    found = planned(made, facts)
    stage = _Stage(World(made, {}))
    stage.play(engine.start(bind(made, found.values, facts, seed="x"), 0.0))
    real = {record.step_id: record.bound for _, record in stage.records if record.kind is Kind.INTENT}
    shown = found.as_json()
    assert {one["id"]: one["digest"] for one in shown["actions"]} == real
    assert [one["with"] for one in shown["actions"][:2]] == [call["with"] for call in stage.calls[:2]]
    assert "s3cret" not in json.dumps(shown)
    assert stage.calls[2]["with"]["body"] == {"token": "s3cret"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "nothing at /service"),
        ({"service": "a b"}, "is no service"),
        ({"service": "a", "count": "many"}, "is no integer"),
        ({"service": "a", "count": "10"}, "is more than 9"),
        ({"service": "a", "servise": "b"}, "has no parameter 'servise'"),
    ],
)
def test_values_that_do_not_fit_are_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(BadParameter, match=text):
        asked_facts(runbook(RICH), given)


def test_no_value_can_pretend_who_asked() -> None:
    for label in ("requested_by", "runbook", "why"):
        raw = changed("/parameters/service/from", f"/labels/{label}", changed("/parameters/service/type", "string"))
        with pytest.raises(BadParameter, match="cannot be set"):
            asked_facts(runbook(raw), {"service": "root"})
    facts = asked_facts(runbook(RICH), {"service": "a"}, by="user:ann", why="a try")
    assert facts["labels"] == {"runbook": "restart_it", "requested_by": "user:ann", "why": "a try"}


WATCHED = """
import json, sys
seen = []
def hook(event, args):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.system", "os.spawn",
                 "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
                 "os.chown", "os.kill", "socket.connect", "socket.bind", "socket.sendto", "sqlite3.connect"):
        seen.append([event, [repr(one) for one in args]])
    elif event == "open":
        path, mode, flags = args
        if isinstance(flags, int) and flags & 0o3:
            seen.append([event, [repr(path), repr(mode), repr(flags)]])
from supervisors.cli.app import run
import supervisors.cli.running
sys.addaudithook(hook)
code = run(sys.argv[1:])
sys.stderr.write("SEEN " + json.dumps([code, seen]))
"""


def watched(*arguments: str) -> tuple[int, list[list[Any]], str]:
    """Exit code, everything that could change the world or reach out, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    code, seen = json.loads(done.stderr.rpartition("SEEN ")[2])
    return code, seen, done.stdout


def configured(tmp_path: Path, precondition: dict[str, Any], **more: Any) -> str:
    (tmp_path / "mine").mkdir()
    raw = {**RICH, "preconditions": [precondition], **more}
    (tmp_path / "mine" / "one.json").write_text(json.dumps(raw))
    (tmp_path / "selfheal.yaml").write_text("version: 1\nservices: {}\nrunbooks: {directories: [mine]}\n")
    return str(tmp_path / "selfheal.yaml")


def test_it_is_inert_but_for_its_declared_checks(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = configured(tmp_path, {"call": {"type": "tcp_connect", "with": {"port": port}}})
        command = ("runbook", "run", "restart_it", "--set", "service=a", "--dry-run", "--config", config)
        code, seen, out = watched(*command)
        assert code == 0
        assert [event for event, _ in seen] == ["socket.connect"], seen
        assert f"('127.0.0.1', {port})" in seen[0][1][1]
        assert "restart: service_restart(service='a') mutating, undone by service_restore" in out
        assert "nothing was done" in out
    code, seen, out = watched(*command, "--json")
    assert code == 1, "its precondition does not hold any more"
    assert json.loads(out)["preconditions"][0]["answer"] == "no"


@pytest.mark.parametrize("expect", ["no", "not_yes"])
def test_what_must_not_be_is_told_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], expect: str) -> None:
    """Many runbooks begin only while what they mend is broken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = configured(tmp_path, {"call": {"type": "tcp_connect", "with": {"port": port}}, "expect": expect})
        command = ["runbook", "run", "restart_it", "--set", "service=a", "--dry-run", "--config", config]
        assert run(command) == 1
        assert "precondition tcp_connect: yes, and must not be" in capsys.readouterr().out
    assert run(command) == 0
    assert "precondition tcp_connect: no, as it must be" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    (seen,) = json.loads(capsys.readouterr().out)["preconditions"]
    assert (seen["answer"], seen["wanted"], seen["holds"]) == ("no", expect, True)


def test_the_watch_sees_what_a_program_would_do(tmp_path: Path) -> None:
    """The proof is one only if it notices: a declared check that is a program is seen to start it."""
    config = configured(tmp_path, {"call": {"type": "command_ok", "argv": [sys.executable, "-c", ""]}})
    _, seen, _ = watched("runbook", "run", "restart_it", "--set", "service=a", "--dry-run", "--config", config)
    assert any(event in ("subprocess.Popen", "os.posix_spawn", "os.fork") for event, _ in seen), seen


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--set", "service"), 2),
        (("--set", "service=a b"), 2),
        ((), 2),
    ],
)
def test_wrong_values_are_wrong_usage(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    config = configured(tmp_path, {"call": {"type": "tcp_connect", "with": {"port": 1}}})
    assert run(["runbook", "run", "restart_it", "--dry-run", "--config", config, *words]) == code


def test_without_a_daemon_nobody_can_tell_how_a_service_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ready = {"call": {"type": "service_ready", "with": {"service": "{service}"}}}
    config = configured(tmp_path, ready)
    command = ["runbook", "run", "restart_it", "--set", "service=a", "--dry-run", "--config", config]
    assert run([*command, "--state", str(tmp_path)]) == 4
    out, err = capsys.readouterr()
    assert "precondition service_ready: unknown" in out
    assert err.startswith(f"selfheal: no daemon runs in the state directory {tmp_path}; ")
