"""A Docker engine of a test's own, to be ended and started at will: the shared one is nobody's to stop.

Its own containerd, data, sockets, cgroup parent and network namespace: an engine told to have no bridge removes the one
it finds, which would be the shared engine's. Needs root. Everything it started is ended by pid.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import docker
import psutil
import pytest
import requests
from docker import DockerClient
from docker.errors import DockerException

from tests.support.docker_engine import make_image
from tests.support.eventually import eventually

_UP_S = 60.0


class PrivateEngine:
    """``start``, ``stop(SIGTERM or SIGKILL)``, ``start`` again; ``close`` ends all of it."""

    def __init__(self, folder: Path, *, live_restore: bool) -> None:
        missing = [program for program in ("dockerd", "containerd", "unshare") if shutil.which(program) is None]
        if os.geteuid() != 0 or missing:
            pytest.skip(f"a private engine needs root and {', '.join(missing) or 'nothing else'}")
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.address = f"unix://{self.socket}"
        self._live_restore = live_restore
        self._cgroup = f"/selfheal-test-{uuid.uuid4().hex[:8]}"
        self._log = (folder / "engine.log").open("ab")
        self._engine: subprocess.Popen[bytes] | None = None
        self._containerd = self._start_containerd()

    def start(self) -> None:
        empty = self.folder / "daemon.json"
        empty.write_text("{}", encoding="ascii")
        options = ["--live-restore"] if self._live_restore else []
        command = [
            *("unshare", "--net", "--", "dockerd", "--config-file", str(empty), "--host", self.address, *options),
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")),
            *("--pidfile", str(self.folder / "engine.pid"), "--containerd", str(self.folder / "containerd.sock")),
            *("--bridge", "none", "--iptables=false", "--cgroup-parent", self._cgroup),
        ]
        self._engine = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        eventually(self._answers, within_s=_UP_S, what="the private engine")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the engine itself; whether its containers live on is its own affair."""
        if self._engine is not None:
            self._engine.send_signal(number)
            self._engine.wait(_UP_S)
            self._engine = None
            if number == signal.SIGKILL:  # as its service manager does before it starts it again
                self.socket.unlink(missing_ok=True)
                (self.folder / "engine.pid").unlink(missing_ok=True)

    def client(self) -> DockerClient:
        return docker.DockerClient(base_url=self.address, timeout=30)

    def close(self) -> None:
        self.stop(signal.SIGKILL)
        for shim in self._shims():
            with contextlib.suppress(psutil.Error):
                for child in shim.children(recursive=True):
                    child.kill()
                shim.kill()
        self._containerd.terminate()
        self._containerd.wait(_UP_S)
        self._log.close()
        for mount in _mounts_below(self.folder):
            subprocess.run(["umount", "--lazy", mount], check=False)

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        config = self.folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n', encoding="ascii")
        socket = self.folder / "containerd.sock"
        command = [
            *("containerd", "--config", str(config), "--address", str(socket)),
            *("--root", str(self.folder / "containerd"), "--state", str(self.folder / "containerd-state")),
        ]
        started = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        eventually(socket.exists, within_s=_UP_S, what="the private containerd")
        return started

    def _answers(self) -> bool:
        assert self._engine is not None
        assert self._engine.poll() is None, (self.folder / "engine.log").read_text()[-2000:]
        try:
            client = self.client()
        except (DockerException, requests.RequestException):
            return False
        trouble = make_image(client)
        client.close()
        assert trouble is None, trouble
        return True

    def _shims(self) -> list[psutil.Process]:
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.name().startswith("containerd-shim") and str(self.folder) in " ".join(one.cmdline()):
                    found.append(one)
        return found


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    mounts = [line.split()[1] for line in lines]
    return sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True)
