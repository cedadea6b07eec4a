"""Where in an argument list a value from outside would be read as a program. Pure.

Programs that read programs are known by name; what is not known to be an argument to them counts as program text. The
rule is about where a value may stand, not what it holds: no escaping for a language that only its interpreter knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from runbooks.templating import placeholders

SHELLS: Final = frozenset(
    {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "cmd", "cmd.exe", "powershell", "pwsh"}
    | {"powershell.exe", "pwsh.exe"}
)
_INTERPRETERS: Final = re.compile(
    r"(python|pypy|perl|ruby|node|nodejs|php|lua|luajit|tclsh|wish|osascript|rscript|julia|guile|groovy|scala"
    r"|[gmn]?awk|jq|yq)[0-9.]*(\.exe)?"
)
"""They read a program from an option's value or from their first argument; what comes after it is data."""
_EVERYWHERE: Final = re.compile(
    r"(psql|mysql|mariadb|sqlite3|mongosh?|g?sed|ed|ex|g?vim?|nvim|emacs|gdb|expect|bc|dc|deno|bun"
    r"|ssh|rsh|mosh|plink|su|runuser|script|watch|g?make|ninja|tmux|screen|parallel|at|batch|crontab|eval|xterm"
    r"|chroot|nsenter|unshare|flock|sg|entr)[0-9.]*(\.exe)?"
)
"""They read programs from words anywhere, or hand the words that follow to a shell, here or elsewhere."""
_LAUNCHERS: Final = frozenset(
    {"env", "nice", "ionice", "timeout", "sudo", "doas", "setsid", "nohup", "stdbuf", "taskset", "chrt", "busybox"}
    | {"toybox", "xargs", "strace", "ltrace", "systemd-run", "setpriv", "time", "cgexec", "numactl", "unbuffer"}
    | {"firejail", "bwrap", "prlimit", "setarch", "catchsegv", "catatonit", "tini", "dumb-init", "gosu", "su-exec"}
)
"""They start the program that one of the words after their options names."""
_EXECUTING: Final = {
    "docker": {"exec", "run"},
    "podman": {"exec", "run"},
    "nerdctl": {"exec", "run"},
    "kubectl": {"exec", "run"},
    "lxc": {"exec"},
    "ip": {"exec"},
    "find": {"-exec", "-execdir", "-ok", "-okdir"},
}
"""Launchers only when one of these words is there."""
_TEXT_OPTION: Final = re.compile(
    r"-[A-Za-z0-9]*[cmeE]|-p|--(command|eval|execute|expression|print)|(?i:/[ck]|-command|-encodedcommand|-e[cn]+)"
)
_FLAGS_OF_A_SHELL: Final = re.compile(r"[-+][a-np-zA-NP-Z]+")
"""They take no value; with others one never knows."""
_SCRIPT_OPTION: Final = re.compile(r"(?i)-f(ile)?")


def program_of(word: str) -> str:
    """The name a program goes by, wherever it lies."""
    return PurePosixPath(word.replace("\\", "/")).name.lower()


def unsafe(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """For each placeholder that stands where it must not: its name, and why (a clause that follows it).

    ``argv[0]`` itself is not looked at.
    """
    found: dict[str, str] = {}
    for place in _heads(argv):
        program = program_of(argv[place])
        if _EVERYWHERE.fullmatch(program) or _joins(program, argv[place + 1 :]):
            why = f"could be read as a program by {argv[place]} or what it starts: give it to a program of your own"
            found = dict.fromkeys(placeholders(list(argv[place + 1 :])), why) | found
        elif program in SHELLS or _INTERPRETERS.fullmatch(program):
            why = f"could stand in a text that {argv[place]} runs as a program: make it an argument after the program"
            found = (
                dict.fromkeys(placeholders(_before_data(argv[place + 1 :], is_shell=program in SHELLS)), why) | found
            )
    if _is_launching(argv):
        why = f"could choose what {argv[0]} starts: name that by its whole path, before it"
        found = dict.fromkeys(placeholders(_before_program(argv[1:])), why) | found
    yield from found.items()


def starts_shell(argv: Sequence[str]) -> str | None:
    """The shell that an argument list hands a text to, however it gets there; None: none."""
    for place in _heads(argv):
        rest = argv[place + 1 :]
        if program_of(argv[place]) in SHELLS and any(map(_TEXT_OPTION.fullmatch, rest)):
            return argv[place]
    return None


def _joins(program: str, words: Sequence[str]) -> bool:
    """The shells of Windows take all words after their option as one text."""
    if program.startswith(("powershell", "pwsh")):
        return not any(map(_SCRIPT_OPTION.fullmatch, words))
    return program in ("cmd", "cmd.exe")


def _is_launching(argv: Sequence[str]) -> bool:
    program = program_of(argv[0])
    return program in _LAUNCHERS or bool(_EXECUTING.get(program, frozenset()) & set(argv[1:]))


def _heads(argv: Sequence[str]) -> Iterator[int]:
    """Where the name of a program that is started may stand: at the front, and behind a launcher everywhere."""
    yield 0
    if _is_launching(argv):
        yield from (place for place in range(1, len(argv)) if not argv[place].startswith("-"))


def _before_data(words: Sequence[str], *, is_shell: bool) -> list[str]:
    """What an interpreter may read as its program: everything up to the first word that surely is it, and that word.

    That is the value of an option for program texts, or else the first word that is no option and no option's value.
    """
    takes_value = False
    for number, word in enumerate(words):
        is_option = word.startswith(("-", "+"))
        if not is_option and (not takes_value or _TEXT_OPTION.fullmatch(words[number - 1])):
            return list(words[: number + 1])
        takes_value = is_option and not (is_shell and _FLAGS_OF_A_SHELL.fullmatch(word))
    return list(words)


def _before_program(words: Sequence[str]) -> list[str]:
    """What stands before the program that a launcher starts: the first word that is a whole path."""
    for number, word in enumerate(words):
        is_value = number > 0 and words[number - 1].startswith("-") and words[number - 1] != "--"
        if word.startswith("/") and not is_value:
            return list(words[: number + 1])
    return list(words)
