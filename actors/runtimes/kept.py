"""Services as children of the keeper: they outlive the daemon, and their exit codes do too.

When the keeper is lost (killed), its services fall to the daemon, which is a subreaper as well, and are watched from
here until they end; new ones are spawned by the next keeper. Where no keeper can be had at all, the daemon spawns by
itself and says so in ``trouble``.
"""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from actors.clock import Clock
from actors.exit_watcher import Ended, ExitWatcher
from actors.failpoints import reached, register
from actors.keeper.attributes import SpawnFailed
from actors.keeper.client import Hello, KeeperLink, KeeperLost, KeeperUnavailable, connect
from actors.keeper.words import BrokenFrame, Frame, KeptRun
from actors.runtimes.base import LaunchError, LaunchSpec, RestartAtOnce
from actors.runtimes.family import signal_group
from actors.runtimes.launching import SERVICE_VARIABLE, Spawner, launch_error
from actors.runtimes.nursery import KILL_SIGNAL, Kept, LocalNursery, News, OnNews
from actors.runtimes.procfs import ProcessIdentity, boot_id, identity_of
from actors.runtimes.resolving import Resolved, resolve

LOCKS: Final = "locks"
Key = tuple[str, int]
KEEPER_WELCOMED: Final = register("daemon.keeper.welcomed", "the keeper has told its runs, none is taken over")
KEEPER_LOST: Final = register("daemon.keeper.lost", "the keeper's end was seen, its services are not watched from here")
SPAWN_ANSWERED: Final = register("daemon.spawn.answered", "the keeper has told the pid, it is not in the table")


class LockHeld(LaunchError):
    """A process of an earlier run still holds the service's lock."""

    def __init__(self, service: str, path: Path) -> None:
        super().__init__(f"service {service!r}: a process of an earlier run is still alive (it holds {path})")
        self.path = path


class SpawnUnanswered(LaunchError):
    """The keeper was lost after it was asked to spawn: it may have done so with its last breath."""


@dataclass
class _Table:
    """What is known of kept runs. ``lock`` guards all of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    newest: dict[str, KeptRun] = field(default_factory=dict)
    listeners: dict[Key, OnNews] = field(default_factory=dict)
    untold: dict[Key, News] = field(default_factory=dict)
    local: set[Key] = field(default_factory=set)
    unwatched: list[tuple[Kept, OnNews]] = field(default_factory=list)
    ordered: dict[str, str] = field(default_factory=dict)


class KeeperNursery:
    """``Nursery`` over a keeper. ``ensure`` connects (and starts one); it is called again when the keeper was lost."""

    def __init__(self, state_dir: Path, hello: Hello, watcher: ExitWatcher, spawner: Spawner, clock: Clock) -> None:
        self._state_dir = state_dir
        self._hello = hello
        self._watcher = watcher
        self._spawner = spawner
        self._local = LocalNursery(watcher, spawner, clock)
        self._table = _Table()
        self._link: KeeperLink | None = None
        self._link_lock = threading.Lock()
        self._closed = False
        self._trouble: str | None = None
        self._lock_trouble: str | None = None
        self.missed: tuple[KeptRun, ...] = ()
        """Runs that ended and were started again while no daemon lived."""

    # -- the keeper itself ------------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        link = self._link
        return link is not None and link.is_alive

    @property
    def trouble(self) -> str | None:
        if self._lock_trouble is not None:  # looked at again: the next launch may be far away
            self._lock_folder()
        link = self._link
        return self._trouble or self._lock_trouble or (link.log_trouble if link is not None else None)

    @property
    def is_unavailable(self) -> bool:
        """None can be had: the daemon spawns by itself, and each launch tries again."""
        return self._trouble is not None

    @property
    def pid(self) -> int | None:
        link = self._link
        return link.pid if link is not None and link.is_alive else None

    def ensure(self) -> None:
        """Have a keeper, if one can be had; ``trouble`` says why not.

        Never raises: services must come up without one.
        """
        with self._link_lock:
            if self._closed or self.is_alive:
                return
            try:
                link = KeeperLink(connect(self._state_dir), self._hello, self._exited, self._lost)
            except (KeeperLost, KeeperUnavailable, BrokenFrame, OSError) as error:
                self._trouble = f"no keeper: {error}"
                structlog.get_logger().error("no keeper: the daemon spawns by itself", error=str(error))
                return
            self._trouble = None
            lost, self._link = self._link, link
            if lost is not None:
                lost.close()
            reached(KEEPER_WELCOMED)
            self._take_over(link.runs)
            if not link.is_alive:  # lost meanwhile: perhaps told before its runs were taken over, perhaps not at all
                self._lost()

    def beat(self) -> None:
        """The daemon is well: said once a second."""
        self._watch_the_rest()
        link = self._link
        if link is not None and link.is_alive:
            link.beat()

    def leave(self) -> None:
        """The daemon ends in order."""
        link = self._link
        if link is not None and link.is_alive:
            try:
                link.leave()
            except KeeperLost as lost:
                structlog.get_logger().warning("the keeper ended first", error=str(lost))

    def _take_over(self, runs: tuple[KeptRun, ...]) -> None:
        """What happened while no daemon lived."""
        with self._table.lock:
            for run in sorted(runs, key=lambda one: one.run):
                if run.end is not None and run.successor is not None:
                    self.missed = (*self.missed, run)
                else:
                    self._table.newest[run.service] = run
                    self._table.local.discard((run.service, run.run))  # it is kept (again)
            taken_on = [run for run in runs if (run.service, run.run) in self._table.listeners]
        for run in taken_on:
            self._claim(_kept(run))

    def _lost(self) -> None:
        """On the reader thread. The services have fallen to us (or to init): watch them from here."""
        structlog.get_logger().error("the keeper was lost; its services are watched from here")
        reached(KEEPER_LOST)
        with self._table.lock:
            orphaned = [
                run
                for run in self._table.newest.values()
                if run.end is None and (run.service, run.run) not in self._table.local
            ]
            self._table.local |= {(run.service, run.run) for run in orphaned}
            listeners = dict(self._table.listeners)
        for run in orphaned:
            if (listener := listeners.get((run.service, run.run))) is not None:
                self._watch_here(_kept(run), listener)

    def _watch_here(self, kept: Kept, on_news: OnNews) -> None:
        if identity_of(kept.identity.pid) != kept.identity:
            self._ended_here(kept, Ended(), on_news)  # reaped by the keeper with its last breath: nobody knows how
            return
        try:
            self._watcher.watch(kept.identity.pid, lambda ended: self._ended_here(kept, ended, on_news))
        except ProcessLookupError:
            self._ended_here(kept, Ended(), on_news)
        except (OSError, ValueError) as error:  # no descriptor is left: the next beat tries again
            structlog.get_logger().error("cannot watch a service yet", service=kept.service, error=str(error))
            with self._table.lock:
                self._table.unwatched.append((kept, on_news))

    def _watch_the_rest(self) -> None:
        with self._table.lock:
            waiting, self._table.unwatched = self._table.unwatched, []
        for kept, on_news in waiting:
            self._watch_here(kept, on_news)

    def _ended_here(self, kept: Kept, ended: Ended, on_news: OnNews) -> None:
        with self._table.lock:
            if (kept.service, kept.run) not in self._table.local:
                return  # a keeper has it (again) and tells, with the exit code
        self._forget(kept.service, kept.run)
        on_news(News(ended))

    # -- the contract -------------------------------------------------------------------------------------------------

    def spawn(self, spec: LaunchSpec, run: int, token: str) -> Kept:
        self.ensure()
        link = self._link
        if link is None or not link.is_alive:
            return self._local.spawn(spec, run, token)
        program = self._spawner.program(spec)
        words = _words(spec, program, resolve(spec))
        lock = self._lock_path(spec.service)
        try:
            answer = link.ask("spawn", run=run, token=token, lock=str(lock), **words)
        except KeeperLost as lost:
            raise SpawnUnanswered(f"service {spec.service!r}: {lost}; tried again with the next one") from lost
        except BrokenFrame as too_long:
            text = f"service {spec.service!r}: its command and environment are too long for the keeper: {too_long}"
            raise LaunchError(text, permanent=True) from too_long
        if "kept" not in answer:
            self._spawner.forget(spec)
            raise _refusal(spec, program, lock, answer)
        born = KeptRun.from_plain(answer["kept"])
        reached(SPAWN_ANSWERED)
        with self._table.lock:
            if (spec.service, run) not in self._table.untold:
                self._table.newest[spec.service] = born
            if _is_lost(link):  # after it answered: nobody but us will see its end
                self._table.local.add((spec.service, run))
        return _kept(born)

    def watch(self, kept: Kept, on_news: OnNews) -> None:
        key = (kept.service, kept.run)
        with self._table.lock:
            known = self._table.newest.get(kept.service)
            news = self._table.untold.pop(key, None)
            is_kept = known is not None and known.run == kept.run and key not in self._table.local
            if is_kept and news is None:
                self._table.listeners[key] = on_news
        if news is not None:
            on_news(news)
        elif is_kept:
            self._claim(kept)
        else:
            self._local.watch(kept, on_news)

    def _claim(self, kept: Kept) -> None:
        """A run that ended before the keeper heard of our claim is told by ``exited``, like any other."""
        link = self._link
        try:
            if link is not None:
                link.ask("claim", service=kept.service, run=kept.run)
        except KeeperLost:
            structlog.get_logger().warning("keeper lost while taking on a run", service=kept.service)

    def drop(self, kept: Kept) -> None:
        if not self._local.dropped(kept):
            self.signal(kept, KILL_SIGNAL, asked=True)

    def kept(self, service: str) -> Kept | None:
        with self._table.lock:
            run = self._table.newest.get(service)
        return None if run is None else _kept(run)

    def all_kept(self) -> tuple[Kept, ...]:
        with self._table.lock:
            return tuple(map(_kept, self._table.newest.values()))

    def signal(self, kept: Kept, number: int, *, asked: bool) -> bool:
        """The keeper signals: it alone knows that the pid is not reaped yet."""
        link = self._link
        with self._table.lock:
            known = self._table.newest.get(kept.service)
            is_local = (kept.service, kept.run) in self._table.local
            is_kept = known is not None and known.run == kept.run and not is_local
        if is_kept and link is not None and link.is_alive:
            try:
                answer = link.ask("signal", service=kept.service, run=kept.run, signal=number, group=True, asked=asked)
                return bool(answer["ok"])
            except KeeperLost:
                structlog.get_logger().warning("keeper lost while signalling", service=kept.service)
        return signal_group(kept.identity, number)

    def arm(self, kept: Kept, order: RestartAtOnce | None) -> None:
        link = self._link
        if link is None or not link.is_alive:
            return
        arming = None if order is None else {"token": os.urandom(16).hex(), "only_on_failure": order.only_on_failure}
        if arming is not None:  # one that is taken back may have been obeyed just before
            with self._table.lock:
                self._table.ordered[kept.service] = str(arming["token"])
        try:
            link.ask("arm", service=kept.service, run=kept.run, arming=arming)
        except KeeperLost:
            structlog.get_logger().warning("keeper lost while arming", service=kept.service)

    def order_token(self, service: str) -> str | None:
        with self._table.lock:
            return self._table.ordered.get(service)

    def recorded(self, service: str, run: int) -> None:
        self._forget(service, run)
        link = self._link
        if link is not None and link.is_alive:
            link.say("forget", service=service, run=run)

    def parents(self) -> frozenset[int]:
        pid = self.pid
        return frozenset({os.getpid()} if pid is None else {os.getpid(), pid})

    def hidden(self, service: str) -> tuple[ProcessIdentity, ...]:
        link = self._link
        if link is None or not link.is_alive:
            return ()
        try:
            found = link.ask("hidden", service=service)["found"]
        except KeeperLost:
            structlog.get_logger().warning("keeper lost while looking for the hidden", service=service)
            return ()
        return tuple(ProcessIdentity(int(pid), int(ticks), boot_id()) for pid, ticks in found)

    def close(self) -> None:
        with self._link_lock:
            self._closed = True
            link = self._link
        if link is not None:
            link.close()
        self._local.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _lock_path(self, service: str) -> Path:
        return self._lock_folder() / f"{service}.lock"

    def _lock_folder(self) -> Path:
        folder = self._state_dir / LOCKS
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:  # no room: the keeper goes on without the lock
            self._lock_trouble = f"cannot make {folder}: {error.strerror}"
        else:
            self._lock_trouble = None
        return folder

    def _exited(self, run: KeptRun, successor: KeptRun | None) -> None:
        """On the reader thread."""
        key = (run.service, run.run)
        end = run.end
        ended = Ended() if end is None else Ended(end.code, end.signal)
        news = News(ended, None if successor is None else _kept(successor))
        with self._table.lock:
            self._table.newest[run.service] = successor or run
            listener = self._table.listeners.pop(key, None)
            if listener is None:
                self._table.untold[key] = news
        if listener is not None:
            listener(news)

    def _forget(self, service: str, run: int) -> None:
        with self._table.lock:
            known = self._table.newest.get(service)
            if known is not None and known.run == run:
                del self._table.newest[service]
            self._table.local.discard((service, run))
            self._table.untold.pop((service, run), None)


def _is_lost(link: KeeperLink) -> bool:
    return not link.is_alive


def _kept(run: KeptRun) -> Kept:
    end = run.end
    return Kept(
        run.service,
        run.run,
        run.token,
        ProcessIdentity(run.pid, run.start_ticks, boot_id()),
        run.started_at,
        None if end is None else Ended(end.code, end.signal),
        0.0 if end is None else end.at,
        end is not None and end.asked,
    )


def _words(spec: LaunchSpec, program: str, resolved: Resolved) -> dict[str, Any]:
    """A spawn order for the keeper. It holds secrets: it goes through the socket and nowhere else."""
    log = None
    if spec.log_path is not None:
        log = {"path": str(spec.log_path), "max_bytes": spec.log_max_bytes, "backups": spec.log_backups}
    return {
        "service": spec.service,
        "argv": list(spec.command),
        "program": program,
        "cwd": None if spec.working_dir is None else str(spec.working_dir),
        "environment": {**resolved.environment, SERVICE_VARIABLE: spec.service},
        "files": [asdict(stamp) for stamp in resolved.stamps],
        "log": log,
        "attributes": resolved.attributes.to_plain(),
    }


def _refusal(spec: LaunchSpec, program: str, lock: Path, answer: Frame) -> LaunchError:
    if answer["stage"] == "lock":
        return LockHeld(spec.service, lock)
    return launch_error(spec, program, SpawnFailed(int(answer["errno"]), str(answer["stage"])))
