"""The way to the Docker engine: one SDK client a thread (they are not thread-safe), and clear words when it is away.

Blocking, with a timeout on every call. ``TruthUnknown`` means that the engine did not answer: nobody knows whether a
container runs. ``docker.errors.APIError`` means that it answered and said no.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import docker
import requests
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound

from actors.runtimes.base import TruthUnknown

T = TypeVar("T")
TIMEOUT_S: Final = 10
AWAY: Final = (DockerException, requests.RequestException, OSError)
"""A call while the engine is down raises requests' own ConnectionError, which is no DockerException."""


def default_address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


class DockerEngine:
    """``ask`` from any thread; each gets a client of its own, made when first needed."""

    def __init__(self, address: str | None = None) -> None:
        """Args: ``address`` such as ``unix:///var/run/docker.sock``; None is what ``DOCKER_HOST`` says, or that."""
        self._given = address
        self.address = address or default_address()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._clients: list[DockerClient] = []

    def connect(self) -> DockerClient:
        """A new client, which the caller closes. Talks to the engine at once, to agree on a version.

        Raises:
            OSError, DockerException, requests.RequestException: the engine does not answer.
        """
        self._knock()
        if self._given is not None:
            return DockerClient(base_url=self._given, timeout=TIMEOUT_S)
        return docker.from_env(timeout=TIMEOUT_S)

    def away_text(self, error: BaseException | None = None) -> str:
        """What to tell people when the engine does not answer."""
        if isinstance(error, (requests.Timeout, TimeoutError)) or "timed out" in str(error or "").lower():
            return f"Docker engine at {self.address} does not answer within {TIMEOUT_S} s: is it overloaded or hung?"
        return f"Docker engine not reachable at {self.address}: start it, or set DOCKER_HOST to where it listens"

    def ask(self, call: Callable[[DockerClient], T]) -> T:
        """``call(client)`` on this thread's client.

        Raises:
            TruthUnknown: the engine did not answer.
            APIError: it refused.
        """
        try:
            self._knock()
            return call(self._client())
        except APIError:
            raise
        except AWAY as error:
            raise TruthUnknown(self.away_text(error)) from error

    def inspect(self, container: str) -> Mapping[str, Any] | None:
        """All the engine knows of a container (id or name); None when there is none.

        Raises:
            TruthUnknown: the engine did not answer.
        """
        try:
            found: Mapping[str, Any] = self.ask(lambda client: client.api.inspect_container(container))
        except NotFound:
            return None
        except APIError as error:  # 5xx: the engine is there, but does not know itself
            raise TruthUnknown(f"Docker engine cannot inspect {container}: {error.explanation}") from error
        return found

    def list_by_labels(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """All containers, stopped ones too, that carry every one of these labels.

        Raises:
            TruthUnknown: the engine did not answer.
        """
        wanted = [f"{name}={value}" for name, value in labels.items()]
        try:
            return list(self.ask(lambda client: client.api.containers(all=True, filters={"label": wanted})))
        except APIError as error:
            raise TruthUnknown(f"Docker engine cannot list containers: {error.explanation}") from error

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()

    def _client(self) -> DockerClient:
        client: DockerClient | None = getattr(self._local, "client", None)
        if client is None:
            client = self.connect()
            self._local.client = client
            with self._lock:
                self._clients.append(client)
        return client

    def _knock(self) -> None:
        """Is anybody there? Tens of microseconds; the SDK leaves its socket to the garbage collector when nobody is."""
        if not self.address.startswith("unix://") or not hasattr(socket, "AF_UNIX"):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(TIMEOUT_S)
            probe.connect(self.address.removeprefix("unix://"))
