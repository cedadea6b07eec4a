"""Where a value may stand in an argument list that starts an interpreter, a shell, or whatever else reads programs."""

from __future__ import annotations

import json

import pytest

from runbooks.parse import read
from runbooks.problems import BadRunbook
from runbooks.program_texts import starts_shell, unsafe
from runbooks.shellwords import ShellSyntax, argv_of
from tests.runbooks.files import changed

RUNS = "runs as a program"
STARTS = "could choose what"
READ = "could be read as a program by"

REFUSED = [
    (["sh", "-c", "echo {msg}"], RUNS),
    (["bash", "-euc", "echo {msg}"], RUNS),
    (["bash", "-o", "errexit", "-c", "echo {msg}"], RUNS),
    (["/bin/bash", "{msg}"], RUNS),
    (["bash", "--rcfile", "{msg}", "/x.sh"], RUNS),
    (["/usr/bin/env", "sh", "-c", "echo {msg}"], RUNS),
    (["env", "-S", "{msg}"], STARTS),
    (["env", "{msg}"], STARTS),
    (["env", "PATH={msg}", "/bin/ls"], STARTS),
    (["timeout", "5", "sh", "-c", "echo {msg}"], RUNS),
    (["timeout", "5", "{msg}"], STARTS),
    (["nice", "bash", "-c", "echo {msg}"], RUNS),
    (["sudo", "-D", "/srv", "{msg}"], STARTS),
    (["busybox", "sh", "-c", "echo {msg}"], RUNS),
    (["python3", "-Ic", "print('{msg}')"], RUNS),
    (["python3", "-Wignore", "-c", "print('{msg}')"], RUNS),
    (["python3", "-c{msg}"], RUNS),
    (["python3.11", "-m", "{msg}"], RUNS),
    (["perl", "-ne", "{msg}"], RUNS),
    (["perl", "{msg}"], RUNS),
    (["node", "-p", "{msg}"], RUNS),
    (["php", "-r", "{msg}"], RUNS),
    (["awk", "BEGIN {{ {msg} }}"], RUNS),
    (["gawk", "-v", "x=1", "{msg}"], RUNS),
    (["sed", "{msg}", "/etc/hostname"], READ),
    (["sed", "-r", "{msg}"], READ),
    (["sed", "--expression={msg}"], READ),
    (["psql", "-c", "select '{msg}'"], READ),
    (["sqlite3", "/x.db", "{msg}"], READ),
    (["psql", "db", "-c", "{msg}"], READ),
    (["mysql", "-e", "{msg}"], READ),
    (["ssh", "host", "restart {msg}"], READ),
    (["ssh", "host", "restart", "{msg}"], READ),
    (["sudo", "ssh", "host", "restart", "{msg}"], READ),
    (["su", "app", "-c", "{msg}"], READ),
    (["watch", "ls {msg}"], READ),
    (["make", "X={msg}"], READ),
    (["chroot", "/srv", "{msg}"], READ),
    (["cmd.exe", "/c", "echo", "{msg}"], READ),
    (["pwsh", "-Command", "Write-Host", "{msg}"], READ),
    (["docker", "exec", "db", "sh", "-c", "echo {msg}"], RUNS),
    (["docker", "run", "{msg}"], STARTS),
    (["find", "/srv", "-exec", "sh", "-c", "{msg}", ";"], RUNS),
    (["xargs", "{msg}"], STARTS),
]
TAKEN = [
    ["/usr/bin/systemctl", "restart", "{msg}"],
    ["echo", "{msg}"],
    ["sh", "-c", 'echo "$1"', "x", "{msg}"],
    ["bash", "/opt/restart.sh", "{msg}"],
    ["bash", "-eu", "/opt/restart.sh", "{msg}"],
    ["python3", "/opt/restart.py", "--service={msg}"],
    ["python3", "-I", "-m", "tool", "{msg}"],
    ["python3", "-c", "import sys; print(sys.argv)", "{msg}"],
    ["awk", "{{print}}", "{msg}"],
    ["timeout", "5", "/opt/restart", "{msg}"],
    ["sudo", "-u", "app", "/opt/restart", "{msg}"],
    ["pwsh", "-File", "/opt/restart.ps1", "{msg}"],
    ["docker", "restart", "{msg}"],
    ["kubectl", "drain", "node", "{msg}"],
    ["find", "/srv", "-name", "{msg}"],
]


@pytest.mark.parametrize(("argv", "why"), REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_a_value_in_a_program_is_refused_when_the_file_is_read(argv: list[str], why: str) -> None:
    assert [(name, why in text) for name, text in unsafe(argv)] == [("msg", True)]
    with pytest.raises(BadRunbook) as bad:
        _read(argv)
    assert [(one.pointer, why in one.text) for one in bad.value.problems] == [("/actions/0", True)]


@pytest.mark.parametrize("argv", TAKEN, ids=" ".join)
def test_a_value_that_is_an_argument_is_taken(argv: list[str]) -> None:
    assert list(unsafe(argv)) == []
    _read(argv)


def _read(argv: list[str]) -> None:
    act = {"id": "act", "name": "r", "action_type": "command", "effect": "idempotent", "command": argv}
    raw = changed("/actions", [act])
    raw["parameters"] = {"msg": {"type": "string", "from": "/message", "required": True}}
    raw["success_criteria"] = [{"call": {"type": "service_ready", "with": {"service": "a"}}}]
    raw["target"] = "x"
    read(json.dumps(raw).encode(), "mine.json")


@pytest.mark.parametrize(
    ("argv", "shell"),
    [
        (["bash", "-c", "true"], "bash"),
        (["bash", "-euc", "true"], "bash"),
        (["env", "-i", "/bin/sh", "-c", "true"], "/bin/sh"),
        (["timeout", "5", "sh", "-c", "true"], "sh"),
        (["pwsh", "-Command", "ls"], "pwsh"),
        (["bash", "/opt/restart.sh"], None),
        (["env", "A=1", "/opt/restart"], None),
        (["docker", "restart", "sh", "-c"], None),
    ],
)
def test_a_shell_is_seen_behind_what_starts_it(argv: list[str], shell: str | None) -> None:
    assert starts_shell(argv) == shell


@pytest.mark.parametrize("line", ["env sh -c 'echo hi'", "timeout 5 bash -lc 'echo hi'", "sudo bash -c true"])
def test_an_old_command_that_starts_a_shell_somehow_is_refused(line: str) -> None:
    with pytest.raises(ShellSyntax, match="starts a shell"):
        argv_of(line, is_check=False)
