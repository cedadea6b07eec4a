"""``selfheal approvals``, ``approve`` and ``reject``: what waits for a person's word, and the word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from supervisors.cli.exits import FAILED, WRONG_USAGE, Quit
from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import print_json, say
from supervisors.manager import SCHEMA, Record

Execution = Annotated[str, typer.Argument(metavar="EXECUTION", help="As `selfheal approvals` shows it.")]
Plan = Annotated[
    str | None,
    typer.Option("--plan", metavar="HASH", help="Only this plan: its hash, or the first 12 letters and more."),
]
_HASH: Final = re.compile("[0-9a-f]{12,64}")
Why = Annotated[str, typer.Option("--why", help="For the record.")]


@command
def approvals(outside: Outside) -> None:
    """What awaits approval: the plan in plain words, its hash, who may approve it, and until when."""
    with outside.manager() as manager:
        found = manager.approvals()
    if outside.as_json:
        print_json({"schema": SCHEMA, "approvals": found})
        return
    say("\n\n".join(map(_shown, found)) if found else "nothing awaits approval")


@command
def approve(outside: Outside, execution: Execution, plan: Plan = None, why: Why = "") -> None:
    """Agree to a plan, exactly as it was asked: after an edit of anything it is void (exit code 1). You are who the
    system says.
    """
    _check(plan)
    with outside.manager() as manager:
        _told(outside, manager.approve(execution, by=outside.by, plan=plan, why=why))


@command
def reject(outside: Outside, execution: Execution, plan: Plan = None, why: Why = "") -> None:
    """End what awaits approval; nothing of it is done."""
    _check(plan)
    with outside.manager() as manager:
        _told(outside, manager.reject(execution, by=outside.by, plan=plan, why=why))


def _check(plan: str | None) -> None:
    """Raises Quit."""
    if plan is not None and not _HASH.fullmatch(plan):
        text = f"--plan {plan!r} is no plan's hash: 12 to 64 of 0-9 and a-f, as 'selfheal approvals' shows it"
        raise Quit(WRONG_USAGE, text)


def _told(outside: Outside, came: Record) -> None:
    is_void = came["outcome"] == "void"
    if outside.as_json:
        print_json({"schema": SCHEMA, **came})
        if is_void:
            raise Quit(FAILED)
        return
    more = f" ({came['votes']} of {came['quorum']})" if came["outcome"] == "waiting" else ""
    detail = f": {came['detail']}" if came.get("detail") else ""
    say(f"{came['execution_id']} {came['outcome']}{more}{detail}")
    if is_void:  # nothing was agreed to
        raise Quit(FAILED)


def _shown(one: Mapping[str, Any]) -> str:
    alert = one.get("alert") or {}
    because = ", ".join(str(alert[key]) for key in ("type", "service", "message") if alert.get(key))
    who = ", ".join(one.get("approvers") or ()) or "any operator"
    eyes = ", not who asked for it" if one.get("four_eyes") else ""
    lines = [
        f"{one['execution_id']}  {one.get('name', one['runbook'])} on {one['target']}",
        f"  because   {because or '-'}",
        *(f"  does      {step}" for step in one.get("steps", ())),
        *(f"  saw       {seen['call']}: {_seen(seen)}" for seen in one.get("seen", ())),
        f"  plan      {one.get('plan', 'is being worked out')}",
        f"  may       {who}: {one.get('quorum', 1)} needed{eyes}",
        *(f"  vote      {vote['says']} by {vote['who']}" for vote in one.get("votes", ())),
        f"  until     {one['expires_at']}, then {one.get('on_timeout', '-')}",
    ]
    return "\n".join(lines)


def _seen(seen: Mapping[str, Any]) -> str:
    value = seen.get("value")
    return str(seen["answer"]) if value is None else f"{seen['answer']} ({value})"
