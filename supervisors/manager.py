"""The contract of whoever steers the tree: in the daemon (LocalManager) or over HTTP (RemoteManager).

One contract, two owners: the command line, the HTTP routes and the live view use either. Only types here: it must
never import an actor, a runtime or an HTTP library. Results have the shapes of the ``--json`` outputs, so both owners
answer with equal values. All methods may block and are called from ordinary threads, never from an actor's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NotRequired, Protocol, TypedDict

SCHEMA: Final = 1
"""The version of every JSON shape below; compatible additions keep it."""
DEFAULT_TIMEOUT_S: Final = 60.0
REFUSED: Final = "cannot start: "
"""A node's ``detail`` begins so when no run came about: what an older run ended of says nothing of that."""


class Exit(TypedDict):
    """How the run before this one ended; ``log_tail`` are its last lines of output."""

    cause: str
    at: str
    code: NotRequired[int]
    signal: NotRequired[int]
    log_tail: NotRequired[list[str]]


class Desired(TypedDict):
    """What a person wants of a service: ``state`` is ``stopped`` or ``paused``."""

    state: str
    by: str
    at: str
    why: str


class Node(TypedDict):
    """One node of ``selfheal tree --json``. Times are RFC 3339 in UTC. What is unknown is left out.

    ``wanted`` false: a person stopped it, so its not being ready is not bad. ``note`` stands in the answer to a command
    that changed nothing: ``already stopped by alice (holiday)``.
    """

    name: str
    path: str
    kind: str
    state: str
    incarnation: int
    restarts: int
    restarts_in_window: int
    wanted: bool
    replicas: NotRequired[int]
    scaled: NotRequired[Mapping[str, Any]]
    children: NotRequired[list[Node]]
    strategy: NotRequired[str]
    intensity: NotRequired[int]
    period_s: NotRequired[float]
    runtime: NotRequired[str]
    pid: NotRequired[int]
    container_id: NotRequired[str]
    endpoint: NotRequired[str]
    since: NotRequired[str]
    ready_since: NotRequired[str]
    health: NotRequired[str]
    last_exit: NotRequired[Exit]
    cpu_percent: NotRequired[float]
    memory_bytes: NotRequired[int]
    detail: NotRequired[str]
    note: NotRequired[str]
    next_try_at: NotRequired[str]
    desired: NotRequired[Desired]


class Tree(TypedDict):
    schema: int
    at: str
    root: Node


class Result(TypedDict):
    """What came of a command for one of many services: ``service`` without children, or ``error``."""

    name: str
    ok: bool
    service: NotRequired[Node]
    error: NotRequired[str]


class Transition(TypedDict):
    """One line of ``selfheal why``: what happened to a node, in one sentence, with the facts behind it."""

    at: str
    path: str
    event: str
    text: str
    evidence: NotRequired[Mapping[str, Any]]


class RecoveryStatus(TypedDict):
    """Whether alerts start runbooks; ``by``, ``since`` and ``why`` tell who switched it last, ``trouble`` why that is
    not remembered as it should be.
    """

    enabled: bool
    active: int
    queued: int
    by: NotRequired[str]
    since: NotRequired[str]
    why: NotRequired[str]
    trouble: NotRequired[str]


class DaemonInfo(TypedDict):
    """Who answers. ``started_at`` is RFC 3339."""

    pid: int
    version: str
    started_at: str
    state_dir: str


class NodeEdit(TypedDict):
    """What a plan does to one node, and after an apply what came of it. A change is ``{key, old, new}``."""

    node: str
    kind: str
    action: str
    changes: list[dict[str, Any]]
    moves_to: NotRequired[str]
    ok: NotRequired[bool]
    error: NotRequired[str]


class PlanShown(TypedDict):
    """``plan`` names exactly this plan; ``daemon`` lists what only a restart of the daemon changes; ``warnings``
    tells what the file names that is not there now.
    """

    schema: int
    plan: str
    file: str
    empty: bool
    nodes: list[NodeEdit]
    daemon: list[dict[str, Any]]
    notes: list[str]
    warnings: NotRequired[list[str]]


class Applied(TypedDict):
    """``nodes`` are those that were touched."""

    schema: int
    plan: str
    file: str
    ok: bool
    nodes: list[NodeEdit]
    daemon: list[dict[str, Any]]
    notes: list[str]
    warnings: NotRequired[list[str]]


Record = Mapping[str, Any]
"""An alert or an execution in the shape of ``alerts --json`` and ``executions --json``."""


class ManagerError(Exception):
    """Something a person asked for did not work; the text says what, where and what to do, on one line."""


class UnknownNode(ManagerError):
    """There is no service, node or execution of that name. ``suggestion`` is a name that looks like it."""

    def __init__(self, name: str, suggestion: str | None = None, what: str = "service or node") -> None:
        hint = f"did you mean {suggestion!r}?" if suggestion else f"see {_WHERE.get(what, _TREE)}"
        super().__init__(f"no {what} is called {name!r}; {hint}")
        self.name = name
        self.suggestion = suggestion
        self.what = what


_TREE: Final = "'selfheal tree'"
_WHERE: Final = {
    "runbook": "'selfheal runbook list'",
    "service": "'selfheal services status'",
    "execution": "'selfheal executions'",
    "silence": "'selfheal silence list --all'",
    "latched target": "'selfheal recovery latches'",
    "alert": "'selfheal alerts --json' for ids; a file and '-' (standard input) will do too",
}


class CommandFailed(ManagerError):
    """The command was understood and could not be carried out, or ended badly."""


class BadConfig(ManagerError):
    """The file cannot be used, and nothing was changed. The text has one line a problem."""

    def __init__(self, text: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(text)
        self.problems = tuple(problems)


class NotAllowed(ManagerError):
    """Who asked is not proven, or may not do this; nothing has changed."""


class TimedOut(ManagerError):
    """What was waited for did not come in time; the text says what was seen last."""


class DaemonUnreachable(ManagerError):
    """No daemon answers; the text says where it was looked for."""


class Manager(Protocol):
    """Steers and shows one tree.

    A *node* is given as a unique name (``risk-manager``) or a full path (``root/services/pipeline/risk-manager``).
    ``by`` says who asked, for the record. ``wait`` false returns once the command is on its way. Commands raise
    ``UnknownNode``, ``CommandFailed`` and ``TimedOut``; a remote owner raises ``DaemonUnreachable`` from every method.
    """

    def info(self) -> DaemonInfo:
        """Which daemon this is."""

    def tree(self) -> Tree:
        """The whole tree as of now; never waits for a node."""

    def services(self) -> list[Node]:
        """All services without children, in the order of the tree."""

    def start(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        """Start the service (forgetting a stop by hand) and wait until it is ready."""

    def stop(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        """Stop the service and keep it stopped, also over a restart of the daemon."""

    def pause(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        """Freeze the service and leave it alone until ``resume``, also over a restart of the daemon."""

    def resume(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        """Let a paused service go on (or start it, if it does not run) and wait until it is ready."""

    def restart(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        """Stop the service, start it again and wait until it is ready."""

    def start_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        """``start`` for every service, in start order; one that fails does not hold up the others."""

    def stop_all(
        self, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[Result]:
        """``stop`` for every service, newest first."""

    def restart_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        """Stop all services newest first, then start all in order."""

    def plan(self, config: str | None = None) -> PlanShown:
        """What the file (the daemon's own, or another by its full path) would change. Raises ``BadConfig``."""

    def apply(
        self, config: str | None = None, *, by: str, plan: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        """Change the running tree to what the file says, and nothing else. Raises ``BadConfig``.

        ``plan`` refuses when the plan is not the one that was shown.
        """

    def scale(
        self, name: str, replicas: int | None, *, by: str, why: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        """Run so many replicas of the service, remembered over restarts; None: as many as the file says."""

    def alerts(self, limit: int = 50) -> Sequence[Record]:
        """The last alerts, newest first."""

    def executions(self, limit: int = 50) -> Sequence[Record]:
        """The last runbook executions with their steps, newest first."""

    def execution(self, execution_id: str) -> Record:
        """One execution. Raises ``UnknownNode``."""

    def approvals(self) -> Sequence[Record]:
        """What awaits approval, oldest first: the plan in words, its hash, who may approve, until when."""

    def approve(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        """Agree to the plan with this hash (or its first letters; None: the one that is asked).

        In the daemon ``by`` is the authenticated name; a remote owner sends none: the daemon knows who asks. Raises
        ``CommandFailed`` for a vote that counts for nothing, ``NotAllowed``.
        """

    def reject(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        """End what awaits approval without running it. As ``approve``."""

    def runbooks(self) -> Mapping[str, Any]:
        """``runbooks``: those in use now (id, version, name, enabled, mode, sha256, file); ``problems``: what is wrong
        with files.
        """

    def run_runbook(self, runbook_id: str, values: Mapping[str, str], *, by: str, why: str = "") -> Record:
        """Ask for a run with these values, as an alert would: it passes every limit and every approval.

        Returns what was decided: alert_id, outcome, execution_id, reason. ``by`` as for ``approve``. Raises
        ``UnknownNode``, and ``CommandFailed`` for values that do not fit.
        """

    def cancel(self, execution_id: str, *, by: str, why: str = "") -> Record:
        """End an execution at its next safe place; what it did is rolled back. Returns once that is remembered."""

    def recovery_status(self) -> RecoveryStatus:
        """Whether alerts start runbooks now."""

    def set_recovery(self, enabled: bool, *, by: str, why: str = "") -> RecoveryStatus:
        """Switch recovery on or off; it is remembered over a restart of the daemon."""

    def silences(self) -> Sequence[Record]:
        """All silences, newest first: ``{id, state: active|expired|ended, matchers, by, why, created_at, for_s,
        ends_at?, ended_at?, ended_by?}``.
        """

    def add_silence(self, matchers: Sequence[str], for_s: float, *, by: str, why: str = "") -> Record:
        """Alerts that all ``matchers`` fit start nothing for ``for_s`` seconds."""

    def end_silence(self, silence_id: str, *, by: str, why: str = "") -> Record:
        """End a silence now. Raises ``UnknownNode``."""

    def latches(self) -> Sequence[Record]:
        """Targets left alone until a person has looked, oldest first: ``{target, execution_id, since, why}``."""

    def release(self, target: str, *, by: str, why: str) -> Record:
        """Runs may begin on the target again. Raises ``UnknownNode``."""

    def statistics(self) -> Mapping[str, Any]:
        """Figures of recovery: total_runbooks, total_executions, success_rate, active_executions,
        auto_execution_enabled; more may be added.
        """

    def log_tail(self, service: str, lines: int = 50) -> list[str]:
        """The last lines of the service's output, oldest first, without line ends."""

    def log_follow(self, service: str, lines: int = 50, *, closed: threading.Event) -> Iterator[str]:
        """The last lines, then every new one as it comes, until ``closed`` is set.

        ``UnknownNode`` is raised by the call itself, not by the first step.
        """

    def why(self, node: str, limit: int = 20) -> Sequence[Transition]:
        """What happened to the node, newest first."""

    def wait_for(self, node: str, state: str, *, timeout_s: float) -> Node:
        """Wait until the node's state is ``state``. Raises ``UnknownNode``, ``TimedOut``."""

    def shutdown(self, *, keep_services: bool = False, by: str) -> None:
        """Ask the daemon to end in order; returns once that is accepted, before it has ended.

        ``keep_services`` leaves all services running, to be adopted by the next daemon.
        """
