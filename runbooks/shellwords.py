"""A command line of an old file as an argument list, once, before anything is put into it. Pure.

What only a shell could do is refused, with the check or action that does it instead.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import Final

from runbooks.program_texts import starts_shell

_OPERATORS: Final = frozenset("|;&<>()\n")
_EXPANDED: Final = frozenset("$`")
_GLOBS: Final = frozenset("*?[~")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_CHECKS: Final = {
    "http_ok": ("curl", "wget", "http"),
    "tcp_connect": ("nc", "ncat", "netcat", "telnet", "ss", "netstat", "lsof"),
    "ping": ("ping", "ping6"),
    "dns_resolves": ("nslookup", "dig", "host", "getent"),
    "service_ready": ("ps", "pgrep", "systemctl", "service", "docker", "supervisorctl"),
    "disk_free": ("df", "du"),
    "database_ok": ("pg_isready", "psql", "mysql", "mysqladmin", "redis-cli"),
    "service_usage_below": ("free", "top", "vmstat", "uptime"),
}
_ACTIONS: Final = {
    "service_restart": ("systemctl", "service", "docker", "supervisorctl", "kill", "pkill", "killall"),
    "resource_cleanup": ("rm", "find", "truncate", "logrotate", "journalctl"),
    "configuration_change": ("sed", "echo", "tee", "cat", "printf", "cp"),
    "http_request": ("curl", "wget"),
    "database_operation": ("psql", "mysql", "redis-cli"),
}


class ShellSyntax(ValueError):
    """A command line that needs a shell; the text says what to write instead."""


def argv_of(line: str, *, is_check: bool) -> list[str]:
    """The words of a command line.

    Raises:
        ShellSyntax: it needs a shell, is empty, or a quote is left open.
    """
    found = _shell_part(line)
    if found is not None:
        raise ShellSyntax(f"{found!r} needs a shell, and there is none: {_instead(line, is_check=is_check)}")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ShellSyntax(f"{line!r:.80}: {str(error).lower()}") from error
    if not words:
        raise ShellSyntax("is an empty command")
    if _ASSIGNMENT.match(words[0]):
        raise ShellSyntax(
            f"{words[0]!r:.40} sets a variable, which needs a shell: give it to the service's environment"
        )
    if (shell := starts_shell(words)) is not None:
        raise ShellSyntax(f"{shell} starts a shell: {_instead(line, is_check=is_check)}")
    return words


def _shell_part(line: str) -> str | None:
    """The first character that only a shell understands, quotes and backslashes taken into account."""
    quote, is_escaped = "", False
    for character in line:
        if is_escaped:
            is_escaped = False
        elif quote == "'":
            quote = "" if character == "'" else quote
        elif character == "\\":
            is_escaped = True
        elif character in _EXPANDED:
            return character
        elif quote == '"':
            quote = "" if character == '"' else quote
        elif character in "'\"":
            quote = character
        elif character in _OPERATORS or character in _GLOBS:
            return character
    return None


def _instead(line: str, *, is_check: bool) -> str:
    known = _CHECKS if is_check else _ACTIONS
    for word in re.findall(r"[A-Za-z0-9_./-]+", line):
        program = PurePosixPath(word).name
        for name, programs in known.items():
            if program in programs:
                return f"use the {'check' if is_check else 'action type'} {name}"
    if is_check:
        return 'use a check such as {"call": {"type": "command_ok", "argv": [...]}}'
    return "put it into a script of its own, and name that as the command"
