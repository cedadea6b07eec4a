"""The way to the Docker engine: an SDK client serves one call at a time (they are not thread-safe), warm ones first;
and clear words when the engine is away.

Blocking, with a timeout on every call. ``TruthUnknown`` means that the engine did not answer: nobody knows whether a
container runs. ``docker.errors.APIError`` means that it answered and said no, ``BadArgument`` that it was never asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import docker
import requests
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound

from actors.runtimes.base import LaunchError, TruthUnknown

T = TypeVar("T")
TIMEOUT_S: Final = 10
AWAY: Final = (DockerException, requests.RequestException, OSError)
"""A call while the engine is down raises requests' own ConnectionError, which is no DockerException."""


class BadArgument(LaunchError):
    """The SDK itself refuses what is asked for, in its own words: no engine would do it."""

    def __init__(self, error: DockerException) -> None:
        super().__init__(" ".join(str(error).split()) or type(error).__name__, permanent=True)


def default_address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


class DockerEngine:
    """``ask`` from any thread. A client that was used before is warm: making one costs several round trips."""

    def __init__(self, address: str | None = None) -> None:
        """Args: ``address`` such as ``unix:///var/run/docker.sock``; None is what ``DOCKER_HOST`` says, or that."""
        self._given = address
        self.address = address or default_address()
        self._lock = threading.Lock()
        self._idle: list[DockerClient] = []
        self._closed = False

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
        """``call(client)`` on a client that nobody else uses meanwhile.

        Raises:
            TruthUnknown: the engine did not answer.
            APIError: it refused. BadArgument: the SDK did.
        """
        try:
            self._knock()
            with self._borrowed() as client:
                try:
                    return call(client)
                except APIError:
                    raise
                except DockerException as error:  # with a connected client that is the SDK's word on our arguments
                    raise BadArgument(error) from error
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
            self._closed = True
            idle, self._idle = self._idle, []
        for client in idle:
            client.close()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[DockerClient]:
        """The client given back last; one whose call failed on the way is not used again."""
        with self._lock:
            client = self._idle.pop() if self._idle else None
        if client is None:
            client = self.connect()
        is_sound = False
        try:
            yield client
            is_sound = True
        except APIError:
            is_sound = True
            raise
        finally:
            with self._lock:
                is_kept = is_sound and not self._closed
                if is_kept:
                    self._idle.append(client)
            if not is_kept:
                client.close()

    def _knock(self) -> None:
        """Is anybody there? Tens of microseconds; the SDK leaves its socket to the garbage collector when nobody is."""
        if not self.address.startswith("unix://") or not hasattr(socket, "AF_UNIX"):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(TIMEOUT_S)
            probe.connect(self.address.removeprefix("unix://"))
