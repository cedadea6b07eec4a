"""Whoever sent the alert: a process of its own that asks until it knows how the recovery ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guardian_link import Alert, GuardianClient
from tests.crash_runbooks.aside import run_aside

LIMIT_S = 150.0


class Sender:
    """``answer`` is None until the end is known to it."""

    def __init__(self, state: Path, alert: Alert, folder: Path) -> None:
        self._file, self._log = folder / "answer", folder / "sender.broke"
        self._file.unlink(missing_ok=True)
        self._process = run_aside(lambda: _ask(state, alert, self._file), self._log)

    @property
    def answer(self) -> dict[str, Any] | None:
        if self._file.exists():
            said: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            return said
        return {"status": "sender broke", "detail": self._log.read_text()} if self._log.exists() else None

    def end(self) -> None:
        self._process.kill()


def _ask(state: Path, alert: Alert, file: Path) -> None:
    said: dict[str, Any]
    with GuardianClient(state_dir=state) as client:
        ack = client.send(alert, timeout_s=LIMIT_S)
        if ack.execution_id is None:
            said = {"status": "not begun", "detail": str(ack.decision)}
        else:
            outcome = client.wait(ack.execution_id, timeout_s=LIMIT_S)
            said = {"status": outcome.status, "detail": outcome.detail, "execution_id": ack.execution_id}
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(said), encoding="utf-8")
        fresh.replace(file)
