"""The family of a run: its main process, all descendants, everybody in its group and session, all token holders.

``members_of`` is pure. The rest sends signals, and only to a process whose start ticks were checked while a pidfd held
its pid, so that no foreign process is ever signalled. Waits on pidfds, never sleeps on Linux.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final

import psutil

from actors.exit_watcher import HAS_PIDFD
from actors.keeper.kernel import children_of
from actors.runtimes.procfs import ProcessIdentity, ProcessTable, boot_id, is_alive, read_line, read_table, token_of

KILL_SIGNAL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows knows only one way
_QUIET_ROUNDS: Final = 3
_QUIET_S: Final = 0.03
"""After a kill so long must pass in which nobody is met: the kernel may leave out who is there while others of the list
end (proc_pid_children(5)), and on a busy machine who waits for its turn does nothing for many rounds.
"""
_MANY_DEAD: Final = 50
_ROUND_S: Final = 0.05
"""A member that dies slowly must not keep us from those that fork."""


def members_of(
    table: ProcessTable, main: ProcessIdentity, holders: Iterable[int] = (), *, protected: Iterable[int] = ()
) -> tuple[ProcessIdentity, ...]:
    """The living members of a run's family in ``table``, the main process first.

    Group and session count only while the main process holds its pid (alive or an unreaped zombie): afterwards the
    number may belong to somebody else.

    Args:
        holders: pids that carry the run's token.
        protected: pids that are never members (our own).
    """
    main_line = table.get(main.pid)
    main_is_there = main_line is not None and main_line.start_ticks == main.start_ticks
    found = {pid for pid in holders if pid in table}
    if main_is_there:
        found |= {main.pid} | {line.pid for line in table.values() if main.pid in (line.group, line.session)}
    found = _with_descendants(table, found) - set(protected) - {0, 1}
    living = (table[pid] for pid in sorted(found, key=lambda pid: (pid != main.pid, pid)) if not table[pid].is_dead)
    return tuple(ProcessIdentity(line.pid, line.start_ticks, main.boot_id) for line in living)


def family_now(main: ProcessIdentity, holders: Iterable[int], protected: Iterable[int]) -> tuple[ProcessIdentity, ...]:
    """``members_of`` the table as it is now, to be signalled.

    The lines of a table are not read at one instant, and numbers are used again: who is a member through its parent
    alone counts only if that parent was the same process after the child was read.
    """
    table, sure = read_table(), set(holders)
    members = members_of(table, main, sure, protected=protected)
    return tuple(one for one in members if one.pid in sure or _is_sure(table, main, one.pid))


def _is_sure(table: ProcessTable, main: ProcessIdentity, pid: int) -> bool:
    line = table[pid]
    if pid == main.pid or main.pid in (line.group, line.session):
        return True
    parent = read_line(line.parent)
    return parent is not None and parent.start_ticks == table[line.parent].start_ticks


def _with_descendants(table: ProcessTable, roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for line in table.values():
        children.setdefault(line.parent, []).append(line.pid)
    found, new = set(roots), list(roots)
    while new:
        new = [child for pid in new for child in children.get(pid, ()) if child not in found]
        found.update(new)
    return found


def signal_process(identity: ProcessIdentity, number: int) -> bool:
    """Send a signal to exactly this process. False: it is gone, its pid is somebody else's now, or it is another user's
    and not ours to signal.
    """
    if identity.boot_id != boot_id():
        return False
    if not HAS_PIDFD:
        return _signal_by_psutil(identity, number)
    fd = open_pidfd(identity)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def signal_group(leader: ProcessIdentity, number: int) -> bool:
    """Send a signal to the process group of ``leader``, which must lead one and not be reaped. False: it is gone."""
    line = read_line(leader.pid)
    if line is None or line.start_ticks != leader.start_ticks or leader.boot_id != boot_id():
        return False
    if line.group != leader.pid:
        return signal_process(leader, number)
    try:
        os.killpg(leader.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def wait_gone(identities: Iterable[ProcessIdentity], timeout_s: float) -> bool:
    """Wait until all are dead (zombies are), at most ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    if not HAS_PIDFD:
        return _wait_by_psutil(list(identities), timeout_s)
    poll = select.poll()
    fds = [fd for fd in map(open_pidfd, identities) if fd is not None]
    try:
        waiting = set(fds)
        for fd in fds:
            poll.register(fd, select.POLLIN)
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                waiting.discard(fd)
                poll.unregister(fd)
        return not waiting
    finally:
        for fd in fds:
            os.close(fd)


def kill_family(find: Callable[[], tuple[ProcessIdentity, ...]], timeout_s: float) -> tuple[ProcessIdentity, ...]:
    """Kill what ``find`` finds, look again until it finds nobody. Returns who is left after ``timeout_s`` seconds.

    Looking again is what catches a member that forked while we killed.
    """
    deadline = time.monotonic() + timeout_s
    while found := find():
        for member in found:
            signal_process(member, KILL_SIGNAL)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return found
        wait_gone(found, min(_ROUND_S, left_s))
    return ()


class OrphanHunt:
    """Kills the descendants of one run that live for less than a look at the whole process table takes.

    Whoever forks and ends as fast as it can is, as soon as its parent is gone, a direct child of the process to which
    orphans fall. That list is short and quick to read. A pidfd is opened before the token is read and the signal goes
    through it: so it reaches who carried the token, or nobody.
    """

    def __init__(self, token: str, parents: Iterable[int], protected: Iterable[int]) -> None:
        self._token = token
        self._parents = frozenset(parents)
        self._passed = set(protected)
        self._killed = 0
        self._missed = 0

    def run(self, timeout_s: float, patience_s: float) -> None:
        """Until some rounds met nobody new.

        Args:
            timeout_s: at most so long.
            patience_s: and so long when all that is met is gone before it is known whose it was: somebody else's storm.
        """
        if not HAS_PIDFD:
            return
        now_s = time.monotonic()
        deadline, last_kill, quiet, quiet_until = now_s + timeout_s, now_s, 0, now_s
        while (quiet < _QUIET_ROUNDS or now_s < quiet_until) and now_s < deadline and now_s - last_kill < patience_s:
            self._killed = self._missed = 0
            self._round()
            now_s = time.monotonic()
            last_kill, quiet_until = (now_s, now_s + _QUIET_S) if self._killed else (last_kill, quiet_until)
            quiet = 0 if self._killed or self._missed else quiet + 1

    def _round(self) -> None:
        for parent in self._parents:
            for pid in sorted(children_of(parent) - self._passed, reverse=True):  # the newest first
                self._meet(pid)
                if self._missed > _MANY_DEAD:
                    break  # the rest of them are dead for longer, and not given back yet

    def _meet(self, pid: int) -> None:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            self._missed += 1
            return
        try:
            token = token_of(pid)
            if token == self._token:
                signal.pidfd_send_signal(fd, KILL_SIGNAL)
                self._killed += 1
            elif token is None and not is_held(fd):
                self._missed += 1
            self._passed.add(pid)  # its number may be used again: then the look at the whole table finds who has it
        except (ProcessLookupError, PermissionError):
            self._missed += 1
        finally:
            os.close(fd)


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A pidfd on exactly this process; once it is open the pid cannot change hands unnoticed."""
    try:
        fd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    line = read_line(identity.pid)
    if line is None or line.start_ticks != identity.start_ticks:
        os.close(fd)
        return None
    return fd


def is_held(pidfd: int) -> bool:
    """Whether the process behind this pidfd still holds its pid and is alive."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _signal_by_psutil(identity: ProcessIdentity, number: int) -> bool:
    if not is_alive(identity):
        return False
    try:
        psutil.Process(identity.pid).send_signal(number)
    except psutil.Error:
        return False
    return True


def _wait_by_psutil(identities: list[ProcessIdentity], timeout_s: float) -> bool:
    living = [psutil.Process(known.pid) for known in identities if is_alive(known)]
    return not psutil.wait_procs(living, timeout=timeout_s)[1]
