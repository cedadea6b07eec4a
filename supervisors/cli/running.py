"""What ``selfheal runbook run`` does: asks the daemon, or shows what would be done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.asking import Planned, asked_facts, planned
from runbooks.commands import LocalCommands
from runbooks.engine import heard
from runbooks.engine_words import Answer
from runbooks.hosts import LocalHosts
from runbooks.model import Expect
from runbooks.network import LocalHttp, LocalTcp
from runbooks.parameters import BadParameter
from runbooks.ports import PortError, Ports, RunInfo, ServiceView
from runbooks.steps import make_check
from runbooks.templating import BadTemplate
from supervisors.cli.exits import FAILED, SOMETHING_DOWN, TIMED_OUT, UNREACHABLE, WRONG_USAGE, Quit
from supervisors.cli.libraries import runbook_of
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import print_json, say
from supervisors.manager import SCHEMA, DaemonUnreachable, ManagerError
from supervisors.phrases import clean

_BEGUN: Final = frozenset({"run", "queued", "awaiting_approval", "duplicate"})
_LOOK_S: Final = 0.2
_NEVER: Final = threading.Event()


def run_runbook(outside: Outside, runbook_id: str, given: Sequence[str], why: str, *, wait_s: float | None) -> None:
    """Ask the daemon for a run; it passes every limit that an alert's would.

    Args:
        wait_s: how long to wait for its end; None: not at all.

    Raises:
        Quit: nothing was begun, or it did not end well.
    """
    with outside.manager() as manager:
        came = manager.run_runbook(runbook_id, _values(given), by=outside.by, why=why)
        execution_id = came.get("execution_id")
        ended: Mapping[str, Any] = {}
        if wait_s is not None and execution_id is not None:
            ended = _end(outside, execution_id, wait_s)
    status = ended.get("status")
    if outside.as_json:
        print_json({"schema": SCHEMA, **came, **{key: ended[key] for key in ("status", "detail") if ended.get(key)}})
    else:
        reason = f" ({came['reason']})" if came.get("reason") and came["outcome"] != "run" else ""
        say(f"{came['outcome']} {came['alert_id']}" + (f" execution {execution_id}" if execution_id else "") + reason)
        if status is not None:
            say(f"{status} {execution_id}" + (f": {clean(ended['detail'])}" if ended.get("detail") else ""))
    if came["outcome"] not in _BEGUN:
        raise Quit(SOMETHING_DOWN)
    if status is not None and status != "succeeded":
        raise Quit(FAILED)


def _end(outside: Outside, execution_id: str, wait_s: float) -> Mapping[str, Any]:
    until = time.monotonic() + wait_s
    with outside.manager() as manager:
        while True:
            found = manager.execution(execution_id)
            if found.get("ended_at") is not None:
                return found
            if time.monotonic() >= until:
                raise Quit(TIMED_OUT, f"{execution_id} is {found['status']} after {wait_s:g} s")
            _NEVER.wait(_LOOK_S)


def dry_run(outside: Outside, runbook_id: str, given: Sequence[str], config: str | None) -> None:
    """The bound plan, and what its preconditions see now. Nothing else is done.

    Raises:
        Quit: the values do not fit, or a precondition does not hold (or nobody can tell, as no daemon answers).
    """
    runbook, _ = runbook_of(config, runbook_id)
    try:
        found = planned(runbook, asked_facts(runbook, _values(given)))
    except (BadParameter, BadTemplate) as bad:
        raise Quit(WRONG_USAGE, str(bad)) from None
    shown = _Shown(outside)
    ports = Ports(shown, LocalCommands(), LocalHttp(), LocalTcp(), hosts=LocalHosts())
    seen = []
    for check in found.plan.preconditions:
        outcome = make_check(check.call, None, ports, "dry-run")
        holds = heard(check.expect, outcome.answer) is Answer.YES
        said = {"call": check.call.type.value, "answer": outcome.answer.value, "detail": outcome.detail}
        seen.append({**said, "wanted": check.expect.value, "holds": holds})
    if outside.as_json:
        print_json({"schema": SCHEMA, **found.as_json(), "preconditions": seen})
    else:
        _tell(found, seen)
    if not all(one["holds"] for one in seen):
        if shown.unreachable:  # of services nothing could be said
            raise Quit(UNREACHABLE, shown.unreachable[0])
        raise Quit(FAILED)


def _tell(found: Planned, seen: Sequence[Mapping[str, Any]]) -> None:
    told = found.as_json()
    say(f"{told['runbook']} {told['version']} would act on {told['target']}; nothing was done")
    for one in seen:
        wanted = "" if one["wanted"] == Expect.YES.value else ", as it must be" if one["holds"] else ", and must not be"
        say(f"  precondition {one['call']}: {one['answer']}{wanted} ({one['detail']})")
    for one in told["actions"]:
        given = ", ".join(f"{key}={value!r}" for key, value in one["with"].items())
        undone = f", undone by {one['undone_by']}" if one["undone_by"] else ""
        say(f"  {one['id']}: {one['type']}({given}) {one['effect']}{undone}")


def _values(given: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise Quit(WRONG_USAGE, f"--set {text!r} is not NAME=VALUE")
        values[name] = value
    return values


@dataclass(frozen=True)
class _Shown:
    """Services as the daemon shows them, to be looked at only."""

    outside: Outside
    unreachable: list[str] = field(default_factory=list)
    """Why nobody answered, for each time."""

    def status(self, name: str) -> ServiceView | None:
        try:
            with self.outside.manager() as manager:
                nodes: list[Any] = list(manager.services())
        except ManagerError as error:
            if isinstance(error, DaemonUnreachable):
                self.unreachable.append(str(error))
            raise PortError(str(error)) from error
        node = next((one for one in nodes if one["name"] == name), None)
        if node is None:
            return None
        return ServiceView(
            name, node["state"] == "ready", int(node["incarnation"]), node["state"], bool(node.get("wanted", True))
        )

    def restart(self, name: str, timeout_s: float) -> RunInfo:  # noqa: ARG002  the port\'s own words
        raise PortError(f"a dry run does not touch {name}")

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:  # noqa: ARG002  the port\'s own words
        raise PortError(f"a dry run does not touch {name}")

    def stop(self, name: str, timeout_s: float) -> None:  # noqa: ARG002  the port\'s own words
        raise PortError(f"a dry run does not touch {name}")
