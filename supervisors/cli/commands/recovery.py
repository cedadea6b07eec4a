"""``selfheal alerts``, ``executions`` and ``recovery``: what came in, what was done, and the switch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from supervisors.cli.outside import AbsoluteOption, ByOption, Outside, command
from supervisors.cli.terminal import complain, print_json, say, table
from supervisors.manager import SCHEMA, RecoveryStatus
from supervisors.phrases import age, clean, local_time
from supervisors.tree_json import unix_seconds

Why = Annotated[str, typer.Option("--why", help="Why, for the record.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many.")]


CANCEL = "cancel"


@command
def alerts(outside: Outside, limit: Limit = 20, absolute: AbsoluteOption = False) -> None:
    """The last alerts and what was decided, newest first."""
    with outside.manager() as manager:
        found = manager.alerts(limit)
    if outside.as_json:
        print_json({"schema": SCHEMA, "alerts": found})
        return
    columns = ("type", "service", "severity", "outcome", "execution_id", "message", "reason")
    rows = [
        (_when(one.get("received_at"), absolute), *(_text(_shown(one).get(key)) for key in columns)) for one in found
    ]
    say(table(("WHEN", "TYPE", "SERVICE", "SEVERITY", "OUTCOME", "EXECUTION", "MESSAGE", "REASON"), rows))


def _shown(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**alert, "outcome": f"{alert['outcome']}, resolved"} if alert.get("resolved_at") else alert


@command
def executions(
    outside: Outside,
    execution_id: Annotated[
        str | None, typer.Argument(metavar="cancel", help="End the run ID; without this word ID is shown.")
    ] = None,
    cancelled_id: Annotated[str | None, typer.Argument(metavar="ID", help="Only this one, with its steps.")] = None,
    limit: Limit = 20,
    absolute: AbsoluteOption = False,
    why: Annotated[str, typer.Option("--why", help="With cancel: why, for the record.")] = "",
) -> None:
    """The last runs of runbooks, newest first. `cancel ID` ends one at its next safe place and rolls it back."""
    is_cancel = execution_id == CANCEL
    if (cancelled_id is not None) != is_cancel:
        raise typer.BadParameter(f"write: selfheal executions {CANCEL} ID" if is_cancel else f"what is {cancelled_id}?")
    execution_id = cancelled_id if is_cancel else execution_id
    with outside.manager() as manager:
        if execution_id is None:
            found = manager.executions(limit)
        elif is_cancel:
            found = [manager.cancel(execution_id, by=outside.by, why=why)]
        else:
            found = [manager.execution(execution_id)]
    if outside.as_json:
        print_json({"schema": SCHEMA, "executions": found})
        return
    columns = ("id", "runbook", "target", "status")
    rows = [
        (_when(_begun(one), absolute), *(_text(one.get(key)) for key in columns), _took(one), _queue(one))
        for one in found
    ]
    say(table(("WHEN", "ID", "RUNBOOK", "TARGET", "STATUS", "TOOK", "WAITS"), rows))
    if execution_id is not None:
        say("", *_facts(found[0]))
        _print_steps(found[0])


def _begun(execution: Mapping[str, Any]) -> Any:
    """When it began; of one that never did, when it was decided."""
    return execution.get("started_at") or execution.get("decided_at")


def _facts(execution: Mapping[str, Any]) -> list[str]:
    """Which alert, and the moments of the run."""
    told = [("alert", execution.get("alert_id"))]
    for word, key in (("decided", "decided_at"), ("began", "started_at"), ("ended", "ended_at")):
        told.append((word, local_time(execution[key]) if execution.get(key) else None))
    return [f"{word:8} {_text(value)}" for word, value in told]


def _queue(execution: Mapping[str, Any]) -> str:
    """The place in the queue, and what is waited for."""
    queue = execution.get("queue")
    return f"{queue['position']}. {clean(queue['why'])}" if queue else "-"


def _print_steps(execution: Mapping[str, Any]) -> None:
    if execution.get("detail"):
        say(f"\n{clean(execution['detail'])}")
    steps = execution.get("steps") or []
    rows = [
        (
            _text(one.get("id")),
            _text(one.get("status")),
            _text(one.get("attempts")),
            _took(one),
            _text(one.get("error")),
        )
        for one in steps
    ]
    say("")
    say(table(("STEP", "STATUS", "ATTEMPTS", "TOOK", "ERROR"), rows))


@command
def on(outside: Outside, why: Why = "", by: ByOption = None) -> None:
    """Let alerts start runbooks again."""
    _switch(outside, enabled=True, by=by, why=why)


@command
def off(outside: Outside, why: Why = "", by: ByOption = None) -> None:
    """Alerts are recorded and start nothing, until `recovery on`."""
    _switch(outside, enabled=False, by=by, why=why)


@command
def recovery_status(outside: Outside) -> None:
    """Whether alerts start runbooks."""
    with outside.manager() as manager:
        _print_status(outside, manager.recovery_status())


@command
def latches(outside: Outside) -> None:
    """Targets that nothing is done to until a person has looked."""
    with outside.manager() as manager:
        _print_latches(outside, manager.latches())


@command
def release(
    outside: Outside,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As `recovery latches` shows it.")],
    why: Annotated[str, typer.Option("--why", help="What was found, for the record.")],
) -> None:
    """Let runbooks act on a latched target again."""
    with outside.manager() as manager:
        _print_latches(outside, [manager.release(target, by=outside.by, why=why)])


COMMANDS = {"on": on, "off": off, "status": recovery_status, "latches": latches, "release": release}


def _print_latches(outside: Outside, latches: Sequence[Mapping[str, Any]]) -> None:
    if outside.as_json:
        print_json({"schema": SCHEMA, "latches": latches})
        return
    rows = [
        (
            clean(one["target"]),
            _ago(one["since"]),
            _text(one["execution_id"]),
            clean(one["why"]),
            clean(one.get("released_by", "")) or "-",
        )
        for one in latches
    ]
    say(table(("TARGET", "SINCE", "EXECUTION", "WHY", "RELEASED BY"), rows))


def _switch(outside: Outside, *, enabled: bool, by: str | None, why: str) -> None:
    with outside.manager() as manager:
        _print_status(outside, manager.set_recovery(enabled, by=by or outside.by, why=why))


def status_line(status: RecoveryStatus) -> str:
    """``recovery off, 0 running, 0 queued, switched by ann 5m ago: month end``."""
    by = f", switched by {status['by']} {_ago(status.get('since'))}" if "by" in status else ""
    by += f": {clean(status['why'])}" if status.get("why") else ""
    state = "on" if status["enabled"] else "off"
    return f"recovery {state}, {status['active']} running, {status['queued']} queued{by}"


def _print_status(outside: Outside, status: RecoveryStatus) -> None:
    if outside.as_json:
        print_json({"schema": SCHEMA, **status})
        return
    say(status_line(status))
    if "trouble" in status:
        complain(f"selfheal: {status['trouble']}")


def _when(at: Any, absolute: bool) -> str:
    return local_time(at) if absolute and isinstance(at, str) else _ago(at)


def _ago(at: Any) -> str:
    return f"{age(time.time() - unix_seconds(at))} ago" if isinstance(at, str) else "-"


def _took(record: Mapping[str, Any]) -> str:
    began, ended = record.get("started_at"), record.get("ended_at")
    if not isinstance(began, str) or not isinstance(ended, str):
        return "-"
    return f"{unix_seconds(ended) - unix_seconds(began):.1f}s"


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)
