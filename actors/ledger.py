"""The ledger: which run of which service was started, under which identity, how it ended, and what a person asked for.

An append-only file of JSON lines, never flushed to disk: it must survive a kill of the daemon (the page cache does),
not a power cut (no process does). So no disk stands between a death and the new spawn, and a full disk never prevents
a launch: the error is kept in ``trouble`` and the memory goes on. Any thread may call; one lock.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from actors.failpoints import reached, register

FORMAT: Final = 1
MODE: Final = 0o600
LAST_S: Final = 4e9
"""No wall time (Unix seconds, from 0) in a ledger is later: that would be in the year 2096."""
SHORTEN_BYTES: Final = 512 * 1024
SHORTEN_TIMES: Final = 4
"""A ledger is shortened while the daemon lives when it is longer than both: this, and so many times its own content."""
ALONE_S: Final = 1.0
_LOOK_S: Final = 0.005
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
    """A person stopped or paused the service; no policy overrules it. ``at`` is wall time (Unix seconds)."""

    by: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """The last run has proved its readiness: ``at`` wall time, ``now_s`` the clock of the boot ``boot_id``."""

    at: float
    now_s: float
    boot_id: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """A person chose the number of replicas; it wins over the file's. ``at`` is wall time (Unix seconds)."""

    replicas: int
    by: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What is known of a service. ``identity`` is the runtime's own (pid and ticks, or container id and start).

    ``pacing`` is what its supervisor must not forget (``supervisors.pacing_memory`` writes and reads it).
    """

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
    paused: ManualStop | None = None
    proof: Proof | None = None
    pacing: Mapping[str, Any] | None = None
    scaled: Scaled | None = None
    exited_run: int = 0
    counted_run: int = 0
    """The newest run whose end is written, and the newest whose restart is counted: it is counted only once."""
    judged_run: int = 0
    """The newest run whose end a supervisor has judged without restarting it at once: parked, or given up on."""
    spec_hash: str = ""
    """Of what the last run was launched with (``actors.runtimes.launch_hash``); empty where that is not known."""
    is_rested: bool = False
    """The daemon that saw the last run's end has ended in order since: what comes next is a new beginning."""

    def is_answered(self, run: int) -> bool:
        """Whether the end of this run was taken up by a supervisor: another followed, or its verdict is written."""
        return run < self.run or run <= max(self.counted_run, self.judged_run)


Entry = dict[str, Any]
_FIELDS: Final = frozenset(field.name for field in fields(ServiceRecord))


Wishes = tuple[ManualStop | None, ManualStop | None]
"""The stop and the pause that stand."""


def wishes_of(record: ServiceRecord) -> Wishes:
    return record.stopped, record.paused


def fold(record: ServiceRecord, entry: Mapping[str, Any]) -> ServiceRecord:
    """The record after one more entry. Entries of an older run change nothing but the counters.

    Raises:
        KeyError, TypeError, ValueError: the entry is no entry.
    """
    match entry["is"]:
        case "intent":
            run = int(entry["run"])
            return replace(
                record,
                run=run,
                phase=Phase.INTENT,
                runtime=entry["runtime"],
                token=entry["token"],
                spec_hash=_spec_hash(record, entry),
                identity=None,
                proof=None,
                is_rested=False,
            )
        case "launched" if entry["run"] == record.run:
            has_ended = record.exited_run == record.run  # its end may be written first
            return replace(
                record,
                phase=Phase.EXITED if has_ended else Phase.LAUNCHED,
                identity=dict(entry["identity"]),
                started_at=float(entry["started_at"]),
            )
        case "exited" if entry["run"] == record.run:
            return replace(record, phase=Phase.EXITED, last_exit=dict(entry["exit"]), exited_run=record.run)
        case "ready" if entry["run"] == record.run:
            return replace(record, proof=_proof(entry["proof"]))
        case "launched" | "exited" | "ready":
            return record
        case "judged":
            return replace(record, judged_run=max(record.judged_run, int(entry["run"])))
        case "rested":
            return replace(record, is_rested=True)
        case "paced":
            return replace(record, pacing=dict(entry["pacing"]))
        case "recaused":
            return replace(record, last_exit={**(record.last_exit or {}), "cause": str(entry["cause"])})
        case "restarted":
            counted_run = max(record.counted_run, int(entry.get("run", 0)))
            return replace(record, restarts=record.restarts + 1, counted_run=counted_run)
        case _:
            return _fold_wish(record, entry)


def _fold_wish(record: ServiceRecord, entry: Mapping[str, Any]) -> ServiceRecord:
    match entry["is"]:
        case "desired":
            return replace(record, stopped=_wish(entry["stopped"]), paused=_wish(entry.get("paused")))
        case "scaled":
            return replace(record, scaled=_scaled(entry["scaled"]))
        case "record":
            return _record_from(entry["record"])
        case unknown:
            raise ValueError(f"unknown entry {unknown!r}")


def _record_from(raw: Mapping[str, Any]) -> ServiceRecord:
    known = {name: raw[name] for name in _FIELDS if name in raw}  # a newer version may know more
    return ServiceRecord(
        **{
            **known,
            "phase": Phase(raw["phase"]),
            "stopped": _wish(raw.get("stopped")),
            "paused": _wish(raw.get("paused")),
            "proof": _proof(raw.get("proof")),
            "scaled": _scaled(raw.get("scaled")),
            "spec_hash": _word(raw.get("spec_hash", "")),
        }
    )


def _spec_hash(record: ServiceRecord, entry: Mapping[str, Any]) -> str:
    """The keeper starts again what was started: its entry need not say what."""
    inherited = record.spec_hash if record.runtime == entry["runtime"] else ""
    return _word(entry.get("spec_hash", inherited))


def _word(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"no hash: {raw!r}")
    return raw


def _scaled(raw: Mapping[str, Any] | None) -> Scaled | None:
    if raw is None:
        return None
    if type(raw["replicas"]) is not int or raw["replicas"] < 0:
        raise ValueError(f"no number of replicas: {raw['replicas']!r}")
    return Scaled(raw["replicas"], str(raw["by"]), float(raw["at"]), str(raw.get("why", "")))


def _proof(raw: Mapping[str, Any] | None) -> Proof | None:
    return None if raw is None else Proof(float(raw["at"]), float(raw["now_s"]), str(raw["boot_id"]))


def _wish(raw: Mapping[str, Any] | None) -> ManualStop | None:
    return None if raw is None else ManualStop(str(raw["by"]), float(raw["at"]), str(raw.get("why", "")))


def _checked(record: ServiceRecord) -> ServiceRecord:
    """A line may be whole JSON and nonsense all the same: nothing of it may reach those who act on it.

    Raises:
        TypeError, ValueError.
    """
    numbers = (record.run, record.restarts, record.exited_run, record.counted_run, record.judged_run)
    words = (record.service, record.runtime, record.token)
    if not all(type(number) is int and number >= 0 for number in numbers) or not all(
        isinstance(word, str) for word in words
    ):
        raise TypeError(f"no record: {record!r}")
    if record.proof is not None and not math.isfinite(record.proof.now_s):
        raise ValueError(f"no time: {record.proof.now_s!r}")
    said = (record.stopped, record.paused, record.proof, record.scaled)
    _check_times(record.started_at, *(one.at for one in said if one is not None))
    for facts in (record.identity, record.last_exit, record.pacing):
        if facts is not None and not isinstance(facts, Mapping):
            raise TypeError(f"no facts: {facts!r}")
    if record.identity is not None:
        _check_identity(record.identity)
    if record.last_exit is not None:
        _check_exit(record.last_exit)
    return record


def _check_times(*times: object) -> None:
    """Wall times that can be shown and reckoned with."""
    for one in times:
        if not isinstance(one, int | float) or isinstance(one, bool) or not 0.0 <= one <= LAST_S:
            raise ValueError(f"no time: {one!r}")


def _check_identity(identity: Mapping[str, Any]) -> None:
    """Words and numbers, and no pid that stands for many processes or for the first one."""
    if not all(isinstance(word, str | int | float | None) for word in identity.values()):
        raise TypeError(f"no identity: {dict(identity)!r}")
    pid = identity.get("pid")
    if pid is not None and (type(pid) is not int or pid <= 1):
        raise ValueError(f"no process: {pid!r}")


def _check_exit(facts: Mapping[str, Any]) -> None:
    _check_times(facts.get("at", 0.0))
    for name in ("code", "signal"):
        if facts.get(name) is not None and type(facts[name]) is not int:
            raise TypeError(f"no {name}: {facts[name]!r}")


class Ledger:
    """``Ledger(path)`` reads what is there, keeps aside what cannot be read, and writes it anew in short.

    ``look`` once in a while: what the file lacks (it was full, removed, cut) is written as soon as it can be, and a
    file that has grown far beyond its content is shortened. The keeper appends too (``actors.keeper.record``): while
    the file is read and replaced it is locked (flock), and the keeper's lines wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.corrupt_lines = 0
        self._trouble: str | None = None
        self._lock = threading.Lock()
        self._records: dict[str, ServiceRecord] = {}
        self._fd: int | None = None
        self._line_is_torn = False
        self._is_behind = False
        self._damage: str | None = None
        self._size = 0
        self._shorten_above = SHORTEN_BYTES
        with _alone_at(path) as is_alone:
            is_known = self._load()
            if is_alone and is_known:
                self._compact(self._records)
        self._open()

    @property
    def trouble(self) -> str | None:
        """What is wrong with the file; the memory goes on."""
        return self._trouble or self._damage

    def look(self) -> str | None:
        """Write what the file lacks, if it can be written now; returns ``trouble``."""
        with self._lock:
            if self._fd is None or self._is_moved():
                self._open_anew()
            elif os.fstat(self._fd).st_size < self._size:
                self._is_behind = self._line_is_torn = True
            if self._is_behind:
                self._catch_up()
            elif self._fd is not None and os.fstat(self._fd).st_size > self._shorten_above:
                self._shorten(self._fd)
            return self.trouble

    def record(self, service: str) -> ServiceRecord:
        """What is known of ``service``; an empty record for a new one."""
        with self._lock:
            return self._records.get(service) or ServiceRecord(service)

    def records(self) -> dict[str, ServiceRecord]:
        with self._lock:
            return dict(self._records)

    def intent(self, service: str, run: int, runtime: str, token: str, spec_hash: str | None = None) -> None:
        """Before the spawn: from now on a process with this token (a container with this id) may exist.

        Args:
            spec_hash: of what is launched; empty: not known; None: what was launched before is started again.
        """
        entry = {"is": "intent", "service": service, "run": run, "runtime": runtime, "token": token}
        self._write(entry if spec_hash is None else {**entry, "spec_hash": spec_hash})

    def launched(self, service: str, run: int, identity: Mapping[str, Any], started_at: float) -> None:
        self._write({"is": "launched", "service": service, "run": run, "identity": identity, "started_at": started_at})

    def exited(self, service: str, run: int, exit_facts: Mapping[str, Any]) -> None:
        self._write({"is": "exited", "service": service, "run": run, "exit": exit_facts})

    def proved(self, service: str, run: int, proof: Proof) -> None:
        """This run is ready: who adopts it need not ask again."""
        self._write({"is": "ready", "service": service, "run": run, "proof": asdict(proof)})

    def judged(self, service: str) -> None:
        """A supervisor knows of the last run's end, and does not restart it at once."""
        self._write({"is": "judged", "service": service, "run": self.record(service).exited_run})

    def rested(self) -> None:
        """The daemon ends in order: whose last run has ended begins anew under the next one."""
        for record in self.records().values():
            if record.phase is Phase.EXITED:
                self._write({"is": "rested", "service": record.service})

    def paced(self, service: str, pacing: Mapping[str, Any]) -> None:
        """Remember what the service's supervisor knows of its failures."""
        self._write({"is": "paced", "service": service, "pacing": pacing})

    def recaused(self, service: str, cause: str) -> None:
        """Why the last known end came is known better now."""
        self._write({"is": "recaused", "service": service, "cause": cause})

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

    def wanted_again(self, service: str, known: Wishes) -> bool:
        """Remember that the service is to run again, unless a person has wished otherwise since. Whether it is so.

        Args:
            known: what was wished when it was decided to run it.
        """
        with self._lock:
            if wishes_of(self._records.get(service) or ServiceRecord(service)) != known:
                return False
            self._enter({"is": "desired", "service": service, "stopped": None})
            return True

    def scaled_by(self, service: str, scaled: Scaled | None) -> None:
        """Remember the number of replicas a person chose (or, with None, go by the file's again)."""
        self._write({"is": "scaled", "service": service, "scaled": None if scaled is None else asdict(scaled)})

    def retire(self, service: str) -> None:
        """Drop what is known of a service that is taken out while the daemon runs; run numbers are never used twice."""
        fresh = ServiceRecord(service, run=self.record(service).run)
        self._write({"is": "record", "service": service, "record": _plain(fresh)})

    def paused_by(self, service: str, pause: ManualStop) -> None:
        """Remember that a person paused the service; ``stopped_by`` with or without a stop ends that."""
        self._write({"is": "desired", "service": service, "stopped": None, "paused": asdict(pause)})

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
        with self._lock:
            self._enter(entry)

    def _enter(self, entry: Entry) -> None:
        """With the lock."""
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        service = entry["service"]
        self._records[service] = fold(self._records.get(service) or ServiceRecord(service), entry)
        reached(APPEND_WANTED)
        self._append(line)
        reached(APPENDED)

    def _append(self, line: bytes) -> None:
        """One write, no flush."""
        if self._fd is None:
            self._open()
        if self._is_behind:
            self._catch_up()  # the memory has this entry already
        elif not self._put(line):
            self._is_behind = True

    def _catch_up(self) -> None:
        """All that is known, one line a service: the file missed something."""
        if self._put(b"".join(map(_line_of, self._records.values()))):
            self._is_behind = False

    def _put(self, lines: bytes) -> bool:
        """A write that came short leaves a torn line: the next begins with a line end. So does one after the keeper's:
        its last line may be torn. Empty lines mean nothing.
        """
        if self._fd is None:
            return False
        try:
            is_foreign = os.fstat(self._fd).st_size != self._size
            wanted = b"\n" + lines if self._line_is_torn or is_foreign else lines
            written = os.write(self._fd, wanted)
            self._size = os.fstat(self._fd).st_size
            self._line_is_torn = written != len(wanted)
            self._trouble = f"cannot write {self.path}: disk full" if self._line_is_torn else None
        except OSError as error:
            self._trouble = f"cannot write {self.path}: {error.strerror}"
            return False
        return not self._line_is_torn

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
            self._size = os.fstat(self._fd).st_size
        except OSError as error:
            self._trouble = f"cannot write {self.path}: {error.strerror}"
            self._is_behind = True

    def _is_moved(self) -> bool:
        """Whether the name is no longer this file's: nobody will read what is written to it."""
        try:
            place = self.path.stat()
        except OSError:
            return True
        own = None if self._fd is None else os.fstat(self._fd)
        return own is None or (own.st_dev, own.st_ino) != (place.st_dev, place.st_ino)

    def _open_anew(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._is_behind = self._line_is_torn = True  # it may end in mid-line
        self._open()

    def _load(self) -> bool:
        """Whether what is there is known now."""
        try:
            self._records, bad, self._line_is_torn = _read(self.path)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._damage = f"cannot read {self.path}: {error.strerror}"
            return False
        self._keep_aside(bad)
        return True

    def _shorten(self, fd: int) -> None:
        """From what the file says, not from memory: it may hold lines of the keeper that were not told yet."""
        with _alone(fd) as is_alone:
            if not is_alone:  # the keeper writes right now: the next look does it
                return
            self._shorten_above = 2 * os.fstat(fd).st_size  # for when it fails: not at every look
            try:
                records, bad, _ = _read(self.path)
            except OSError as error:
                self._trouble = f"cannot read {self.path}: {error.strerror}"
                return
            self._keep_aside(bad)
            if not self._compact(records):
                return
        os.close(fd)
        self._fd = None
        self._open()

    def _keep_aside(self, bad: list[bytes]) -> None:
        if not bad:
            return
        self.corrupt_lines += len(bad)
        self._damage = f"{self.path}: {self.corrupt_lines} corrupt lines, kept in {self.path.name}.corrupt"
        aside = self.path.with_name(self.path.name + ".corrupt")
        try:
            with open(aside, "ab", opener=_private) as file:
                file.write(b"\n".join(bad) + b"\n")
        except OSError as error:
            self._trouble = f"cannot keep corrupt lines in {aside}: {error.strerror}"

    def _compact(self, records: Mapping[str, ServiceRecord]) -> bool:
        """One line a service, by a new file put in place of the old one: a kill in between leaves one of the two."""
        if not self.path.exists():
            return False
        new = self.path.with_name(self.path.name + ".new")
        try:
            with open(new, "wb", opener=_private) as file:
                file.writelines(map(_line_of, records.values()))
                self._shorten_above = max(SHORTEN_BYTES, SHORTEN_TIMES * file.tell())
            reached(COMPACT_WRITTEN)
            new.replace(self.path)
            reached(COMPACTED)
            self._line_is_torn = False
        except OSError as error:
            self._trouble = f"cannot compact {self.path}: {error.strerror}"
            with contextlib.suppress(OSError):  # it only takes room
                new.unlink()
            return False
        return True


def _private(path: str, flags: int) -> int:
    """Tokens are in it, by which a process shows whose it is. A file that is there already gets this mode, too."""
    fd = os.open(path, flags, MODE)
    os.fchmod(fd, MODE)
    return fd


def _read(path: Path) -> tuple[dict[str, ServiceRecord], list[bytes], bool]:
    """What a file says, its whole lines that say nothing, and whether its last line is cut short.

    Raises:
        OSError.
    """
    lines = path.read_bytes().split(b"\n")
    records: dict[str, ServiceRecord] = {}
    bad = [line for line in lines[:-1] if not _take(records, line)]
    if lines[-1]:
        _take(records, lines[-1])  # torn by a kill in mid-write, or whole without its line end: no corruption
    return {name: known for name, known in records.items() if known != ServiceRecord(name)}, bad, bool(lines[-1])


def _take(records: dict[str, ServiceRecord], line: bytes) -> bool:
    try:
        if line:
            entry = json.loads(line)
            service = str(entry["service"])
            known = records.get(service) or ServiceRecord(service)
            after = _checked(fold(known, entry))
            if after.service != service:
                raise ValueError(f"a record of {after.service!r} under {service!r}")
            records[service] = after
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def _alone_at(path: Path) -> Iterator[bool]:
    """``_alone``, waiting up to ``ALONE_S`` for a keeper that writes right now. Without a file there is nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # reading it will say why
        yield True
        return
    try:
        pause, give_up_at = threading.Event(), time.monotonic() + ALONE_S
        while True:
            with _alone(fd, if_unlockable=True) as is_alone:
                if is_alone or time.monotonic() >= give_up_at:
                    yield is_alone
                    return
            pause.wait(_LOOK_S)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alone(fd: int, *, if_unlockable: bool = False) -> Iterator[bool]:
    """Whether nobody else writes to the file meanwhile. Never waits.

    Args:
        if_unlockable: the answer on a file system without locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    except OSError:
        yield if_unlockable
        return
    try:
        yield True
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # not only by closing: a child on its way to exec holds a copy


def _line_of(record: ServiceRecord) -> bytes:
    entry = {"is": "record", "service": record.service, "record": _plain(record), "format": FORMAT}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _plain(record: ServiceRecord) -> dict[str, Any]:
    return {**asdict(record), "phase": record.phase.value}
