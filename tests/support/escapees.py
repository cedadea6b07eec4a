"""Processes that do what they can to outlive their service's stop; and a user who may do nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NOBODY = 65534
FORK_STORM = """
import mmap, os, signal, sys, time
runners, end = int(sys.argv[2]), time.monotonic() + 60
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "w+b") as file:
    file.truncate(8 * runners)
    lives = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
for one in range(runners):
    if os.fork() == 0:
        while time.monotonic() < end:  # one life of a millisecond after the other, each in a session of its own
            if os.fork():
                os._exit(0)
            os.setsid()
            lives[one] += 1
        os._exit(0)
print("ready", flush=True)
signal.alarm(60)
signal.pause()
"""
ESCAPES = {
    "setsid": "setsid sh -c '{say}' &",
    "double-fork": "(setsid sh -c '(setsid sh -c \"{say_inner}\" &)' &) ;",
    "clean-environment": "env -i setsid /bin/sh -c '{say}' &",
    "ignores-term": "setsid sh -c 'trap \"\" TERM; {say}' &",
}


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def storm(lives_file: Path, runners: int) -> tuple[str, ...]:
    """A main process that ignores SIGTERM, with ``runners`` descendants that fork and end as fast as they can: so few
    live at any time that the machine survives. Each counts its lives in ``lives_file``.
    """
    return (sys.executable, "-S", "-c", FORK_STORM, str(lives_file), str(runners))


def lives_lived(lives_file: Path) -> list[int]:
    return list(memoryview(lives_file.read_bytes()).cast("Q"))


def escape(how: str, pid_file: Path, then: str = "exec sleep 1000") -> tuple[str, ...]:
    """A main process with a descendant that writes its pid into ``pid_file`` and lives on."""
    say = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    text = ESCAPES[how].format(say=say, say_inner=say.replace("$", "\\$"))
    return script(f"{text} while [ ! -e {pid_file} ]; do sleep 0.01; done; echo ready; {then}")


def escape_without_trace(pid_file: Path, go: Path) -> tuple[str, ...]:
    """Once ``go`` is there: a descendant that left its session, its environment, its parent and all its files."""
    say = f"echo \\$\\$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    closed = " ".join(f"{fd}>&-" for fd in range(3, 10))
    hide = f'(env -i setsid /bin/sh -c "{say}" {closed} &)'
    return script(f"while [ ! -e {go} ]; do sleep 0.01; done; {hide}; echo ready; exec sleep 1000")


def as_nobody() -> tuple[str, ...]:
    """What to put before a command, as root, so that it runs as a user without any right. Where that user may not even
    read this Python, reading is the one thing it is allowed.
    """
    plain = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    program = Path(sys.executable).resolve()
    if all(place.stat().st_mode & 0o001 for place in (program, *program.parents)):
        return plain
    return (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def give_to_nobody(folder: Path) -> Path:
    """A folder that user may use, however its parents are protected."""
    folder.mkdir(exist_ok=True)
    os.chown(folder, NOBODY, NOBODY)
    return folder
