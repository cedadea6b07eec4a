"""Real containers for the runtime tests, under names and labels of their own, all removed at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from pathlib import Path
from typing import Any

from docker.errors import NotFound
from docker.models.containers import Container

from actors.ledger import Ledger
from actors.runtimes.base import ContainerSpec, Handle, LaunchSpec
from actors.runtimes.docker import DockerRuntime
from actors.runtimes.docker_spec import LABEL_INSTANCE
from tests.runtimes.worlds import LONG_S
from tests.support.docker_engine import IMAGE, engine_client
from tests.support.eventually import eventually


class DockerPlace:
    """One instance label; ``stranger`` makes containers that are not ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = uuid.uuid4().hex[:12]
        self.client = engine_client()
        self._daemons: list[tuple[DockerRuntime, Ledger]] = []
        self._strangers: list[Container] = []

    def daemon(self, **options: Any) -> DockerRuntime:
        ledger = Ledger(self.folder / "ledger.jsonl")
        runtime = DockerRuntime(ledger, self.id, **options)
        self._daemons.append((runtime, ledger))
        return runtime

    @property
    def ledger(self) -> Ledger:
        """The last daemon's."""
        return self._daemons[-1][1]

    def spec(self, service: str, command: tuple[str, ...], **more: Any) -> LaunchSpec:
        container = more.pop("container", None) or ContainerSpec(image=IMAGE, network="none")
        return LaunchSpec(f"{service}-{self.id}", command, container=container, **more)

    def stranger(self, command: tuple[str, ...], *, name: str | None = None, **options: Any) -> Container:
        name = name or f"stranger-{uuid.uuid4().hex[:12]}"
        options.setdefault("network_mode", "none")
        made = self.client.containers.create(IMAGE, list(command), name=name, init=True, **options)
        self._strangers.append(made)
        return made

    def container(self, handle: Handle) -> Container:
        assert handle.container_id is not None
        return self.client.containers.get(handle.container_id)

    def ours(self) -> list[Container]:
        found: list[Container] = self.client.containers.list(all=True, filters={"label": f"{LABEL_INSTANCE}={self.id}"})
        return found

    def wait_ready(self, handle: Handle) -> None:
        eventually(lambda: b"ready" in self.container(handle).logs(), within_s=LONG_S)

    def crash(self, handle: Handle) -> None:
        """From the host, so that the engine has no ``kill`` event to show."""
        os.kill(self._state(handle)["Pid"], signal.SIGKILL)

    def is_alive(self, handle: Handle) -> bool:
        try:
            state = self._state(handle)
        except NotFound:
            return False
        return bool(state["Running"] and state["Pid"] == handle.pid)

    def is_frozen(self, handle: Handle) -> bool:
        return bool(self._state(handle)["Paused"])

    def _state(self, handle: Handle) -> dict[str, Any]:
        assert handle.container_id is not None
        state: dict[str, Any] = self.client.api.inspect_container(handle.container_id)["State"]
        return state

    def close(self) -> None:
        for runtime, ledger in self._daemons:
            runtime.close()
            ledger.close()
        for container in (*self.ours(), *self._strangers):
            with contextlib.suppress(NotFound):  # a test removed it
                container.remove(force=True)
        self.client.close()
