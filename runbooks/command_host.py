"""The host of one command: a process of its own between the daemon and what it runs. Standard library only.

It is a *subreaper* (prctl(2), Linux 3.4): whatever the command starts, in whatever session, with whatever environment
and however often it forks, stays below the host. So when the command's time is over, or the daemon dies, the host ends
all that is below it and knows when nobody is left: a process without children has no descendants.

It reads one JSON line from its standard input (``argv``, ``cwd``, ``env``, ``user``, ``input``, ``tail_bytes``,
``head_bytes``), and answers with one JSON object. The end of its standard input means: end it all now.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER, linux/prctl.h
END_S: Final = 4.5
"""All is to be down within five seconds, with some time to say so."""
_CHUNK: Final = 65536
_PAUSE_S: Final = 0.002
_QUIET_LOOKS: Final = 20


class Kept:
    """The beginning or the end of what was written, never all of it."""

    def __init__(self, head_bytes: int, tail_bytes: int) -> None:
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._kept = bytearray()
        self.is_cut = False

    def add(self, raw: bytes) -> None:
        self._kept += raw
        if self._head_bytes and len(self._kept) > self._head_bytes:
            del self._kept[self._head_bytes :]
            self.is_cut = True
        elif not self._head_bytes and len(self._kept) > self._tail_bytes:
            del self._kept[: -self._tail_bytes]
            self.is_cut = True

    def said(self) -> str:
        return base64.b64encode(bytes(self._kept)).decode("ascii")


def main() -> None:
    """Run the one command."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # wakes the loop; the end is told by standard input
    become_subreaper()
    order = json.loads(_line(0))
    try:
        child = _spawn(order)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _answer({"refused": f"{getattr(error, 'strerror', None) or error}"})
        return
    out, err = Kept(order["head_bytes"], order["tail_bytes"]), Kept(0, order["tail_bytes"])
    is_over = _attend(child, order["input"].encode(), out, err)
    left = end_all() if is_over else []
    code = None if is_over else child.returncode
    _answer({"code": code, "out": out.said(), "err": err.said(), "cut": out.is_cut, "left": left})


def become_subreaper() -> None:
    """Where the system knows no such thing the sweep by token, in the daemon, has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _line(fd: int) -> bytes:
    """The first line; nothing follows it."""
    raw = bytearray()
    while not raw.endswith(b"\n"):
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            raise SystemExit("no order came")
        raw += chunk
    return bytes(raw)


def _spawn(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    who = order["user"] or {}
    return subprocess.Popen(
        order["argv"],
        stdin=subprocess.PIPE if order["input"] else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=order["cwd"],
        env=order["env"],
        start_new_session=True,
        user=who.get("uid"),
        group=who.get("gid"),
        extra_groups=who.get("groups"),
    )


def _attend(child: subprocess.Popen[bytes], given: bytes, out: Kept, err: Kept) -> bool:
    """Until the command ends by itself; True: it is to be ended."""
    with selectors.DefaultSelector() as wait:
        ended = os.pidfd_open(child.pid)
        try:
            wait.register(ended, selectors.EVENT_READ, "ended")
            _listen(wait, child, out, err)
            while child.poll() is None:
                for key, _ in wait.select():
                    if key.data == "control" and not os.read(0, _CHUNK):
                        return True
                    if key.data == "input":
                        given = _fed(wait, child, given)
                    elif isinstance(key.data, Kept):
                        _take(wait, key.fileobj, key.data)
                _reap_strangers(child.pid)
            for key in list(wait.get_map().values()):
                if isinstance(key.data, Kept):
                    _take(wait, key.fileobj, key.data)
            return False
        finally:
            os.close(ended)


def _listen(wait: selectors.BaseSelector, child: subprocess.Popen[bytes], out: Kept, err: Kept) -> None:
    wait.register(0, selectors.EVENT_READ, "control")
    for pipe, events, what in (
        (child.stdout, selectors.EVENT_READ, out),
        (child.stderr, selectors.EVENT_READ, err),
        (child.stdin, selectors.EVENT_WRITE, "input"),
    ):
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
            wait.register(pipe, events, what)


def _fed(wait: selectors.BaseSelector, child: subprocess.Popen[bytes], given: bytes) -> bytes:
    stdin = child.stdin
    if stdin is None:
        return b""
    try:
        given = given[os.write(stdin.fileno(), given[:_CHUNK]) :]
    except BlockingIOError:
        return given
    except OSError:
        given = b""
    if not given:
        wait.unregister(stdin)
        stdin.close()
    return given


def _take(wait: selectors.BaseSelector, pipe: Any, kept: Kept) -> None:
    """What is there now. What a grandchild will still write is nobody's to wait for."""
    for _ in range(64):
        try:
            chunk = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            wait.unregister(pipe)
            return
        kept.add(chunk)


def _reap_strangers(pid: int) -> None:
    """Orphans that fell to us and ended; the command itself is the Popen's to reap."""
    for one in children():
        if one != pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(one, os.WNOHANG)


# -- the end of all ---------------------------------------------------------------------------------------------------


def end_all() -> list[int]:
    """Kill everybody below us, again and again, until nobody is; who would not die within ``END_S`` seconds.

    Our own children first, in a short loop: whoever forks and ends within a millisecond is our child as soon as its
    parent is gone. Of those further below whole groups are killed at a stroke: a group of a session below us holds
    nobody else.
    """
    deadline_s = time.monotonic() + END_S
    with contextlib.suppress(OSError):
        os.nice(-20)  # who forks as fast as it can must not leave us waiting for the processor
    while True:
        _hunt(deadline_s)
        for pid, parent in descendants():
            if parent != os.getpid():
                _kill(pid, parent)
        if _all_reaped():
            return []
        if time.monotonic() >= deadline_s:
            return sorted(children()) or [os.getpid()]  # somebody was there in this moment; say so in any case
        select.select([], [], [], _PAUSE_S)


def _hunt(deadline_s: float) -> None:
    """Kill our children until some looks met nobody new. Nobody gets a child's number before we have waited for it."""
    met, quiet = set[int](), 0
    me = os.getpid()
    with contextlib.suppress(OSError), open(f"/proc/{me}/task/{me}/children", "rb", buffering=0) as file:  # noqa: PTH123
        while quiet < _QUIET_LOOKS and time.monotonic() < deadline_s:
            found = [int(pid) for pid in os.pread(file.fileno(), _CHUNK, 0).split()]
            new = [pid for pid in reversed(found) if pid not in met]  # the newest may fork next
            for pid in new:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            met.update(new)
            quiet = 0 if new else quiet + 1
            while (reaped := _reaped()) > 0:
                met.discard(reaped)


def _reaped() -> int:
    """A child that has ended; 0 or less: there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return -1


def _kill(pid: int, parent: int) -> None:
    """Through a pidfd, after a look at whose child it is: a number that was used again in between is let be."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            if _parent(pid) in (parent, os.getpid()):
                group = os.getpgid(pid)
                if group not in (os.getpgid(0), 0):
                    os.killpg(group, signal.SIGKILL)
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  pathlib costs 10 ms at each start
        return int(file.read().rpartition(b")")[2].split()[1])


def _all_reaped() -> bool:
    while (pid := _reaped()) > 0:
        pass
    return pid < 0


def children(pid: int | None = None) -> list[int]:
    me = os.getpid() if pid is None else pid
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{me}/task"):
            with contextlib.suppress(OSError), open(f"{thread.path}/children", "rb") as file:  # noqa: PTH123
                found += map(int, file.read().split())
    return found


def descendants() -> Iterator[tuple[int, int]]:
    """Each with its parent, the nearest first, each as it is met."""
    me = os.getpid()
    known, new = {me}, [(pid, me) for pid in children()]
    while new:
        pid, parent = new.pop(0)
        if pid not in known:
            known.add(pid)
            yield pid, parent
            new += [(one, pid) for one in children(pid)]


def _answer(value: dict[str, Any]) -> None:
    raw = json.dumps(value).encode() + b"\n"
    with contextlib.suppress(OSError):  # the daemon died: nobody listens
        while raw:
            raw = raw[os.write(1, raw) :]


if __name__ == "__main__":
    main()
