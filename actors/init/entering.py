"""The way into the init: hold signals back, then replace this program by it. Standard library only.

Runs on the main thread of ``selfheal run``, before anything was started.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from actors.init.process import PASSED_ON

_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from actors.init.process import main; sys.exit(main(sys.argv[2:]))"
)


def hold_signals() -> None:
    """Let them wait until the init takes them: the kernel drops what PID 1 has neither blocked nor a handler for."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)


def become_init(daemon: Sequence[str]) -> NoReturn:
    """Go on as the init, which starts ``daemon`` (a command line)."""
    hold_signals()
    sys.stdout.flush()
    sys.stderr.flush()
    source = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(source), *daemon]
    os.execv(sys.executable, argv)  # noqa: S606  there is no shell anywhere
