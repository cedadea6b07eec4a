"""Processes of the test beside the daemon: forks, because a daemon is forked too, and only by one without threads."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.crash.warm import DaemonProcess


def run_aside(work: Callable[[], object], log: Path) -> DaemonProcess:
    """``work`` in a process of its own; what it raises stands in ``log``."""
    pid = os.fork()
    if pid:
        return DaemonProcess(pid)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        log.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)
