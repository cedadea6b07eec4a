"""A control group (cgroup v2) for each run: what a run forks stays in it, whatever it changes of itself.

Owns the folder ``selfheal-<instance>`` in the v2 hierarchy and one thread that moves new runs into their groups: a move
costs some 10 ms, so it is nothing a restart waits for. No controller is used, so a hybrid mount beside v1 will do.

Killing a group kills all that is in it, so only a *proven* group is killed. A group is proven when each pid written
into it was held by a pidfd that was alive after the write: then the number meant our process. The proof is kept on the
group itself (an extended attribute), so it outlives the daemon; a group without it is never killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

import structlog

from actors.runtimes.family import is_held, open_pidfd
from actors.runtimes.procfs import ProcessIdentity, identity_of, token_of

OFF_VARIABLE: Final = "SELFHEAL_CGROUPS"
"""Set to ``off`` to do without: processes are then found one by one."""
_PROOF: Final = "user.selfheal.proven"
_LOOK_S: Final = 0.01
"""How long a change of ``cgroup.events`` may go untold (the notice is lost at times: seen on Linux 6.18)."""
_EARLY: Final = ".early"
"""A run's second group: for what was forked before its main process was moved."""
_PREFIX: Final = "selfheal-"
_ROUNDS: Final = 5
_END: Final = None
Job = Callable[[], None]


def open_cgroups(state_dir: Path) -> Cgroups | None:
    """The groups of this state directory; None where no v2 hierarchy with ``cgroup.kill`` (Linux 5.14) is writable.

    Raises:
        OSError: there is no such state directory.
    """
    if os.environ.get(OFF_VARIABLE) == "off":
        return None
    place = state_dir.stat()
    instance = _PREFIX + _short(f"{place.st_dev:x}.{place.st_ino:x}")
    for base in _bases():
        folder = base / instance
        if _is_usable(folder):
            return Cgroups(folder)
    return None


def _bases(mountinfo: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Iterable[Path]:
    """The roots of the v2 hierarchies that are mounted, then our own group in each (it may be delegated to us)."""
    try:
        mounts = [line.split() for line in mountinfo.read_text(encoding="utf-8").splitlines()]
        groups = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    roots = [(words[3], Path(words[4])) for words in mounts if words[words.index("-") + 1] == "cgroup2"]
    here = next((line.removeprefix("0::") for line in groups if line.startswith("0::")), "/")
    nested = [place / here.removeprefix(root).lstrip("/") for root, place in roots if here.startswith(root)]
    return [*(place for _, place in roots), *nested]


def _is_usable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / "probe"
        probe.mkdir(exist_ok=True)
    except OSError:
        return False
    try:
        return os.access(probe / "cgroup.procs", os.W_OK) and os.access(probe / "cgroup.kill", os.W_OK)
    finally:
        probe.rmdir()


class Cgroups:
    """``place`` and ``tidy`` return at once; ``kill`` waits. Any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # held over a move: who kills must know whether it is proven
        self._given_up: set[str] = set()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="cgroup-mover", daemon=True)
        self._thread.start()

    def place(
        self, service: str, token: str, main: ProcessIdentity, family: Callable[[], Iterable[ProcessIdentity]]
    ) -> None:
        """Move a run into its group, soon. A run that is there already (adopted) is only proven.

        Args:
            family: who belongs to the run besides its main process, so far.
        """
        self._jobs.put(lambda: self._place(self._group(service, token), main, family))

    def kill(self, service: str, token: str, timeout_s: float) -> bool:
        """Kill what is in the run's group, if the group is proven; nothing is moved into it any more.

        Returns whether the group is empty now (also when there is none). False: not proven, or not within
        ``timeout_s`` seconds; the processes must be found one by one.
        """
        deadline = time.monotonic() + timeout_s
        group = self._group(service, token)
        with self._lock:
            self._given_up.add(group.name)
        done = [_kill(one, deadline) for one in (group, _early(group))]
        return all(done)

    def tidy(self, service: str, token: str) -> None:
        """The run has ended: remove its group, soon, if it is empty."""
        group = self._group(service, token)
        self._jobs.put(lambda: self._tidy(group))

    def clear_leftovers(self, living: Collection[tuple[str, str]]) -> None:
        """Kill (where proven) and remove, soon, what earlier daemons left behind.

        Args:
            living: service and token of the runs that may live and are to be adopted. (A group in which somebody
                carries its run's token is left alone too.)
        """
        kept = {self._group(service, token).name for service, token in living}
        self._jobs.put(lambda: self._clear_leftovers(kept))

    def close(self) -> None:
        """End the thread, once it has done what it was asked. The groups of living runs stay."""
        self._jobs.put(_END)
        self._thread.join(5.0)
        with contextlib.suppress(OSError):  # not empty: runs live on
            self.folder.rmdir()

    def _group(self, service: str, token: str) -> Path:
        """The name follows from the run alone, so that the next daemon finds it; it does not give the token away."""
        return self.folder / f"{service}.{_short(token)}"

    # -- the mover's thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not _END:
            try:
                job()
            except OSError as error:  # no room for groups, or not ours any more: the sweep does without
                structlog.get_logger().warning("cgroup not used", error=str(error))

    def _place(self, group: Path, main: ProcessIdentity, family: Callable[[], Iterable[ProcessIdentity]]) -> None:
        with self._lock:
            if group.name in self._given_up:
                return
            if not _is_in(main.pid, group):
                self.folder.mkdir(exist_ok=True)
                group.mkdir(exist_ok=True)
                if _is_proven(group) or not _move(main, group):
                    _remove(group)
                    return
            elif identity_of(main.pid) != main:
                return
            _prove(group)  # one pid was ever written here, and it is still alive: it was ours
            self._place_early(group, family)

    def _place_early(self, group: Path, family: Callable[[], Iterable[ProcessIdentity]]) -> None:
        early = _early(group)
        for _ in range(_ROUNDS):
            outside = [one for one in family() if not _is_in(one.pid, group) and not _is_in(one.pid, early)]
            if not outside or _is_proven(early):
                break
            early.mkdir(exist_ok=True)
            moved = {one: _move(one, early) for one in outside}  # all of them, also after a doubt
            if not all(moved.values()):
                return
        if early.exists():
            _prove(early)

    def _tidy(self, group: Path) -> None:
        _remove(group)
        _remove(_early(group))
        self._given_up.discard(group.name)

    def _clear_leftovers(self, kept: Collection[str]) -> None:
        if not self.folder.exists():
            return
        for group in [one for one in self.folder.iterdir() if one.is_dir()]:
            if group.name.removesuffix(_EARLY) not in kept and not self._shows_whose_it_is(group):
                _kill(group, time.monotonic() + 1.0)
            _remove(group)

    def _shows_whose_it_is(self, group: Path) -> bool:
        """Whether somebody in it still carries the run's token: then it is taken on, or swept by that token; a record
        that got lost is no reason to kill it.
        """
        service, _, _ = group.name.removesuffix(_EARLY).rpartition(".")
        tokens = map(token_of, _pids_in(group))
        return any(token and self._group(service, token).name == group.name.removesuffix(_EARLY) for token in tokens)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _early(group: Path) -> Path:
    return group.with_name(group.name + _EARLY)


def _move(identity: ProcessIdentity, group: Path) -> bool:
    """Whether it is certain that this process, and no other, was moved."""
    fd = open_pidfd(identity)
    if fd is None:
        return False
    try:
        (group / "cgroup.procs").write_text(str(identity.pid), encoding="ascii")
        return is_held(fd)  # alive after the write: the number was its own all the time
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def _prove(group: Path) -> None:
    os.setxattr(group, _PROOF, b"1")


def _is_proven(group: Path) -> bool:
    try:
        return os.getxattr(group, _PROOF) == b"1"
    except OSError:
        return False


def _is_in(pid: int, group: Path) -> bool:
    """The end of the path is enough: it holds the instance's and the run's own names."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.startswith("0::") and line.endswith(f"/{group.parent.name}/{group.name}") for line in lines)


def _kill(group: Path, deadline: float) -> bool:
    """Whether nothing (of it) is left: see ``Cgroups.kill``."""
    try:
        events = os.open(group / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # there is no such group
    try:
        if not _is_populated(events):
            return True
        if not _is_proven(group):
            return False
        (group / "cgroup.kill").write_text("1", encoding="ascii")
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while _is_populated(events):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            poll.poll(min(left_s, _LOOK_S) * 1000)
        return True
    except OSError:  # removed meanwhile, or not ours any more
        return not group.exists()
    finally:
        os.close(events)


def _pids_in(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _is_populated(events: int) -> bool:
    return b"populated 1" in os.pread(events, 4096, 0)


def _remove(group: Path) -> None:
    """With the groups the service made in it, innermost first. One that is in use stays."""
    inner = [Path(place) for place, _, _ in os.walk(group, topdown=False)]
    for folder in inner:
        with contextlib.suppress(OSError):
            folder.rmdir()
