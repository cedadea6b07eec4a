"""``selfheal alerts``, ``executions`` and ``recovery``: what came in, what was done, and the switch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import print_json, say, table
from supervisors.manager import SCHEMA, RecoveryStatus
from supervisors.phrases import age
from supervisors.tree_json import unix_seconds

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many.")]


@command
def alerts(outside: Outside, limit: Limit = 20) -> None:
    """The last alerts and what was decided, newest first."""
    with outside.manager() as manager:
        found = manager.alerts(limit)
    if outside.as_json:
        print_json({"schema": SCHEMA, "alerts": found})
        return
    columns = ("type", "service", "severity", "outcome", "execution_id", "message")
    rows = [(_ago(one.get("received_at")), *(_text(_shown(one).get(key)) for key in columns)) for one in found]
    say(table(("WHEN", "TYPE", "SERVICE", "SEVERITY", "OUTCOME", "EXECUTION", "MESSAGE"), rows))


def _shown(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**alert, "outcome": f"{alert['outcome']}, resolved"} if alert.get("resolved_at") else alert


@command
def executions(
    outside: Outside,
    execution_id: Annotated[str | None, typer.Argument(metavar="ID", help="Only this one, with its steps.")] = None,
    limit: Limit = 20,
) -> None:
    """The last runs of runbooks, newest first."""
    with outside.manager() as manager:
        found = manager.executions(limit) if execution_id is None else [manager.execution(execution_id)]
    if outside.as_json:
        print_json({"schema": SCHEMA, "executions": found})
        return
    columns = ("id", "runbook", "target", "status")
    rows = [(_ago(one.get("started_at")), *(_text(one.get(key)) for key in columns), _took(one)) for one in found]
    say(table(("WHEN", "ID", "RUNBOOK", "TARGET", "STATUS", "TOOK"), rows))
    if execution_id is not None:
        _print_steps(found[0])


def _print_steps(execution: Mapping[str, Any]) -> None:
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
def on(outside: Outside) -> None:
    """Let alerts start runbooks again."""
    _switch(outside, enabled=True)


@command
def off(outside: Outside) -> None:
    """Alerts are recorded and start nothing, until `recovery on`."""
    _switch(outside, enabled=False)


@command
def recovery_status(outside: Outside) -> None:
    """Whether alerts start runbooks."""
    with outside.manager() as manager:
        _print_status(outside, manager.recovery_status())


COMMANDS = {"on": on, "off": off, "status": recovery_status}


def _switch(outside: Outside, *, enabled: bool) -> None:
    with outside.manager() as manager:
        _print_status(outside, manager.set_recovery(enabled, by=outside.by))


def _print_status(outside: Outside, status: RecoveryStatus) -> None:
    if outside.as_json:
        print_json({"schema": SCHEMA, **status})
        return
    by = f", switched by {status['by']} {_ago(status.get('since'))}" if "by" in status else ""
    state = "on" if status["enabled"] else "off"
    say(f"recovery {state}, {status['active']} running, {status['queued']} queued{by}")


def _ago(at: Any) -> str:
    return f"{age(time.time() - unix_seconds(at))} ago" if isinstance(at, str) else "-"


def _took(record: Mapping[str, Any]) -> str:
    began, ended = record.get("started_at"), record.get("ended_at")
    if not isinstance(began, str) or not isinstance(ended, str):
        return "-"
    return f"{unix_seconds(ended) - unix_seconds(began):.1f}s"


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)
