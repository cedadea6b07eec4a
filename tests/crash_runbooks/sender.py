"""Whoever sent the alert: a process of its own that asks until it knows how the recovery ended.

It is a fork, because a daemon is forked too, and only from a process without other threads.
"""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

from guardian_link import Alert, GuardianClient
from tests.crash.warm import DaemonProcess

LIMIT_S = 150.0


class Sender:
    """``answer`` is None until the end is known to it."""

    def __init__(self, state: Path, alert: Alert, folder: Path) -> None:
        self._file = folder / "answer"
        self._file.unlink(missing_ok=True)
        pid = os.fork()
        if not pid:
            _ask(state, alert, self._file)
        self._process = DaemonProcess(pid)

    @property
    def answer(self) -> dict[str, Any] | None:
        return json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else None

    def end(self) -> None:
        self._process.kill()


def _ask(state: Path, alert: Alert, file: Path) -> None:
    said: dict[str, Any]
    try:
        with GuardianClient(state_dir=state) as client:
            ack = client.send(alert, timeout_s=LIMIT_S)
            if ack.execution_id is None:
                said = {"status": "not begun", "detail": str(ack.decision)}
            else:
                outcome = client.wait(ack.execution_id, timeout_s=LIMIT_S)
                said = {"status": outcome.status, "detail": outcome.detail, "execution_id": ack.execution_id}
    except BaseException:
        said = {"status": "sender broke", "detail": traceback.format_exc()}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(said), encoding="utf-8")
    fresh.replace(file)
    os._exit(0)
