"""Processes of the test beside the daemon: forks, because a daemon is forked too, and only by one without threads."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bridge_link import BridgeClient
from tests.crash.warm import DaemonProcess

BEAT_S: Final = 0.1
Command = Callable[[Mapping[str, Any]], Any]


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


def speak(state: Path, name: str, folder: Path, commands: Mapping[str, Command]) -> None:
    """Be the bridge endpoint ``name`` until the end; it lives on when daemons die."""
    with BridgeClient(state_dir=state, name=name, folder=folder, beat_every_s=BEAT_S, commands=commands):
        threading.Event().wait()
