"""What a runbook may do to the world, as Protocols: the only way out of this floor.

All methods may block, up to their ``timeout_s``, and are called on the I/O pool. ``supervisors`` fulfils ``Services``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from runbooks.database_words import Databases
from runbooks.model import Trouble


class PortError(Exception):
    """A port could not do what was asked. The text says what, where and what to do; ``trouble`` of what class it is."""

    def __init__(self, text: str = "", trouble: Trouble = Trouble.OTHER) -> None:
        super().__init__(text)
        self.trouble = trouble


class Untouched(PortError):
    """As it says, and it was so before anything was changed."""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as its node shows it. ``run`` counts its runs from 1 (0: never ran); ``state`` is the node's word.

    ``is_wanted`` is False for one a person stopped. ``decided`` is what a person has decided of it and when, while it
    stands: that they stopped or paused it. "" when nobody did, or a runbook did.
    """

    name: str
    ready: bool
    run: int
    state: str
    is_wanted: bool = True
    decided: str = ""


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

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:
        """Make it wanted and wait for its run; one that runs already is left alone.

        Args:
            decided: only while a person has decided this about it and nothing else (``ServiceView.decided``).

        Raises:
            PortError: as ``restart``; or a person has decided otherwise by now: nothing was done.
        """

    def stop(self, name: str, timeout_s: float) -> None:
        """Make it unwanted and wait until nothing of it lives.

        Raises:
            PortError: the service is not known, or something is left after ``timeout_s``.
        """


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. ``code`` is None when it was killed: it took longer than its time, or was cancelled.

    ``is_cut``: it wrote more than is kept.
    """

    code: int | None
    output: str = ""
    error: str = ""
    is_cut: bool = False


class Commands(Protocol):
    def run(
        self,
        argv: tuple[str, ...],
        timeout_s: float,
        token: str,
        working_dir: str | None = None,
        run_as: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a program without a shell; all that is below it is killed when its time is over.

        Args:
            run_as: the user whose rights it has; else ours.
            environment: variables beside the few it has anyway.

        Raises:
            PortError: it could not be started, or something of it would not die.
        """

    def end_leftovers(self, token: str) -> int:
        """Kill whatever lives of commands run under ``token``: one that runs now (``run`` then says that it was
        killed), and what others left, also those of an earlier daemon; how many of the latter there were.

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
    """``result``: what the command gave back, as JSON; ``text`` is it, or the trouble, for people."""

    state: BridgeState
    text: str = ""
    result: Any = None


class BridgeWell(enum.Enum):
    """How an endpoint is. ``UNTOLD``: it is heard, and has no command to ask it by. ``SILENT``: it is not heard, or
    does not answer.
    """

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNTOLD = "untold"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class BridgeView:
    """An endpoint now. ``commands``: those it offers, as far as it has said; ``service``: the one behind it;
    ``directory``: its folder, of kind spool.
    """

    state: BridgeWell
    error: str = ""
    commands: frozenset[str] = frozenset()
    service: str | None = None
    directory: str | None = None


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

    def view(self, endpoint: str, request_id: str, timeout_s: float) -> BridgeView | None:
        """How it is; an endpoint that offers the command ``health`` is asked by it, under that id. None for one that is
        not configured.
        """

    def offered(self, endpoint: str) -> BridgeView | None:
        """As ``view``, without asking: its state is what its node shows. Does not block."""

    def asked(self, endpoint: str, request: BridgeRequest, timeout_s: float) -> BridgeAnswer:
        """Did it run this request?

        Raises:
            PortError: nobody can tell now.
        """


class Alerts(Protocol):
    def going_on(self, execution_id: str, quiet_s: float) -> str:
        """Why the condition behind the execution's alert is not gone; "" when it is. An alert that is never said to be
        over is so when none like it came within the last ``quiet_s`` seconds.

        Raises:
            PortError: nobody can tell now.
        """


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file is: ``content`` None when it is not there; ``mode`` are its permission bits."""

    content: bytes | None = field(repr=False)
    mode: int = 0


class Files(Protocol):
    """Configuration files under the allowed roots.

    All raise PortError for a file outside them, one that is no ordinary file, or one too long.
    """

    def read(self, file: str) -> FileState: ...

    def replace(self, file: str, before: FileState, content: bytes) -> None:
        """Put ``content`` in the place of ``before``, whole or not at all; owner, mode and attributes stay.

        Raises:
            PortError: the file is not ``before`` any more, or cannot be written; it is as it was.
        """

    def restore(self, file: str, now: FileState, before: FileState) -> None:
        """Put ``before`` (or its absence) in the place of ``now``. Raises PortError as ``replace``."""


class Cleanups(Protocol):
    """Files put aside into a quarantine, and put back. What is to go is one JSON value, a *manifest*."""

    def choose(self, wanted: Cleaning, token: str) -> Mapping[str, Any]:
        """The manifest of what would go now; nothing is touched.

        Raises:
            PortError: the root is not allowed, or going there would not free what is asked for.
        """

    def move(self, manifest: Mapping[str, Any], timeout_s: float) -> CleaningDone:
        """Put aside what is still there of it, as far as the time goes. May be called again after a death.

        Raises:
            PortError: nothing was moved.
        """

    def restore(self, manifest: Mapping[str, Any], timeout_s: float) -> int:
        """Put all of it back; how many had to be. May be called again and again.

        Raises:
            PortError: some are not back, and why.
        """

    def progress(self, manifest: Mapping[str, Any]) -> CleaningProgress:
        """Where the files of the manifest are now. Raises PortError."""

    def free_bytes(self, path: str) -> tuple[int, int]:
        """Free for ordinary users, and all there is, of the file system ``path`` is on. Raises PortError."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What a cleanup may take. ``until_free_bytes``: only as much, oldest first, as is missing from that."""

    root: str
    patterns: tuple[str, ...] = ("*",)
    older_than_s: float = 0.0
    larger_than_bytes: int = 0
    keep_newest: int = 0
    most_files: int = 1000
    quarantine: str | None = None
    until_free_bytes: int | None = None
    open_files: bool = False


@dataclass(frozen=True, slots=True)
class CleaningDone:
    moved: int
    skipped: tuple[str, ...]
    """Each with its reason."""
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class CleaningProgress:
    """``is_complete``: the move came to its end, whatever it had to skip. ``troubles``: files at neither place, or at
    their own but changed.
    """

    at_home: int
    aside: int
    is_complete: bool
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """``key`` is the same however often it is sent: by it who receives it knows a repeated one again."""

    key: str
    message: str
    severity: str
    execution: str


class Notices(Protocol):
    def send(self, channel: str, notice: Notice, timeout_s: float) -> str:
        """Deliver it and record that; once recorded it is not sent again. What became of it.

        Raises:
            PortError: no such channel, or it was not taken within ``timeout_s``.
        """

    def was_sent(self, channel: str, key: str) -> bool:
        """Whether its delivery is recorded. Raises PortError."""


class Functions(Protocol):
    def call(self, name: str, parameters: Mapping[str, Any], timeout_s: float, token: str) -> Any:
        """Run a registered function in a process of its own; its JSON result.

        Raises:
            PortError: it is not allowed, failed, took too long or gave no JSON.
        """


class Scaling(Protocol):
    def replicas(self, name: str) -> int | None:
        """How many replicas the service has; None for one that is not configured."""

    def scale(self, name: str, replicas: int, timeout_s: float) -> None:
        """Run so many. Raises PortError."""

    def decided(self, name: str) -> str:
        """Which number a person has chosen and when, while it stands; "" when nobody did, or a runbook did."""


@dataclass(frozen=True, slots=True)
class UsageView:
    """CPU in percent of one core; resident memory. Of all processes of a service, and of all its replicas."""

    cpu_percent: float
    memory_bytes: int


class Usages(Protocol):
    def usage(self, name: str, timeout_s: float) -> UsageView | None:
        """Measured over a second or so; None when it does not run. Raises PortError when nobody can tell."""


class Hosts(Protocol):
    def addresses(self, host: str, timeout_s: float) -> tuple[str, ...]:
        """What the name resolves to; () when there is no such name. Raises PortError when nobody can tell."""

    def answers(self, host: str, count: int, timeout_s: float) -> bool:
        """Whether an echo request is answered; False when a router says that it cannot be reached.

        Raises:
            PortError: nobody said anything, or no echo request can be sent from here.
        """


class Secrets(Protocol):
    def value(self, name: str) -> str:
        """Read anew each time, and kept by nobody. Raises PortError, without the value."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything runbook steps act through. None: there is no such thing here."""

    services: Services
    commands: Commands
    http: Http
    tcp: Tcp
    bridges: Bridges | None = None
    alerts: Alerts | None = None
    files: Files | None = None
    cleanups: Cleanups | None = None
    notices: Notices | None = None
    functions: Functions | None = None
    scaling: Scaling | None = None
    usages: Usages | None = None
    hosts: Hosts | None = None
    secrets: Secrets | None = None
    databases: Databases | None = None
