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
    (["env", "-S", "sh -c '{msg}'"], STARTS),
    # a shell or an interpreter is one whatever stands before it
    (["rbash", "-c", "{msg}"], RUNS),
    (["cpulimit", "-l", "5", "sh", "-c", "{msg}"], RUNS),
    (["cpulimit", "-l", "5", "--", "sh", "-c", "{msg}"], RUNS),
    (["choom", "-n", "5", "--", "sh", "-c", "{msg}"], RUNS),
    (["choom", "-n", "5", "--", "{msg}"], STARTS),
    (["pkexec", "sh", "-c", "{msg}"], RUNS),
    (["fakeroot", "sed", "{msg}"], READ),
    (["valgrind", "-q", "sh", "-c", "{msg}"], RUNS),
    (["dbus-run-session", "{msg}"], STARTS),
    (["perf", "stat", "-e", "cycles", "sh", "-c", "{msg}"], RUNS),
    (["/lib64/ld-linux-x86-64.so.2", "/bin/sh", "-c", "{msg}"], RUNS),
    (["/lib64/ld-linux-x86-64.so.2", "/bin/sed", "{msg}"], READ),
    (["start-stop-daemon", "--start", "--exec", "/bin/sh", "--", "-c", "{msg}"], RUNS),
    (["start-stop-daemon", "--start", "--exec", "{msg}"], READ),
    (["start-stop-daemon", "-Sx", "{msg}"], READ),
    (["capsh", "--", "-c", "{msg}"], RUNS),
    (["uv", "run", "python", "-c", "{msg}"], RUNS),
    (["/opt/nobody/knows", "sh", "-c", "{msg}"], RUNS),
    (["/opt/nobody/knows", "-q", "python3", "-c", "{msg}"], RUNS),
    (["/opt/nobody/knows", "-q", "python3", "-c{msg}"], RUNS),
    (["/opt/nobody/knows", "node", "-e", "{msg}"], RUNS),
    (["/opt/nobody/knows", "--with", "/bin/bash", "{msg}"], RUNS),
    (["/opt/nobody/knows", "awk", "{msg}"], RUNS),
    (["/opt/nobody/knows", "/usr/bin/psql", "-c", "{msg}"], READ),
    (["/opt/nobody/knows", "socat", "-", "EXEC:{msg}"], READ),
    # programs that start others on demand
    (["hyperfine", "{msg}"], READ),
    (["socat", "-", "EXEC:{msg}"], READ),
    (["socat", "-", "{msg}"], READ),
    (["nft", "{msg}"], READ),
    (["ansible", "all", "-a", "{msg}"], READ),
    (["tar", "-cf", "/x", "--checkpoint=1", "--checkpoint-action=exec={msg}", "/y"], READ),
    (["tar", "-xf", "/x", "--to-command={msg}"], READ),
    (["tar", "-xf", "/x", "--to-com", "{msg}"], READ),
    (["tar", "-cI", "{msg}", "-f", "/x"], READ),
    (["tar", "cIf", "{msg}", "/x"], READ),
    (["git", "-c", "alias.x=!{msg}", "x"], READ),
    (["git", "-c", "core.sshCommand={msg}", "commit"], READ),
    (["git", "clone", "--upload-pack={msg}", "h:/x"], READ),
    (["rsync", "-e", "{msg}", "a", "b:"], READ),
    (["rsync", "-ave", "{msg}", "a", "b:"], READ),
    (["rsync", "-e{msg}", "a", "b:"], READ),
    (["rsync", "--rsh={msg}", "a", "b:"], READ),
    (["timeout", "5", "/usr/bin/rsync", "-e", "{msg}", "a", "b:"], READ),
    (["scp", "-o", "ProxyCommand={msg}", "a", "b:"], READ),
    (["/opt/nobody/knows", "-oProxyCommand={msg}"], READ),
    (["nc", "-c", "{msg}", "h", "1"], READ),
    (["ncat", "--sh-exec", "{msg}", "h", "1"], READ),
    (["sort", "--compress-program={msg}"], READ),
    (["sort", "--compress-prog", "{msg}"], READ),
    (["split", "--filter={msg}", "/x"], READ),
    (["pg_ctl", "-D", "/x", "-o", "{msg}", "start"], READ),
    (["redis-cli", "eval", "{msg}", "0"], READ),
    (["redis-cli", "-p", "1", "EVAL", "{msg}", "0"], READ),
    (["redis-cli", "function", "load", "{msg}"], READ),
    (["redis-cli", "-p", "1", "{msg}"], READ),
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
    ["/opt/notify", "--message", "{msg}"],
    ["/opt/notify", "--message", "System: {msg}"],
    ["/opt/notify", "-c", "{msg}"],
    ["/opt/notify", "-e{msg}"],
    ["/opt/tool", "node", "{msg}"],
    ["/opt/tool", "--runtime", "python3", "{msg}"],
    ["/opt/tool", "python3", "/opt/a.py", "{msg}"],
    ["/opt/tool", "/srv/batch", "{msg}"],
    ["systemctl", "restart", "php", "{msg}"],
    ["docker", "restart", "php", "{msg}"],
    ["echo", "sh", "-c", "{msg}"],
    ["git", "commit", "-m", "{msg}"],
    ["git", "switch", "-c", "{msg}"],
    ["git", "-C", "/srv", "pull", "origin", "{msg}"],
    ["rsync", "-av", "--exclude={msg}", "a", "b:"],
    ["rsync", "-ave", "ssh", "{msg}", "b:"],
    ["tar", "-czf", "{msg}", "/srv"],
    ["tar", "czf", "{msg}", "/srv"],
    ["sort", "-o", "{msg}", "/x"],
    ["nc", "-zv", "{msg}", "80"],
    ["scp", "-P", "22", "{msg}", "h:"],
    ["pg_ctl", "-D", "{msg}", "stop"],
    ["redis-cli", "-h", "{msg}", "ping"],
    ["redis-cli", "set", "k", "{msg}"],
    ["redis-cli", "eval", "return 1", "0", "{msg}"],
    ["start-stop-daemon", "--stop", "--name", "{msg}"],
    ["capsh", "--", "-c", 'echo "$1"', "x", "{msg}"],
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
        (["capsh", "--", "-c", "true"], "capsh"),
        (["/opt/nobody/knows", "-q", "sh", "-c", "true"], "sh"),
        (["pkexec", "rbash", "-c", "true"], "rbash"),
        (["bash", "/opt/restart.sh"], None),
        (["grep", "-r", "sh", "-c"], None),
        (["env", "A=1", "/opt/restart"], None),
        (["docker", "restart", "sh", "-c"], None),
    ],
)
def test_a_shell_is_seen_behind_what_starts_it(argv: list[str], shell: str | None) -> None:
    assert starts_shell(argv) == shell


@pytest.mark.parametrize(
    "line", ["env sh -c 'echo hi'", "pkexec sh -c true", "timeout 5 bash -lc 'echo hi'", "sudo bash -c true"]
)
def test_an_old_command_that_starts_a_shell_somehow_is_refused(line: str) -> None:
    with pytest.raises(ShellSyntax, match="starts a shell"):
        argv_of(line, is_check=False)
