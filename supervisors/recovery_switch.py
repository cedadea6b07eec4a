"""Whether alerts start runbooks: the file's word, unless a person switched it since. It counts before it is remembered.

Remembered in the journal, and in a small file beside it for the night in which the journal cannot be used. Any thread.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from actors.journal import happened, rows, runs
from actors.journal.journal import Journal
from actors.journal.schema import JournalTrouble
from actors.runbook import StopPolicy, StopRun
from supervisors.people import who_asks

KEY: Final = "recovery"
FILE_NAME: Final = "recovery.switch"
EVENTS_PATH: Final = "root/links/alerts"
JOURNAL_S: Final = 2.0
"""How long a switch waits for the journal before it says that it is not remembered there."""


@dataclass
class RecoverySwitch:
    """Args:
    state_dir: where its file goes.
    by_file: what the configuration says; ``policy``: what becomes of runs under way when it is switched off.
    heed: told of a switch at once, before it is remembered: (enabled, how runs are to end; None: they go on).
    """

    state_dir: Path
    journal: Journal
    wall: Callable[[], float]
    by_file: bool
    policy: StopPolicy
    heed: Callable[[bool, StopRun | None], object]
    _now: Mapping[str, Any] = field(default_factory=dict)
    _is_told: bool = False
    """Somebody switched in this process: whatever is on disk is older."""
    _unkept: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._now = self._read()

    @property
    def is_on(self) -> bool:
        return bool(self._now.get("enabled", self.by_file))

    @property
    def by(self) -> Mapping[str, Any]:
        """``by`` and ``at`` (Unix seconds) of a person's switch; nothing when the file's word counts."""
        return self._now if "enabled" in self._now else {}

    @property
    def trouble(self) -> str | None:
        """Why the switch would not outlive this daemon as it should."""
        return self._unkept

    def stop(self) -> StopRun | None:
        """How a run is to end that is taken up while recovery is off; None: it is on."""
        return None if self.is_on else StopRun(self.policy, f"recovery was switched off by {self._whose}")

    @property
    def _whose(self) -> str:
        return str(self._now.get("by", "the configuration"))

    # -- switching ----------------------------------------------------------------------------------------------------

    def switch(self, *, enabled: bool, by: str, why: str = "") -> None:
        """A person's word. It counts at once; ``trouble`` says where it could not be remembered."""
        self._become({"enabled": enabled, "at": self.wall(), **who_asks(by, why)}, by)

    def configured(self, *, enabled: bool, policy: StopPolicy, by: str) -> bool:
        """The file was read again. What it says anew is newer than what a person said before; whether it was so."""
        self.policy = policy
        if enabled == self.by_file:
            return False
        self.by_file = enabled
        self._become({"at": self.wall(), **who_asks(by, "the configuration says so")}, by)
        return True

    def _become(self, now: Mapping[str, Any], by: str) -> None:
        with self._lock:
            was_on = self.is_on
            self._now, self._is_told = now, True
            stop = None if self.is_on else StopRun(self.policy, f"recovery was switched off by {by}")
            if was_on or stop is None:
                self.heed(self.is_on, stop)
            self._keep(now, stop)

    def _keep(self, now: Mapping[str, Any], stop: StopRun | None) -> None:
        def write(db: sqlite3.Connection) -> None:
            self._record(db, now)
            if stop is not None:
                runs.ask_all_to_stop(db, stop.as_json())

        written = self._write(now)
        try:
            self.journal.submit(write).result(JOURNAL_S)
        except (JournalTrouble, TimeoutError) as trouble:
            why = str(trouble) or "it does not answer"
            where = f"kept in {self._file.name} and in memory" if written is None else f"kept in memory only: {written}"
            self._unkept = f"the switch is not in the journal ({why}); it is {where}"
            structlog.get_logger().critical("recovery switched without the journal", on=self.is_on, trouble=why)
        else:
            self._unkept = None

    # -- what is remembered -------------------------------------------------------------------------------------------

    def _record(self, db: sqlite3.Connection, now: Mapping[str, Any]) -> None:
        """The word, and who gave it when and why: both or neither."""
        rows.set_setting(db, KEY, now)
        said = {key: now[key] for key in happened.WHO if now.get(key)}
        event = f"recovery {'on' if now.get('enabled', self.by_file) else 'off'}"
        text = f"{event} by {now.get('by', 'nobody known')}" + (f": {now['why']}" if now.get("why") else "")
        happened.tell(db, _at(now), EVENTS_PATH, event, text, said)

    def journal_opened(self, db: sqlite3.Connection) -> None:
        """On the journal's thread, before anything is decided by it: the newer word counts, and is in both places.

        A switch that came while the journal could not be used is recorded now, with the time it was given at.
        """
        stored = rows.setting(db, KEY)
        if isinstance(stored, Mapping) and not self._is_told and _at(stored) >= _at(self._now):
            self._now = stored
        elif self._now and self._now != stored:
            db.execute("BEGIN")
            try:
                self._record(db, self._now)
            except BaseException:
                if db.in_transaction:  # a full disk may have ended it already
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        self._unkept = None

    @property
    def _file(self) -> Path:
        return self.state_dir / FILE_NAME

    def _write(self, now: Mapping[str, Any]) -> str | None:
        """Why it could not be written; None: it is on the disk."""
        fresh = self._file.with_suffix(".new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(dict(now)) + "\n")
                file.flush()
                os.fsync(fd)
            fresh.replace(self._file)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            return f"{self._file}: {error.strerror}"
        return None

    def _read(self) -> Mapping[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            structlog.get_logger().error("the remembered switch cannot be read", file=str(self._file), error=str(error))
            return {}
        return found if isinstance(found, dict) else {}


def _at(switched: Mapping[str, Any]) -> float:
    at = switched.get("at")
    return float(at) if isinstance(at, int | float) else 0.0
