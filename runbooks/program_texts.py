"""Where in an argument list a value from outside would be read as a program. Pure.

Programs that read programs are known by name; what is not known to be an argument to them counts as program text. The
rule is about where a value may stand, not what it holds: no escaping for a language that only its interpreter knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from runbooks.templating import placeholders

SHELLS: Final = frozenset(
    {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "cmd", "cmd.exe", "powershell", "pwsh"}
    | {"powershell.exe", "pwsh.exe", "rbash", "rksh", "rzsh", "lksh", "yash", "posh", "sash", "elvish", "xonsh", "nu"}
    | {"capsh"}
)
_INTERPRETERS: Final = re.compile(
    r"(python|pypy|perl|ruby|node|nodejs|php|lua|luajit|tclsh|wish|osascript|rscript|julia|guile|groovy|scala"
    r"|[gmn]?awk|jq|yq)[0-9.]*(\.exe)?"
)
"""They read a program from an option's value or from their first argument; what comes after it is data."""
_EVERYWHERE: Final = re.compile(
    r"(psql|mysql|mariadb|sqlite3|mongosh?|g?sed|ed|ex|g?vim?|nvim|emacs|gdb|expect|bc|dc|deno|bun"
    r"|ssh|rsh|mosh|plink|su|runuser|script|watch|g?make|ninja|tmux|screen|parallel|at|batch|crontab|eval|xterm"
    r"|chroot|nsenter|unshare|flock|sg|entr|hyperfine|socat|nft|m4|ansible|salt(-call|-ssh)?|pdsh|pssh|clush)"
    r"[0-9.]*(\.exe)?"
)
"""They read programs from words anywhere, or hand the words that follow to a shell, here or elsewhere."""
_LAUNCHERS: Final = frozenset(
    {"env", "nice", "ionice", "timeout", "sudo", "doas", "setsid", "nohup", "stdbuf", "taskset", "chrt", "busybox"}
    | {"toybox", "xargs", "strace", "ltrace", "systemd-run", "setpriv", "time", "cgexec", "numactl", "unbuffer"}
    | {"firejail", "bwrap", "prlimit", "setarch", "catchsegv", "catatonit", "tini", "dumb-init", "gosu", "su-exec"}
    | {"pkexec", "fakeroot", "fakechroot", "proot", "valgrind", "dbus-run-session", "dbus-launch", "faketime"}
    | {"eatmydata", "daemonize", "chpst", "softlimit", "envdir", "setuidgid", "s6-setuidgid", "rlwrap", "torsocks"}
    | {"proxychains", "proxychains4", "xvfb-run", "aa-exec", "runcon", "systemd-inhibit", "systemd-cat", "ssh-agent"}
    | {"linux32", "linux64", "uvx", "npx", "bunx"}
)
"""They start the program that one of the words after their options names."""
_LOADER: Final = re.compile(r"ld(-linux|-musl)?[-_.a-z0-9]*\.so(\.[0-9]+)*")
"""The dynamic linker starts the program it is given."""
_EXECUTING: Final = {
    "docker": {"exec", "run", "create"},
    "docker-compose": {"exec", "run"},
    "podman": {"exec", "run", "create"},
    "nerdctl": {"exec", "run", "create"},
    "kubectl": {"exec", "run", "debug"},
    "lxc": {"exec"},
    "ip": {"exec"},
    "find": {"-exec", "-execdir", "-ok", "-okdir"},
    "choom": {"--"},
    "cpulimit": {"--"},
    "perf": {"stat", "record", "trace"},
    "uv": {"run"},
    "pipx": {"run"},
    "poetry": {"run"},
    "pipenv": {"run"},
    "pdm": {"run"},
    "conda": {"run"},
    "npm": {"exec", "x"},
    "snap": {"run"},
    "flatpak": {"run"},
}
"""Launchers only when one of these words is there."""
_PLAIN: Final = frozenset(
    {"echo", "printf", "logger", "systemctl", "service", "rc-service", "supervisorctl", "journalctl", "docker"}
    | {"podman", "nerdctl", "kubectl", "lxc", "ip", "find", "cat", "ls", "rm", "cp", "mv", "ln", "mkdir", "touch"}
    | {"chmod", "chown", "grep", "egrep", "fgrep", "pgrep", "pkill", "pidof", "killall", "kill", "which", "dpkg", "apk"}
    | {"apt", "apt-get", "dnf", "yum", "rpm", "curl", "wget", "du", "df", "stat", "test", "ps", "head", "tail", "wc"}
)
"""What they are given is never started (of those above: unless one of those words is there). Of no other program is
that known: a word that names a shell or an interpreter is taken for the start of one.
"""
_OTHER_THINGS: Final = frozenset({"cmd", "node"})
"""Names of interpreters that are as often words of another meaning."""
_IN_BIN: Final = re.compile(r".*(^|[/\\])s?bin[/\\][^/\\]+")
_PROGRAM_OPTIONS: Final = frozenset(
    {"--to-command", "--checkpoint-action", "--use-compress-program", "--compress-program", "--rsh", "--rsh-command"}
    | {"--rsync-path", "--info-script", "--new-volume-script", "--rmt-command", "--sh-exec", "--lua-exec", "--startas"}
    | {"--unzip-command", "--upload-pack", "--receive-pack", "--config-env", "--exec-path"}
)
"""Whoever takes one of these starts its value, or finds there what it starts."""
_OWN_OPTIONS: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "tar": ("IF", _PROGRAM_OPTIONS),
    "gtar": ("IF", _PROGRAM_OPTIONS),
    "bsdtar": ("", _PROGRAM_OPTIONS),
    "rsync": ("e", frozenset({"--rsh", "--rsync-path"})),
    "borg": ("", frozenset({"--rsh"})),
    "sort": ("", frozenset({"--compress-program"})),
    "split": ("", frozenset({"--filter"})),
    "git": ("c", frozenset({"--config", "--config-env", "--exec-path", "--upload-pack", "--receive-pack", "--exec"})),
    "nc": ("ce", frozenset({"--exec", "--sh-exec", "--lua-exec"})),
    "ncat": ("ce", frozenset({"--exec", "--sh-exec", "--lua-exec"})),
    "netcat": ("ce", frozenset({"--exec", "--sh-exec", "--lua-exec"})),
    "scp": ("oSF", frozenset()),
    "sftp": ("oSFD", frozenset()),
    "ssh-copy-id": ("oF", frozenset()),
    "zip": ("", frozenset({"-TT", "--unzip-command"})),
    "tcpdump": ("z", frozenset({"--postrotate-command"})),
    "pg_ctl": ("op", frozenset({"--options"})),
    "start-stop-daemon": ("xa", frozenset({"--exec", "--startas"})),
    "rg": ("", frozenset({"--pre", "--hostname-bin"})),
    "man": ("PH", frozenset({"--pager", "--html"})),
    "apt": ("oc", frozenset({"--option", "--config-file"})),
    "apt-get": ("oc", frozenset({"--option", "--config-file"})),
    "restic": ("o", frozenset({"--option", "--password-command"})),
}
"""Of these programs: letters and long options whose value is started, or says what is."""
_OTHER_C: Final = frozenset({"switch", "commit", "branch", "log", "diff", "show"})
"""Subcommands of git whose own ``-c`` takes no setting."""
_SETTING: Final = re.compile(r"(EXEC|SYSTEM|SHELL):\S.*|(-o)?(?i:(Proxy|Local|KnownHosts)Command)[ =].*", re.DOTALL)
"""An address of socat, a setting of ssh that is started."""
_SERVER_PROGRAMS: Final = {"eval": 1, "eval_ro": 1, "--eval": 1, "script": 2, "function": 2, "module": 2}
"""Words of redis-cli that a program follows, and after how many words."""
_REDIS_VALUE: Final = re.compile(r"-[hpsauntridDX]|--(user|pass|cert|key|cacert|cacertdir|sni|tls-ciphers)")
_TEXT_OPTION: Final = re.compile(
    r"-[A-Za-z0-9]*[cmeE]|-p|--(command|eval|execute|expression|print)|(?i:/[ck]|-command|-encodedcommand|-e[cn]+)"
)
_FLAGS_OF_A_SHELL: Final = re.compile(r"[-+][a-np-zA-NP-Z]+")
"""They take no value; with others one never knows."""
_SPLITS: Final = re.compile(r"-[^-uC]*S.*|--s.*", re.DOTALL)
_TAKES_VALUE: Final = re.compile(r"-[^-]*[uC]|--unset|--chdir")
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
        program, rest = program_of(argv[place]), argv[place + 1 :]
        if _EVERYWHERE.fullmatch(program) or _joins(program, rest):
            why = f"could be read as a program by {argv[place]} or what it starts: give it to a program of your own"
            found = dict.fromkeys(placeholders(list(rest)), why) | found
        elif program in SHELLS or _INTERPRETERS.fullmatch(program):
            why = f"could stand in a text that {argv[place]} runs as a program: make it an argument after the program"
            found = dict.fromkeys(placeholders(_before_data(rest, is_shell=program in SHELLS)), why) | found
        else:
            why = f"could be read as a program by {argv[place]}: write out what it starts"
            found = dict.fromkeys(placeholders(list(_started(program, rest))), why) | found
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


def splits_text(argv: Sequence[str]) -> bool:
    """Whether ``env -S`` is among what is started: it takes one text apart, by rules of its own."""
    return any(
        program_of(argv[place]) == "env" and any(map(_SPLITS.fullmatch, _options(argv[place + 1 :])))
        for place in _heads(argv)
    )


def _options(words: Sequence[str]) -> Iterator[str]:
    """The words before env's program, and some values of its options."""
    for number, word in enumerate(words):
        if not (word.startswith("-") or "=" in word or (number > 0 and _TAKES_VALUE.fullmatch(words[number - 1]))):
            return
        yield word


def _started(program: str, words: Sequence[str]) -> Iterator[str]:
    """What stands in options of a program whose values are started."""
    letters, own = _OWN_OPTIONS.get(program, ("", frozenset[str]()))
    for number, word in enumerate(words):
        before = words[number - 1] if number > 0 else ""
        is_own_c = program == "git" and not _OTHER_C.isdisjoint(words[:number])
        if not (is_own_c and (before == "-c" or word.startswith("-c"))) and (
            _is_program_option(word.partition("=")[0], own)
            or ("=" not in before and _is_program_option(before, own))
            or _has_letter(word.partition("{")[0], letters)
            or _has_letter(before, letters)
        ):
            yield word
        if _SETTING.fullmatch(word) or (program in ("tar", "gtar") and _names_program(words[0])):
            yield word
    if program == "redis-cli":
        yield from _of_redis(words)


def _names_program(bundle: str) -> bool:
    """The first word of tar needs no dash, and the values of its letters follow in their order."""
    return not bundle.startswith("-") and not {"I", "F"}.isdisjoint(bundle)


def _of_redis(words: Sequence[str]) -> Iterator[str]:
    """The command itself, and a program for the server."""
    for number, word in enumerate(words):
        if after := _SERVER_PROGRAMS.get(word.lower()):
            yield from words[number : number + 1 + after]
    takes_value = False
    for word in words:
        if not word.startswith("-") and not takes_value:
            yield word
            return
        takes_value = _REDIS_VALUE.fullmatch(word) is not None


def _is_program_option(name: str, own: frozenset[str]) -> bool:
    """A long option may be cut short."""
    return name in _PROGRAM_OPTIONS or name in own or (len(name) > 2 and any(one.startswith(name) for one in own))


def _has_letter(word: str, letters: str) -> bool:
    return word.startswith("-") and not word.startswith("--") and any(one in word for one in letters)


def _is_launching(argv: Sequence[str]) -> bool:
    program = program_of(argv[0])
    return (
        program in _LAUNCHERS
        or _LOADER.fullmatch(program) is not None
        or bool(_EXECUTING.get(program, frozenset()) & set(argv[1:]))
    )


def _heads(argv: Sequence[str]) -> Iterator[int]:
    """Where the name of a program that is started may stand: at the front, behind a launcher everywhere, and behind
    anything else where it is a shell's or an interpreter's.
    """
    yield 0
    is_launching = _is_launching(argv)
    if not is_launching and program_of(argv[0]) in _PLAIN:
        return
    for place in range(1, len(argv)):
        if not argv[place].startswith("-") and (is_launching or _may_be_started(argv, place)):
            yield place


def _may_be_started(argv: Sequence[str], place: int) -> bool:
    word, before = argv[place], argv[place - 1]
    program, is_path = program_of(word), "/" in word or "\\" in word
    if is_path and _IN_BIN.fullmatch(word) and _EVERYWHERE.fullmatch(program):
        return True
    if program not in SHELLS and not _INTERPRETERS.fullmatch(program):
        return False
    may_be_value = before.startswith("-") and before != "--" and "=" not in before
    if is_path or not (may_be_value or program in _OTHER_THINGS):
        return True
    return place + 1 < len(argv) and _TEXT_OPTION.fullmatch(argv[place + 1].partition("{")[0]) is not None


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
