"""One world of the matrix: a state directory, its daemons one after the other, and what an outsider sees of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from docker import DockerClient

from actors.failpoints import DAEMON_VARIABLE, KEEPER_VARIABLE, NOBODY, NOTES_VARIABLE
from actors.runtimes.docker_spec import LABEL_INSTANCE, LABEL_SERVICE
from supervisors.remote import SOCKET_NAME, Base, RemoteManager
from tests.crash.warm import DaemonProcess, start
from tests.crash.witness import Witnesses
from tests.support.docker_engine import engine_client
from tests.system.running import write_config

DEATH_S = 20.0
ANSWER_S = 15.0
KEEPER_NAME = "selfheal-keeper"


class Unlike(Exception):
    """Something never came to be. The text says what was seen instead."""


class OtherWay(Unlike):
    """What happened is right, but does not lead through the place: play it again."""


@dataclass(frozen=True)
class Notes:
    """What the fail points of one armed daemon (and a keeper of its) have noted."""

    folder: Path

    def has_died(self, point: str) -> bool:
        return (self.folder / f"died.{point.partition(':')[0]}").exists()

    def passed(self) -> list[str]:
        try:
            return (self.folder / "passed").read_text(encoding="ascii").split()
        except FileNotFoundError:
            return []


class World:
    """Use it as a context manager: nothing of it is left afterwards."""

    def __init__(self, *, is_warm: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="crash-"))
        self.state = self.folder / "state"
        self.witnesses = Witnesses(self.folder / "seen")
        self.witnesses.folder.mkdir()
        self.tag = self.folder.name.rpartition("-")[2].lower().replace("_", "x")
        self.log = self.folder / "daemon.out"
        self.daemons: list[DaemonProcess] = []
        self._is_warm = is_warm
        self._manager: RemoteManager | None = None
        self._engine: DockerClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._forget_manager()
        for daemon in self.daemons:
            daemon.kill()
        for _attempt in range(20):  # a keeper may have been starting a service in this very moment
            left = [*self.keepers(), *(one.pid for one in self.processes())]
            if not left:
                break
            for pid in left:
                _kill(pid)
            time.sleep(0.02)
        for container in self.containers():
            self._client().api.remove_container(container["Id"], force=True)
        if self._engine is not None:
            self._engine.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- daemons ----------------------------------------------------------------------------------------------------

    def configure(self, services: Mapping[str, Any]) -> None:
        write_config(self.folder, services)

    def start(self, *, daemon_point: str | None = None, keeper_point: str | None = None, notes: str) -> DaemonProcess:
        """The next daemon, with these deadly places for it and for a keeper it starts."""
        self._forget_manager()
        folder = self.notes(notes).folder
        folder.mkdir(exist_ok=True)
        environ = dict(os.environ) | {
            "SELFHEAL_STATE": str(self.state),
            DAEMON_VARIABLE: daemon_point or NOBODY,
            KEEPER_VARIABLE: keeper_point or NOBODY,
            NOTES_VARIABLE: str(folder),
        }
        words = ("run", "--config", str(self.folder / "selfheal.yaml"), "--state", str(self.state))
        daemon = start(words, environ, self.log, is_warm=self._is_warm)
        self.daemons.append(daemon)
        return daemon

    def notes(self, name: str) -> Notes:
        return Notes(self.folder / name)

    def manager(self) -> RemoteManager:
        """A client of the daemon that runs now. Raises DaemonUnreachable."""
        if self._manager is None:
            self._manager = RemoteManager(Base(state_dir=self.state))
        return self._manager

    def nodes(self) -> dict[str, Any]:
        """What the daemon says of its services; nothing while it does not answer.

        By hand, because it is asked often: a client with all its comforts costs more than the whole look.
        """
        said = self._asked("/services/status")
        return {node["name"]: node for node in said["services"]} if said else {}

    def bridges(self) -> dict[str, str]:
        """The state of each bridge endpoint; nothing while it does not answer."""
        said = self._asked("/v1/tree")
        nodes = said["root"]["children"] if said else []
        return {one["name"]: one["state"] for node in nodes if node["name"] == "bridges" for one in node["children"]}

    def _asked(self, path: str) -> dict[str, Any] | None:
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(ANSWER_S)
                asking.connect(str(self.state / SOCKET_NAME))
                asking.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                answer = b"".join(iter(lambda: asking.recv(65536), b""))
            head, _, body = answer.partition(b"\r\n\r\n")
            said: dict[str, Any] = json.loads(body)
            return said if b" 200 " in head.partition(b"\r\n")[0] else None
        except (OSError, ValueError):  # it was killed in the middle of its answer
            return None

    def _forget_manager(self) -> None:
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    # -- what an outsider sees ----------------------------------------------------------------------------------------

    def processes(self, service: str | None = None) -> list[Seen]:
        """The living processes that carry a token of this state directory."""
        return [one for one in _carriers(str(self.state)) if service in (None, one.service)]

    def keepers(self) -> list[int]:
        """Without their children between fork and exec, which look the same."""
        words = str(self.state).encode()
        parents = {}
        for pid in psutil.pids():
            line = _read(pid, "comm")
            if line.strip() == KEEPER_NAME.encode() and words in _read(pid, "cmdline").split(b"\0"):
                parents[pid] = _parent_of(pid)
        return [pid for pid, parent in parents.items() if parent not in parents]

    def containers(self) -> list[dict[str, Any]]:
        """All containers of this state directory's instance, running or not."""
        try:
            instance = (self.state / "instance").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return []
        filters = {"label": f"{LABEL_INSTANCE}={instance}"}
        return list(self._client().api.containers(all=True, filters=filters))

    def boxes(self, service: str) -> list[dict[str, Any]]:
        return [one for one in self.containers() if one["Labels"][LABEL_SERVICE] == service]

    def _client(self) -> DockerClient:
        if self._engine is None:
            self._engine = engine_client()
        return self._engine

    # -- what an outsider does ----------------------------------------------------------------------------------------

    def crash(self, service: str) -> None:
        """SIGKILL for its main process, or ``docker kill`` for its container."""
        for one in self.processes(service):
            _kill(one.pid)
        for box in self.boxes(service) if service.startswith("box") else ():
            self._client().api.kill(box["Id"])

    def kill_keeper(self) -> None:
        """SIGKILL; returns when it is dead (it may stay a zombie for a while)."""
        for pid in self.keepers():
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], DEATH_S)
                finally:
                    os.close(pidfd)


@dataclass(frozen=True)
class Seen:
    pid: int
    service: str
    token: str


def _carriers(state: str) -> Iterable[Seen]:
    mark = b"SELFHEAL_STATE=" + os.fsencode(state) + b"\0"
    for pid in psutil.pids():
        environ = _read(pid, "environ")
        if mark not in environ:  # most of them: the look must be cheap
            continue
        variables = dict(entry.partition(b"=")[::2] for entry in environ.split(b"\0"))
        if b"SELFHEAL_TOKEN" in variables:
            yield Seen(
                pid, variables.get(b"SELFHEAL_SERVICE", b"").decode(), variables[b"SELFHEAL_TOKEN"].decode("ascii")
            )


def _parent_of(pid: int) -> int:
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return int(words[1]) if words else 0


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
