"""The process runtime: a service as an operating system process in a session of its own.

Methods run on the I/O pool and may block; the exit watcher's thread tells the ends. Never two live runs of a service:
a launch is refused while an earlier run's main process lives, and waits until that run's descendants are swept away.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import structlog

from actors.clock import Clock, SystemClock
from actors.exit_watcher import Ended, ExitWatcher
from actors.failpoints import reached, register
from actors.ledger import Ledger, Phase, ServiceRecord
from actors.runtimes.base import (
    ExitStatus,
    Handle,
    LaunchError,
    LaunchSpec,
    OnExit,
    PauseFailed,
    RestartAtOnce,
    StopFailed,
    TruthUnknown,
    Usage,
)
from actors.runtimes.cgroups import Cgroups
from actors.runtimes.family import KILL_SIGNAL, kill_family
from actors.runtimes.freezing import freeze, thaw
from actors.runtimes.kept import LOCKS, LockHeld, SpawnUnanswered
from actors.runtimes.launch_hash import launch_hash
from actors.runtimes.launching import Spawner
from actors.runtimes.locks import lock_holders
from actors.runtimes.nursery import Kept, LocalNursery, News, Nursery
from actors.runtimes.procfs import ProcessIdentity, is_alive, read_line, token_of
from actors.runtimes.recognising import Stranger, main_among, may_be, unrecorded
from actors.runtimes.runs import Run
from actors.runtimes.sweeping import SWEEP_S, Sweeper
from actors.runtimes.usage import ProcessMeter
from actors.service_logs import tail

NAME: Final = "process"
SPAWN_TRIES: Final = 3

LAUNCH_WANTED: Final = register("daemon.launch.wanted", "a launch was asked for, the intent is not written")
LAUNCH_INTENT: Final = register("daemon.launch.intent", "the intent is written, nothing was spawned")
LAUNCH_SPAWNED: Final = register("daemon.launch.spawned", "the process exists, it is not watched")
LAUNCH_WATCHED: Final = register("daemon.launch.watched", "the process is watched, its identity is not written")
LAUNCH_RECORDED: Final = register("daemon.launch.recorded", "the identity is written, the actor was not told")
ADOPT_WANTED: Final = register("daemon.adopt.wanted", "an adoption was asked for, nobody has looked")
ADOPT_KEPT: Final = register("daemon.adopt.kept", "the keeper's run was found, nothing is written")
ADOPT_CHECKED: Final = register("daemon.adopt.checked", "the ledger's run was found alive, it is not entered")
ADOPT_ENTERED: Final = register("daemon.adopt.entered", "the run is in the table, it is not watched or claimed")
ADOPTED: Final = register("daemon.adopt.done", "the run is watched, the actor was not told")
STOP_WANTED: Final = register("daemon.stop.wanted", "a stop was asked for, the family is known, no signal was sent")
STOP_SIGNALLED: Final = register("daemon.stop.signalled", "the first signal is sent")
STOP_ENDED: Final = register("daemon.stop.ended", "the main process ended or its grace is over, nothing was swept")
STOP_SWEPT: Final = register("daemon.stop.swept", "no process of the run is left, the stop has not returned")
STOPPED: Final = register("daemon.stop.done", "the end is told and no successor is left, the actor was not told")
END_SEEN: Final = register("daemon.end.seen", "a run's end was heard of, it is not written")
END_RECORDED: Final = register("daemon.end.recorded", "the exit is written; a successor, if any, is not")
SUCCESSOR_RECORDED: Final = register("daemon.end.successor", "the keeper's successor is written, nobody was told")
END_TOLD: Final = register("daemon.end.told", "the actor has the news, the keeper still remembers the run")
END_FORGOTTEN: Final = register("daemon.end.forgotten", "the keeper was told to forget the run")
ARM_WANTED: Final = register("daemon.arm.wanted", "the standing order changes, the keeper was not told")
ARM_DONE: Final = register("daemon.arm.done", "the keeper has the standing order")


@dataclass(frozen=True, slots=True)
class ProcessHandle:
    """One run of a service as a process."""

    service: str
    run: int
    identity: ProcessIdentity
    token: str
    started_at: float

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def container_id(self) -> None:
        return None


ProcessRun = Run[ProcessHandle]


class ProcessRuntime:
    """``Runtime`` for processes. One lock a service: different services never wait for each other."""

    name = NAME

    def __init__(
        self,
        ledger: Ledger,
        watcher: ExitWatcher | None = None,
        *,
        clock: Clock | None = None,
        environment: Mapping[str, str] | None = None,
        nursery: Nursery | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        """Args:
        environment: replaces the daemon's own as what every process gets.
        nursery: who is the parent of the processes; the daemon itself if not given.
        cgroups: a control group for each run, where the system has them.
        """
        self._ledger = ledger
        self._clock = clock or SystemClock()
        self._nursery = nursery or LocalNursery(watcher or ExitWatcher(), Spawner(environment), self._clock)
        self._meter = ProcessMeter(self._clock)
        self.sweeper = Sweeper(self._nursery, cgroups)
        self._table_lock = threading.Lock()
        self._runs: dict[str, ProcessRun] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._log_paths: dict[str, Path | None] = {}
        if cgroups is not None:
            recorded = {(one.service, one.token) for one in ledger.records().values() if one.phase is not Phase.EXITED}
            kept = {(one.service, one.token) for one in self._nursery.all_kept() if one.ended is None}
            cgroups.clear_leftovers(recorded | kept)

    # -- the contract ---------------------------------------------------------------------------------------------

    def launch(self, spec: LaunchSpec, run: int, on_exit: OnExit) -> ProcessHandle:
        with self._locked(spec.service), _looking(spec.service, LaunchError):
            self._log_paths[spec.service] = spec.log_path
            reached(LAUNCH_WANTED)
            self._clear_the_way(spec.service)
            token = secrets.token_hex(16)
            self._ledger.intent(spec.service, run, NAME, token, launch_hash(spec))
            reached(LAUNCH_INTENT)
            return self._begin(spec.service, self._spawn(spec, run, token), on_exit)

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> ProcessHandle | None:
        with self._locked(spec.service), _looking(spec.service, TruthUnknown):
            self._log_paths[spec.service] = spec.log_path
            reached(ADOPT_WANTED)
            current = self._runs.get(spec.service)
            if current is not None and current.take_over(on_exit):
                return current.handle
            kept = self._kept_news(spec.service)
            if kept is not None and (current is None or kept.run > current.handle.run):
                return self._adopt_kept(spec.service, kept, on_exit)
            if current is not None:
                return None
            return self._adopt_from_ledger(spec.service, on_exit) or self._adopt_unrecorded(spec, on_exit)

    def arm(self, handle: Handle, order: Callable[[], RestartAtOnce | None]) -> None:
        with self._locked(handle.service):
            run = self._run_of(handle)
            if run.status is None:
                reached(ARM_WANTED)
                self._nursery.arm(_kept(run.handle), order())
                reached(ARM_DONE)

    def stop(self, handle: Handle, grace_s: float) -> ExitStatus:
        run = self._run_of(handle)
        main = run.handle.identity
        snapshot = self._family(run)  # before any signal: afterwards nobody can tell whose children they were
        if run.status is None:
            run.asked = True
            reached(STOP_WANTED)
            self._nursery.signal(_kept(run.handle), signal.SIGTERM, asked=True)
            reached(STOP_SIGNALLED)
            run.wait(grace_s)
        reached(STOP_ENDED)
        self._sweep(run, snapshot)
        reached(STOP_SWEPT)
        status = run.wait(SWEEP_S)
        if status is None:
            raise StopFailed(f"service {handle.service!r}: process {main.pid} was killed but its end was never seen")
        self._stop_successor(run.handle, grace_s)
        reached(STOPPED)
        return status

    def kill(self, handle: Handle) -> None:
        run = self._run_of(handle)
        snapshot = self._family(run)
        if run.status is None:
            run.asked = True
            self._nursery.signal(_kept(run.handle), KILL_SIGNAL, asked=True)
        self._sweep(run, snapshot)

    def pause(self, handle: Handle) -> None:
        run = self._run_of_paused(handle)
        freeze(handle.service, lambda: self._family(run))

    def resume(self, handle: Handle) -> None:
        run = self._run_of_paused(handle)
        thaw(lambda: self._family(run))

    def _run_of_paused(self, handle: Handle) -> ProcessRun:
        try:
            return self._run_of(handle)
        except StopFailed as gone:
            raise PauseFailed(str(gone)) from gone

    def clear(self, service: str, grace_s: float) -> bool:
        with self._locked(service):
            record = self._ledger.record(service)
            handle = self.adopt(LaunchSpec(service, log_path=self._log_paths.get(service)), lambda _status: True)
        if handle is not None:
            self.stop(handle, grace_s)
            return True
        tokens = {one.token for one in self._unrecorded(service)}
        if record.runtime == NAME and record.token:
            tokens.add(record.token)
        swept = [self.sweeper.swept(service, token) for token in tokens]
        return any(swept)

    def usage(self, handle: Handle) -> Usage | None:
        run = self._run_of(handle)
        return None if run.status is not None else self._meter.measure(run.handle.identity)

    def log_tail(self, handle: Handle, lines: int) -> tuple[str, ...]:
        """The last lines the service wrote into its log file."""
        path = self._log_paths.get(handle.service)
        return () if path is None else tuple(tail(path, lines))

    def note_descents(self) -> None:
        """See who descends from whom, once in a while: what loses its parent later is then known all the same."""
        self.sweeper.look()

    def close(self) -> None:
        self._nursery.close()
        self.sweeper.close()

    # -- birth ----------------------------------------------------------------------------------------------------

    def _clear_the_way(self, service: str) -> None:
        """Refuse when an earlier run lives; sweep what an ended one left behind."""
        previous = self._runs.get(service)
        kept = self._nursery.kept(service)
        if kept is not None and kept.ended is None:
            raise LaunchError(
                f"service {service!r} already runs: pid {kept.identity.pid}, run {kept.run}: adopt it or stop it first"
            )
        if previous is None:
            self._clear_recorded(self._ledger.record(service))
            for token in {one.token for one in self._unrecorded(service)}:
                self._sweep_or_refuse(service, token)
        elif previous.status is None:
            raise LaunchError(
                f"service {service!r} already runs: pid {previous.handle.pid}, run {previous.handle.run}: stop it first"
            )
        else:
            self._sweep_or_refuse(previous.handle.service, previous.handle.token)

    def _clear_recorded(self, record: ServiceRecord) -> None:
        if record.runtime != NAME or not record.token:
            return
        if (living := self._recorded_main(record)) is not None:
            raise LaunchError(
                f"service {record.service!r} still runs from an earlier daemon: pid {living.pid}, run {record.run}: "
                "adopt it or stop it first"
            )
        self._sweep_or_refuse(record.service, record.token)

    def _sweep_or_refuse(self, service: str, token: str) -> None:
        try:
            self.sweeper.swept(service, token)
        except StopFailed as failed:
            raise LaunchError(str(failed)) from failed

    def _spawn(self, spec: LaunchSpec, run: int, token: str) -> Kept:
        """Raises LaunchError. A keeper lost on the way is no failure of the service: what it started is taken on."""
        for _ in range(SPAWN_TRIES - 1):
            try:
                return self._nursery.spawn(spec, run, token)
            except (LockHeld, SpawnUnanswered) as trouble:
                if (born := self._born_unheard(spec.service, run, token)) is not None:
                    return born
                if isinstance(trouble, LockHeld):  # what no table shows: it left its session, cleared its environment
                    self._free_lock(trouble)
        return self._nursery.spawn(spec, run, token)

    def _born_unheard(self, service: str, run: int, token: str) -> Kept | None:
        """What a keeper started just before it was lost: as it was asked to, or by its standing order."""
        for one in (token, self._nursery.order_token(service)):
            if one is not None and (born := self._session_leader_with(one)) is not None:
                if one != token:
                    self._ledger.intent(service, run, NAME, one)
                return Kept(service, run, one, born, self._clock.wall())
        return None

    def _free_lock(self, held: LockHeld) -> None:
        if left := kill_family(lambda: lock_holders(held.path), SWEEP_S):
            raise LaunchError(f"{held}; cannot be killed: {', '.join(str(member.pid) for member in left)}") from held

    def _begin(self, service: str, kept: Kept, on_exit: OnExit) -> ProcessHandle:
        reached(LAUNCH_SPAWNED)
        run = self._entered(service, kept, on_exit)
        try:
            self._watch(run, kept)
        except (OSError, ValueError) as error:  # no file descriptor left, or closed: an unwatched run must not live
            self._left(service)
            self._nursery.drop(kept)
            raise LaunchError(f"service {service!r}: cannot watch its process: {error}") from error
        reached(LAUNCH_WATCHED)
        self._ledger.launched(service, kept.run, _identity_facts(kept.identity), kept.started_at)
        reached(LAUNCH_RECORDED)
        return run.handle

    def _entered(self, service: str, kept: Kept, on_exit: OnExit) -> ProcessRun:
        handle = ProcessHandle(service, kept.run, kept.identity, kept.token, kept.started_at)
        run = Run(handle, on_exit)
        with self._table_lock:
            self._runs[service] = run
        self.sweeper.know(kept.identity, kept.token)
        return run

    def _left(self, service: str) -> None:
        """What cannot be watched is not in the table: the next adoption would take it for one that is."""
        with self._table_lock:
            self._runs.pop(service, None)

    def _watch(self, run: ProcessRun, kept: Kept) -> None:
        self._nursery.watch(kept, lambda news: self._ended(run, news))
        self.sweeper.place(kept.service, kept.token, kept.identity)

    def _watch_adopted(self, run: ProcessRun, kept: Kept) -> bool:
        """False: it died while we looked.

        Raises:
            TruthUnknown: it cannot be watched now: left as it is, for the next try.
        """
        try:
            self._watch(run, kept)
        except ProcessLookupError:
            self._left(kept.service)
            return False
        except (OSError, ValueError) as error:
            self._left(kept.service)
            text = f"service {kept.service!r} runs (pid {kept.identity.pid}), but cannot be watched: {error}"
            raise TruthUnknown(text) from error
        return True

    # -- adoption -------------------------------------------------------------------------------------------------

    def _adopt_from_ledger(self, service: str, on_exit: OnExit) -> ProcessHandle | None:
        record = self._ledger.record(service)
        if record.runtime != NAME or not record.token:
            return None
        identity = self._recorded_main(record)
        if identity is None:
            return None
        reached(ADOPT_CHECKED)
        started_at = record.started_at or self._clock.wall()
        kept = Kept(service, record.run, record.token, identity, started_at)
        run = self._entered(service, kept, on_exit)
        reached(ADOPT_ENTERED)
        if not self._watch_adopted(run, kept):
            return None
        if record.phase is Phase.INTENT:
            self._ledger.launched(service, record.run, _identity_facts(identity), started_at)
        reached(ADOPTED)
        return run.handle

    def _adopt_unrecorded(self, spec: LaunchSpec, on_exit: OnExit) -> ProcessHandle | None:
        """A run that neither the ledger nor a keeper knows (both were lost): its environment says whose it is."""
        main = main_among(self._unrecorded(spec.service), spec.command)
        if main is None:
            return None
        started_at = _started_at(main.identity.pid) or self._clock.wall()
        number = self._ledger.record(spec.service).run + 1
        kept = Kept(spec.service, number, main.token, main.identity, started_at)
        run = self._entered(spec.service, kept, on_exit)
        if not self._watch_adopted(run, kept):
            return None
        structlog.get_logger().warning("taken on without a record", service=spec.service, pid=main.identity.pid)
        self._write_launched(spec.service, kept, spec_hash="")
        return run.handle

    def _unrecorded(self, service: str) -> tuple[Stranger, ...]:
        record = self._ledger.record(service)
        known = {record.token} if record.runtime == NAME else set()
        return unrecorded(self._ledger.path.parent, service, known)

    def _kept_news(self, service: str) -> Kept | None:
        """What the keeper keeps, unless an earlier daemon had gone on from that and was killed before it said so."""
        kept, record = self._nursery.kept(service), self._ledger.record(service)
        if kept is None or kept.ended is None or not record.is_answered(kept.run):
            return kept
        self._nursery.recorded(service, kept.run)
        return None

    def _adopt_kept(self, service: str, kept: Kept, on_exit: OnExit) -> ProcessHandle:
        """A run the keeper knows: one that lives, or whose end nobody was there to hear of."""
        reached(ADOPT_KEPT)
        record = self._ledger.record(service)
        if record.run != kept.run or record.phase is not Phase.LAUNCHED:
            self._write_launched(service, kept)
        run = self._entered(service, kept, on_exit)
        run.asked = kept.asked
        reached(ADOPT_ENTERED)
        if kept.ended is not None:
            self._ended(run, News(kept.ended), at=kept.at)
        elif not self._watch_adopted(run, kept):
            with self._table_lock:
                self._runs[service] = run
            self._ended(run, News(Ended()))  # its keeper is gone too: nobody knows how
        reached(ADOPTED)
        return run.handle

    def _write_launched(self, service: str, kept: Kept, spec_hash: str | None = None) -> None:
        self._ledger.intent(service, kept.run, NAME, kept.token, spec_hash)
        self._ledger.launched(service, kept.run, _identity_facts(kept.identity), kept.started_at)

    def _recorded_main(self, record: ServiceRecord) -> ProcessIdentity | None:
        """The main process of the recorded run if it lives: by its identity, or by token when it was never written."""
        if record.phase is Phase.LAUNCHED and record.identity is not None:
            identity = _identity_from(record.identity)
            return identity if identity is not None and self._is_ours(identity, record) else None
        if record.phase is Phase.INTENT:
            return self._session_leader_with(record.token)
        return None

    def _is_ours(self, identity: ProcessIdentity, record: ServiceRecord) -> bool:
        """Whether the living process with this identity is the recorded run's main process.

        A record may be forged, or written on another machine: the process itself must show whose it is. A main process
        leads a session for all its life, and carries its token unless it wrote over its environment.
        """
        line = read_line(identity.pid)
        if line is None or not is_alive(identity) or line.session != identity.pid:
            return False
        if identity.pid in self.sweeper.protected():
            return False
        held = token_of(identity.pid)
        if held is not None:
            return held == record.token
        return may_be(identity, self._ledger.path.parent / LOCKS / f"{record.service}.lock")

    def _session_leader_with(self, token: str) -> ProcessIdentity | None:
        """The first of them: a descendant may lead a session too, but was born later."""
        for one in sorted(self.sweeper.living(token), key=lambda one: (one.start_ticks, one.pid)):
            line = read_line(one.pid)
            if line is not None and line.start_ticks == one.start_ticks and line.session == one.pid:
                return one
        return None

    # -- death ----------------------------------------------------------------------------------------------------

    def _ended(self, run: ProcessRun, news: News, at: float | None = None) -> None:
        handle = run.handle
        status = _status(news.ended, asked=run.asked, at=self._clock.wall() if at is None else at)
        if run.status is not None:
            return
        reached(END_SEEN)
        self._ledger.exited(handle.service, handle.run, asdict(status))
        reached(END_RECORDED)
        if news.successor is not None:
            self._write_launched(handle.service, news.successor)
            reached(SUCCESSOR_RECORDED)
        if run.finish(status):
            reached(END_TOLD)
            self._meter.forget(handle.identity)
            self._nursery.recorded(handle.service, handle.run)
            reached(END_FORGOTTEN)
            self.sweeper.tidy(handle.service, handle.token)

    def _stop_successor(self, handle: ProcessHandle, grace_s: float) -> None:
        """It crashed in the very moment of the stop and was started again at once: that one is to be stopped too."""
        with self._locked(handle.service):
            kept = self._nursery.kept(handle.service)
            if kept is None or kept.ended is not None or kept.run <= handle.run:
                return
            current = self._runs.get(handle.service)
            if current is not None and current.handle.run >= kept.run:
                return  # somebody has taken it on
            try:
                successor = self._adopt_kept(handle.service, kept, lambda _status: True)
            except TruthUnknown as unseen:
                self._nursery.drop(kept)  # an unwatched run must not live
                raise StopFailed(str(unseen)) from unseen
        self.stop(successor, grace_s)

    def _family(self, run: ProcessRun) -> tuple[ProcessIdentity, ...]:
        return self.sweeper.family(run.handle.identity, run.handle.token)

    def _sweep(self, run: ProcessRun, snapshot: tuple[ProcessIdentity, ...]) -> None:
        self.sweeper.sweep(run.handle.service, run.handle.token, snapshot)

    # -- the table ------------------------------------------------------------------------------------------------

    def _locked(self, service: str) -> threading.RLock:
        with self._table_lock:
            return self._locks.setdefault(service, threading.RLock())

    def _run_of(self, handle: Handle) -> ProcessRun:
        with self._table_lock:
            run = self._runs.get(handle.service)
        if run is None or run.handle.run != handle.run:
            raise StopFailed(f"service {handle.service!r}: run {handle.run} is not known here")
        return run


@contextlib.contextmanager
def _looking(service: str, refusal: type[LaunchError]) -> Iterator[None]:
    """Where the process table cannot be read (no file descriptor is left) nobody knows what runs."""
    try:
        yield
    except OSError as error:
        where = error.filename or "the process table"
        raise refusal(f"service {service!r}: cannot look at {where}: {error.strerror or error}") from error


def _kept(handle: ProcessHandle) -> Kept:
    return Kept(handle.service, handle.run, handle.token, handle.identity, handle.started_at)


def _status(ended: Ended, *, asked: bool, at: float) -> ExitStatus:
    if ended.signal is not None:
        cause = f"signal {_signal_name(ended.signal)}"
    elif ended.code is not None:
        cause = f"exit {ended.code}"
    else:
        cause = "unknown"  # adopted: only a parent is told
    return ExitStatus(cause, code=ended.code, signal=ended.signal, asked=asked, at=at)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _identity_facts(identity: ProcessIdentity) -> dict[str, Any]:
    return asdict(identity)


def _identity_from(facts: Mapping[str, Any]) -> ProcessIdentity | None:
    """None: these facts name no process."""
    try:
        return ProcessIdentity(int(facts["pid"]), int(facts["start_ticks"]), str(facts["boot_id"]))
    except (KeyError, TypeError, ValueError):
        return None


def _started_at(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
