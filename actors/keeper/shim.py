"""The exec shim: gives attributes to a process that a daemon without a keeper spawns, then becomes its program.

The daemon has many threads, so nothing of its own may run between fork and exec: it spawns this small program the quick
way (vfork) instead. Arguments: attributes as JSON, descriptor of the verdict pipe, working directory, program, argv.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

from actors.keeper.attributes import Attributes, apply
from actors.keeper.spawning import report

PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from actors.keeper.shim import main; main(sys.argv[2:])"
RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)


def main(words: list[str]) -> None:
    """Become the program. On failure the reason goes through the pipe and this process ends."""
    raw, pipe, cwd, program, *argv = words
    writer = int(pipe)
    try:
        os.set_inheritable(writer, False)
        for number in RESTORED:
            signal.signal(number, signal.SIG_DFL)
        apply(Attributes.from_plain(json.loads(raw)), cwd or None)
        os.execve(program, argv, _environment())  # noqa: S606  there is no shell in between
    except BaseException as error:
        report(writer, error)
        os._exit(127)


def _environment() -> dict[bytes, bytes]:
    """As it was given: the interpreter may have added its locale to its own since."""
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:  # no Linux
        return dict(os.environb)
    return dict(entry.split(b"=", 1) for entry in raw.split(b"\0") if b"=" in entry)


def argv_of(attributes: Attributes, pipe: int, cwd: str | None, program: str, argv: tuple[str, ...]) -> list[str]:
    """The command that runs the shim. It names no environment: secrets are not seen in ``ps``."""
    source = str(Path(__file__).resolve().parents[2])
    facts = json.dumps(attributes.to_plain(), separators=(",", ":"))
    return [sys.executable, "-I", "-S", "-c", PROGRAM, source, facts, str(pipe), cwd or "", program, *argv]
