"""A command line of an old file as an argument list, once, before anything is put into it. Pure.

What only a shell could do is refused, with the check or action that does it instead.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from runbooks.program_texts import splits_text, starts_shell

_OPERATORS: Final = frozenset("|;&<>()\n")
_EXPANDED: Final = frozenset("$`")
_ESCAPED_IN_QUOTES: Final = frozenset('$`"\\')
_BLANKS: Final = frozenset(" \t")
_GLOBS: Final = frozenset("*?[~")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SCRIPT: Final = "put it into a script of its own, and name that as the command"
_OF_A_SHELL: Final = {
    **dict.fromkeys(
        {"!", "{", "}", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function"}
        | {"if", "in", "select", "then", "until", "while", "bg", "bind", "break", "builtin", "caller", "compgen"}
        | {"complete", "compopt", "continue", "dirs", "disown", "enable", "exit", "fc", "fg", "getopts", "hash", "help"}
        | {"history", "jobs", "let", "logout", "mapfile", "popd", "pushd", "read", "readarray", "return", "shift"}
        | {"shopt", "suspend", "times", "trap", "type", "umask", "wait"},
        _SCRIPT,
    ),
    **dict.fromkeys({"command", "eval", "exec"}, "name the program itself"),
    **dict.fromkeys({"alias", "unalias"}, "write what it stands for"),
    **dict.fromkeys({"cd", "chdir"}, "give working_dir"),
    **dict.fromkeys(
        {".", "declare", "export", "local", "readonly", "set", "source", "typeset", "unset"}, "give environment"
    ),
    "ulimit": "use prlimit, which starts a program with limits",
    ":": "use true",
}
"""Reserved words and built-ins that are no program, or another one than a shell's, and what to write instead."""
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
    """The words of a command line, as a POSIX shell would give them to a program.

    Raises:
        ShellSyntax: it needs a shell, is empty, or a quote is left open.
    """
    words = _words(line, is_check=is_check)
    if not words or not words[0]:
        raise ShellSyntax("is an empty command")
    if _ASSIGNMENT.match(words[0]):
        raise ShellSyntax(
            f"{words[0]!r:.40} sets a variable, which needs a shell: give it to the service's environment"
        )
    if words[0] in _OF_A_SHELL:
        raise ShellSyntax(f"{words[0]!r} is a word of the shell, and there is none: {_OF_A_SHELL[words[0]]}")
    if words[0] == "echo" and any("\\" in word for word in words):
        raise ShellSyntax("a backslash means something else to the echo of a shell: use printf")
    if splits_text(words):
        raise ShellSyntax("env -S takes a text apart once more: write its words as they are, without -S")
    if (shell := starts_shell(words)) is not None:
        raise ShellSyntax(f"{shell} starts a shell: {_instead(line, is_check=is_check)}")
    return words


def _words(line: str, *, is_check: bool) -> list[str]:
    """POSIX's token recognition and quote removal (XCU 2.2, 2.3); whatever would be expanded is refused."""
    words: list[str] = []
    word: str | None = None  # None: between words
    quote, characters = "", iter(line)
    for character in characters:
        if quote == "'":
            quote, word = ("", word) if character == "'" else (quote, f"{word}{character}")
        elif character == "\\":
            word = _escaped(next(characters, None), word, is_quoted=bool(quote), line=line)
        elif character in _EXPANDED or (not quote and (character in _OPERATORS or character in _GLOBS)):
            raise ShellSyntax(f"{character!r} needs a shell, and there is none: {_instead(line, is_check=is_check)}")
        elif quote:
            quote, word = ("", word) if character == '"' else (quote, f"{word}{character}")
        elif character in "'\"":
            quote, word = character, word or ""
        elif character in _BLANKS:
            words, word = ([*words, word], None) if word is not None else (words, None)
        elif character == "#" and word is None:
            raise ShellSyntax("'#' begins a comment here: leave that out, or write '#' in quotes")
        else:
            word = (word or "") + character
    if quote:
        raise ShellSyntax(f"{line!r:.80}: no closing quotation")
    return words if word is None else [*words, word]


def _escaped(character: str | None, word: str | None, *, is_quoted: bool, line: str) -> str | None:
    """What becomes of the word by a backslash and what follows it; in double quotes it is itself before most."""
    if character is None:
        raise ShellSyntax(f"{line!r:.80}: nothing follows its last backslash")
    if character == "\n":
        return word
    return (word or "") + ("\\" if is_quoted and character not in _ESCAPED_IN_QUOTES else "") + character


def _instead(line: str, *, is_check: bool) -> str:
    known = _CHECKS if is_check else _ACTIONS
    for word in re.findall(r"[A-Za-z0-9_./-]+", line):
        program = PurePosixPath(word).name
        for name, programs in known.items():
            if program in programs:
                return f"use the {'check' if is_check else 'action type'} {name}"
    if is_check:
        return 'use a check such as {"call": {"type": "command_ok", "argv": [...]}}'
    return _SCRIPT
