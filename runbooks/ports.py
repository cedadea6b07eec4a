"""What a runbook may do to the world, as Protocols: the only way out of this floor.

All methods may block, up to their ``timeout_s``, and are called on the I/O pool. ``supervisors`` fulfils ``Services``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class PortError(Exception):
    """A port could not do what was asked. The text says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as its node shows it. ``run`` counts its runs from 1 (0: never ran); ``state`` is the node's word.

    ``is_wanted`` is False for one a person stopped.
    """

    name: str
    ready: bool
    run: int
    state: str
    is_wanted: bool = True


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run a service has after a start or restart."""

    run: int
    pid: int | None = None
    container_id: str | None = None


class Services(Protocol):
    def status(self, name: str) -> ServiceView | None:
        """What is known now; None for a name that is not configured.

        Raises:
            PortError: nobody can tell now.
        """

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        """End the present run, if there is one, and wait for the next to be launched (not for it to be ready).

        Raises:
            PortError: the service is not known, or there is no new run within ``timeout_s``.
        """

    def start(self, name: str, timeout_s: float) -> RunInfo:
        """Make it wanted and wait for its run; one that runs already is left alone.

        Raises:
            PortError: as ``restart``.
        """

    def stop(self, name: str, timeout_s: float) -> None:
        """Make it unwanted and wait until nothing of it lives.

        Raises:
            PortError: the service is not known, or something is left after ``timeout_s``.
        """


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. ``code`` is None when it was killed for taking longer than its time."""

    code: int | None
    output: str = ""
    error: str = ""


class Commands(Protocol):
    def run(self, argv: tuple[str, ...], timeout_s: float, token: str, working_dir: str | None = None) -> CommandResult:
        """Run a program without a shell; all it left behind is killed when its time is over.

        Raises:
            PortError: it could not be started.
        """

    def end_leftovers(self, token: str) -> int:
        """Kill whatever still lives of commands run under ``token``, also by an earlier daemon; how many there were.

        Raises:
            PortError: something would not die.
        """


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    body: str = ""


class Http(Protocol):
    def request(
        self, method: str, url: str, timeout_s: float, headers: Mapping[str, str], body: Any = None
    ) -> HttpAnswer:
        """One request; ``body`` (a JSON value) is sent as JSON. Redirects are not followed.

        Raises:
            PortError: there was no answer.
        """


class Tcp(Protocol):
    def connects(self, host: str, port: int, timeout_s: float) -> bool:
        """True when something accepts there, False when the connection is refused.

        Raises:
            PortError: nobody can tell (no answer, no such host).
        """


class BridgeState(enum.Enum):
    """What an endpoint says of a command. ``UNKNOWN``: it may have run it, and cannot tell any more."""

    DONE = "done"
    FAILED = "failed"
    BEGUN = "begun"
    UNKNOWN = "unknown"
    NEVER = "never"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class BridgeRequest:
    """One command's name for all time: the endpoint runs it at most once. ``instead_of``: earlier tries of the same
    step, which must not be run any more once this one has come.
    """

    id: str
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BridgeAnswer:
    state: BridgeState
    text: str = ""


class Bridges(Protocol):
    def is_ready(self, endpoint: str) -> bool | None:
        """Whether its node is ready; None for an endpoint that is not configured."""

    def command(
        self, endpoint: str, name: str, parameters: Mapping[str, Any], request: BridgeRequest, timeout_s: float
    ) -> BridgeAnswer:
        """Have a command run, at most once however often it is asked for under this request, and wait for its end.

        Raises:
            PortError: there is no end within ``timeout_s``; whether it was begun is to be asked for.
        """

    def asked(self, endpoint: str, request: BridgeRequest, timeout_s: float) -> BridgeAnswer:
        """Did it run this request?

        Raises:
            PortError: nobody can tell now.
        """


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything runbook steps act through. ``bridges``: None where there are none."""

    services: Services
    commands: Commands
    http: Http
    tcp: Tcp
    bridges: Bridges | None = None
