"""The ledger: which run of which service was started, under which identity, how it ended, and what a person asked for.

An append-only file of JSON lines, never flushed to disk: it must survive a kill of the daemon (the page cache does),
not a power cut (no process does). So no disk stands between a death and the new spawn, and a full disk never prevents
a launch: the error is kept in ``trouble`` and the memory goes on. Any thread may call; one lock.
"""

from __future__ import annotations

import enum
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from actors.failpoints import reached, register

FORMAT: Final = 1
APPEND_WANTED: Final = register("daemon.ledger.append", "an entry is known in memory, it is not in the file")
APPENDED: Final = register("daemon.ledger.appended", "an entry is in the file, nothing followed from it")
COMPACT_WRITTEN: Final = register("daemon.ledger.compact.written", "the short ledger is written beside the old one")
COMPACTED: Final = register("daemon.ledger.compact.replaced", "the short ledger has taken the old one's place")


class Phase(enum.Enum):
    """How far the last known run came."""

    NEVER = "never"
    INTENT = "intent"
    LAUNCHED = "launched"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class ManualStop:
    """A person stopped the service; no policy overrules it. ``at`` is wall time (Unix seconds)."""

    by: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What is known of a service. ``identity`` is the runtime's own (pid and ticks, or container id and start)."""

    service: str
    run: int = 0
    phase: Phase = Phase.NEVER
    runtime: str = ""
    token: str = ""
    identity: Mapping[str, Any] | None = None
    started_at: float = 0.0
    last_exit: Mapping[str, Any] | None = None
    restarts: int = 0
    stopped: ManualStop | None = None
    exited_run: int = 0
    counted_run: int = 0
    """The newest run whose end is written, and the newest whose restart is counted: it is counted only once."""


Entry = dict[str, Any]


def fold(record: ServiceRecord, entry: Mapping[str, Any]) -> ServiceRecord:
    """The record after one more entry. Entries of an older run change nothing but the counters.

    Raises:
        KeyError, TypeError, ValueError: the entry is no entry.
    """
    match entry["is"]:
        case "intent":
            run = int(entry["run"])
            return replace(
                record, run=run, phase=Phase.INTENT, runtime=entry["runtime"], token=entry["token"], identity=None
            )
        case "launched" if entry["run"] == record.run:
            return replace(
                record, phase=Phase.LAUNCHED, identity=dict(entry["identity"]), started_at=float(entry["started_at"])
            )
        case "exited" if entry["run"] == record.run:
            return replace(record, phase=Phase.EXITED, last_exit=dict(entry["exit"]), exited_run=record.run)
        case "launched" | "exited":
            return record
        case "restarted":
            counted_run = max(record.counted_run, int(entry.get("run", 0)))
            return replace(record, restarts=record.restarts + 1, counted_run=counted_run)
        case "desired":
            stop = entry["stopped"]
            return replace(record, stopped=None if stop is None else ManualStop(**stop))
        case "record":
            return _record_from(entry["record"])
        case unknown:
            raise ValueError(f"unknown entry {unknown!r}")


def _record_from(raw: Mapping[str, Any]) -> ServiceRecord:
    stop = raw.get("stopped")
    return ServiceRecord(
        **{**raw, "phase": Phase(raw["phase"]), "stopped": None if stop is None else ManualStop(**stop)}
    )


class Ledger:
    """``Ledger(path)`` reads what is there, keeps aside what cannot be read, and writes it anew in short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.corrupt_lines = 0
        self.trouble: str | None = None
        self._lock = threading.Lock()
        self._records: dict[str, ServiceRecord] = {}
        self._fd: int | None = None
        self._line_is_torn = False
        self._load()
        self._compact()
        self._open()

    def record(self, service: str) -> ServiceRecord:
        """What is known of ``service``; an empty record for a new one."""
        with self._lock:
            return self._records.get(service) or ServiceRecord(service)

    def records(self) -> dict[str, ServiceRecord]:
        with self._lock:
            return dict(self._records)

    def intent(self, service: str, run: int, runtime: str, token: str) -> None:
        """Before the spawn: from now on a process with this token may exist."""
        self._write({"is": "intent", "service": service, "run": run, "runtime": runtime, "token": token})

    def launched(self, service: str, run: int, identity: Mapping[str, Any], started_at: float) -> None:
        self._write({"is": "launched", "service": service, "run": run, "identity": identity, "started_at": started_at})

    def exited(self, service: str, run: int, exit_facts: Mapping[str, Any]) -> None:
        self._write({"is": "exited", "service": service, "run": run, "exit": exit_facts})

    def restarted(self, service: str, run: int | None = None) -> int:
        """Count one restart; returns the total for as long as the ledger lives.

        Args:
            run: the run that ended, when it may have been counted by an earlier daemon: then it is not counted again.
        """
        known = self.record(service)
        if run is None or run > known.counted_run:
            self._write({"is": "restarted", "service": service, "run": known.exited_run if run is None else run})
        return self.record(service).restarts

    def stopped_by(self, service: str, stop: ManualStop | None) -> None:
        """Remember that a person stopped the service (or, with None, wants it to run again)."""
        self._write({"is": "desired", "service": service, "stopped": None if stop is None else asdict(stop)})

    def forget(self, service: str) -> None:
        """Drop all that is known of a service that is no longer configured (from the file at the next opening)."""
        self._write({"is": "record", "service": service, "record": _plain(ServiceRecord(service))})

    def close(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    # -- the file -------------------------------------------------------------------------------------------------

    def _write(self, entry: Entry) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            service = entry["service"]
            self._records[service] = fold(self._records.get(service) or ServiceRecord(service), entry)
            reached(APPEND_WANTED)
            self._append(line)
            reached(APPENDED)

    def _append(self, line: bytes) -> None:
        """One write, no flush. A short one leaves a torn line: the next begins with a line end."""
        if self._fd is None:
            self._open()
        if self._fd is None:
            return
        try:
            wanted = b"\n" + line if self._line_is_torn else line
            self._line_is_torn = os.write(self._fd, wanted) != len(wanted)
            self.trouble = f"cannot write {self.path}: disk full" if self._line_is_torn else None
        except OSError as error:
            self.trouble = f"cannot write {self.path}: {error.strerror}"

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self.trouble = f"cannot write {self.path}: {error.strerror}"

    def _load(self) -> None:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            self.trouble = f"cannot read {self.path}: {error.strerror}"
            return
        self._line_is_torn = bool(lines[-1])
        bad = [line for line in lines[:-1] if not self._take(line)]
        if lines[-1]:
            self._take(lines[-1])  # torn by a kill in mid-write, or whole without its line end: no corruption
        self._records = {name: known for name, known in self._records.items() if known != ServiceRecord(name)}
        self.corrupt_lines = len(bad)
        self._keep_aside(bad)

    def _take(self, line: bytes) -> bool:
        try:
            if line:
                entry = json.loads(line)
                service = str(entry["service"])
                self._records[service] = fold(self._records.get(service) or ServiceRecord(service), entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return True

    def _keep_aside(self, bad: list[bytes]) -> None:
        if not bad:
            return
        aside = self.path.with_name(self.path.name + ".corrupt")
        try:
            with aside.open("ab") as file:
                file.write(b"\n".join(bad) + b"\n")
        except OSError as error:
            self.trouble = f"cannot keep corrupt lines in {aside}: {error.strerror}"

    def _compact(self) -> None:
        """One line a service, by a new file put in place of the old one: a kill in between leaves one of the two."""
        if not self.path.exists():
            return
        new = self.path.with_name(self.path.name + ".new")
        try:
            with new.open("wb") as file:
                for record in self._records.values():
                    entry = {"is": "record", "service": record.service, "record": _plain(record), "format": FORMAT}
                    file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            reached(COMPACT_WRITTEN)
            new.replace(self.path)
            reached(COMPACTED)
            self._line_is_torn = False
        except OSError as error:
            self.trouble = f"cannot compact {self.path}: {error.strerror}"


def _plain(record: ServiceRecord) -> dict[str, Any]:
    return {**asdict(record), "phase": record.phase.value}
