"""The two rows that matter, for us and for the peers that are installed, in the same run.

Row 1: how many copies of a service live after its supervisor was killed with SIGKILL and started again (wanted: 1).
Row 2: what of a service lives after its stop: a grandchild in a session of its own, a child in the same group, the main
process (wanted: 0/0/0). Each peer is told to stop the whole group where it can be told.

    python benchmarks/never_twice_peers.py [PEER ...] [--settle-s 8]

supervisord and circus come from PyPI, runit and s6 from the distribution. A program is looked for beside this Python,
in the folder PEERS_BIN names, and on the PATH; a peer whose program is missing is named in its row.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from actors.runtimes.cgroups import open_cgroups

PR_SET_CHILD_SUBREAPER = 36
STOP_WITHIN_S = 20.0
START_WITHIN_S = 30.0
SLEEPER = "import signal, sys; open(sys.argv[1] + '/up.' + sys.argv[2], 'w'); signal.pause()"
SERVICE = f"""
import os, subprocess, sys
def sleeper(role):
    return [sys.executable, "-c", {SLEEPER!r}, sys.argv[1], role]
subprocess.Popen(sleeper("grandchild"), start_new_session=True)
subprocess.Popen(sleeper("child"))
os.execv(sys.executable, sleeper("main"))
"""
ROLES = ("grandchild", "child", "main")


class Missing(Exception):
    """A program of this peer is not installed."""


class Failed(Exception):
    """The peer did not do what it was started for."""


@dataclass
class Place:
    """A scratch folder of one measurement. Whatever carries ``marks`` on its command line is of its service."""

    work: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.marks.mkdir(parents=True)

    @property
    def marks(self) -> Path:
        return self.work / "marks"

    @property
    def service(self) -> list[str]:
        return [sys.executable, str(self.work.parent / "service.py"), str(self.marks)]

    def run(self, *argv: object) -> subprocess.Popen[bytes]:
        """Start a supervisor."""
        with (self.work / "peer.log").open("ab") as log:
            process = subprocess.Popen([str(one) for one in argv], stdout=log, stderr=log, cwd=self.work)
        self.started.append(process)
        return process

    def call(self, *argv: object) -> None:
        """A command of the peer; it may take its time, and may fail: what lives afterwards is counted."""
        with (self.work / "peer.log").open("ab") as log:
            subprocess.run([str(one) for one in argv], stdout=log, stderr=log, timeout=STOP_WITHIN_S * 2, check=False)

    def alive(self, role: str) -> list[psutil.Process]:
        return [one for one in _processes() if _words(one)[-2:] == [str(self.marks), role]]

    def until_up(self) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not all((self.marks / f"up.{role}").exists() and self.alive(role) for role in ROLES):
            if time.monotonic() > deadline:
                raise Failed(f"not up within {START_WITHIN_S:.0f} s: {(self.work / 'peer.log').read_text()[-300:]}")
            time.sleep(0.05)

    def _is_ours(self, process: psutil.Process) -> bool:
        """Named on its command line, or at home here: runsv and s6-supervise show in their folder only."""
        try:
            home = process.cwd()
        except psutil.Error:
            home = ""
        words = _words(process)
        return bool(words) and any(str(self.work) in word for word in (*words, home))

    def clean(self) -> None:
        """Supervisors first, or they would start their children again."""
        for _ in range(20):
            mine = [one for one in _processes() if one.pid != os.getpid() and self._is_ours(one)]
            if not mine:
                break
            for one in sorted(mine, key=lambda one: one.create_time()):
                _kill(one)
            psutil.wait_procs(mine, timeout=1)
        for process in self.started:
            process.wait(10)
        if (self.work / "state").exists() and (cgroups := open_cgroups(self.work / "state")) is not None:
            cgroups.clear_leftovers([])
            cgroups.close()
        _reap()


def _processes() -> list[psutil.Process]:
    _reap()
    return list(psutil.process_iter())


def _words(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _reap() -> None:
    """Orphans below us are ours (we are a subreaper): a zombie must not look alive."""
    for child in psutil.Process().children():
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)  # a Popen that finds its child gone is content
        except (psutil.Error, ChildProcessError):
            continue


def tool(*names: str) -> list[str]:
    """The paths of a peer's programs. Raises: Missing."""
    folders = [os.environ.get("PEERS_BIN", ""), str(Path(sys.executable).parent)]
    path = os.pathsep.join([*filter(None, folders), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in names}
    if missing := [name for name, place in found.items() if place is None]:
        raise Missing(f"not installed: {', '.join(missing)}")
    return [place for place in found.values() if place is not None]


@dataclass(frozen=True, slots=True)
class Peer:
    """``start`` may be called again after a kill; ``victim`` is the process that is the service's supervisor."""

    name: str
    start: Callable[[Place], None]
    stop: Callable[[Place], None]
    victim: Callable[[Place], psutil.Process] = lambda place: psutil.Process(place.started[-1].pid)
    starts_itself: bool = False
    """Another process of the peer starts the killed one again."""


def start_ours(place: Place) -> None:
    config = place.work / "selfheal.yaml"
    links = {"guardian": {"address": "tcp://127.0.0.1:0"}, "bridge": {"address": "tcp://127.0.0.1:0"}}
    service = {"command": place.service, "graceful_shutdown_timeout": "2s"}
    content = {"version": 1, "links": links | {"operator": {"address": "127.0.0.1:0"}}, "services": {"svc": service}}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    place.run(*_selfheal("run"), "--config", config, "--state", place.work / "state")


def stop_ours(place: Place) -> None:
    place.call(*_selfheal("services", "stop", "svc"), "--state", place.work / "state")


def _selfheal(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "supervisors.cli", *words)


def start_supervisord(place: Place) -> None:
    (program,) = tool("supervisord")
    socket = place.work / "sv.sock"
    config = (
        f"[supervisord]\nlogfile={place.work}/sv.log\npidfile={place.work}/sv.pid\nnodaemon=true\n"
        f"[unix_http_server]\nfile={socket}\n[supervisorctl]\nserverurl=unix://{socket}\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[program:svc]\ncommand={' '.join(place.service)}\nautorestart=true\nstartsecs=0\nstopwaitsecs=2\n"
        "stopasgroup=true\nkillasgroup=true\n"
    )
    (place.work / "sv.conf").write_text(config, encoding="utf-8")
    socket.unlink(missing_ok=True)
    place.run(program, "-c", place.work / "sv.conf")


def stop_supervisord(place: Place) -> None:
    (program,) = tool("supervisorctl")
    place.call(program, "-c", place.work / "sv.conf", "stop", "svc")


def start_circus(place: Place) -> None:
    (program,) = tool("circusd")
    command, *arguments = place.service
    config = (
        f"[circus]\nendpoint=ipc://{place.work}/ep\npubsub_endpoint=ipc://{place.work}/pub\nwarmup_delay=0\n"
        f"check_delay=1\n[watcher:svc]\ncmd={command}\nargs={' '.join(arguments)}\nnumprocesses=1\n"
        "graceful_timeout=2\nstop_children=true\n"
    )
    (place.work / "circus.ini").write_text(config, encoding="utf-8")
    place.run(program, place.work / "circus.ini")


def stop_circus(place: Place) -> None:
    (program,) = tool("circusctl")
    place.call(program, "--endpoint", f"ipc://{place.work}/ep", "stop", "--waiting", "svc")


def _scanned(place: Place) -> Path:
    folder = place.work / "scan" / "svc"
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    run.write_text("#!/bin/sh\nexec " + " ".join(place.service) + "\n", encoding="utf-8")
    run.chmod(0o755)
    return folder


def start_runit(place: Place) -> None:
    program, _ = tool("runsvdir", "runsv")
    _scanned(place)
    place.run(program, place.work / "scan")


def stop_runit(place: Place) -> None:
    (program,) = tool("sv")
    place.call(program, "-w", "2", "force-stop", place.work / "scan" / "svc")


def start_s6(place: Place) -> None:
    program, _ = tool("s6-svscan", "s6-supervise")
    _scanned(place)
    place.run(program, place.work / "scan")


def stop_s6(place: Place) -> None:
    (program,) = tool("s6-svc")
    place.call(program, "-wD", "-T", "3000", "-d", place.work / "scan" / "svc")


def below(name: str) -> Callable[[Place], psutil.Process]:
    """The child of the peer's first process that supervises the one service."""

    def find(place: Place) -> psutil.Process:
        children = psutil.Process(place.started[-1].pid).children(recursive=True)
        return next(one for one in children if one.name() == name)

    return find


PEERS = (
    Peer("selfheal", start_ours, stop_ours),
    Peer("supervisord", start_supervisord, stop_supervisord),
    Peer("circus", start_circus, stop_circus),
    Peer("runit", start_runit, stop_runit, below("runsv"), starts_itself=True),
    Peer("s6", start_s6, stop_s6, below("s6-supervise"), starts_itself=True),
)


def copies_after_kill(peer: Peer, place: Place, settle_s: float) -> str:
    peer.start(place)
    place.until_up()
    victim = peer.victim(place)
    victim.send_signal(signal.SIGKILL)
    if not peer.starts_itself:
        place.started[-1].wait(10)
        peer.start(place)
    time.sleep(settle_s)
    return str(len(place.alive("main")))


def alive_after_stop(peer: Peer, place: Place, settle_s: float) -> str:
    peer.start(place)
    place.until_up()
    time.sleep(1.0)  # some peers take no orders in their first moments
    peer.stop(place)
    deadline = time.monotonic() + settle_s
    while place.alive("main") and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    return "/".join(str(len(place.alive(role))) for role in ROLES)


def measured(measure: Callable[[Peer, Place, float], str], peer: Peer, work: Path, settle_s: float) -> str:
    place = Place(work)
    try:
        return measure(peer, place, settle_s)
    except (Missing, Failed) as why:
        return str(why)
    finally:
        place.clean()


def rows(names: Sequence[str], settle_s: float) -> list[tuple[str, str, str]]:
    """For each peer: its name, copies after the kill, what lives after the stop (or why it could not be told)."""
    _own_orphans()
    work = Path(tempfile.mkdtemp(prefix="never-twice-"))
    try:
        (work / "service.py").write_text(SERVICE, encoding="utf-8")
        return [
            (
                peer.name,
                measured(copies_after_kill, peer, work / f"{peer.name}-kill", settle_s),
                measured(alive_after_stop, peer, work / f"{peer.name}-stop", settle_s),
            )
            for peer in PEERS
            if peer.name in names
        ]
    finally:
        shutil.rmtree(work)


def _own_orphans() -> None:
    """What a killed supervisor leaves comes back to us, and is ended at the end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", metavar="PEER", help="which (default: all)")
    parser.add_argument("--settle-s", type=float, default=8.0, help="seconds a peer gets to show what it does")
    options = parser.parse_args()
    known = [peer.name for peer in PEERS]
    if unknown := set(options.peers) - set(known):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    head = ("supervisor", "copies after SIGKILL + new start (want 1)", "alive after stop (want 0/0/0)")
    print("alive after stop: setsid grandchild / same-group child / main")
    print(f"{head[0]:12} | {head[1]:41} | {head[2]}")
    for name, copies, alive in rows(options.peers or known, options.settle_s):
        print(f"{name:12} | {copies:41} | {alive}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
