"""Who must agree before a runbook does anything, to what exactly, and what follows from what they said. Pure.

What is agreed to is a hash: of the runbook's very bytes, the values, the resolved plan, the alert and what its
preconditions saw. Whoever agrees to it agrees to nothing else. Times are Unix seconds.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from runbooks.model import Approval, Call, Check, Expect, Facts, Mode, RequiredWhen, Risk, Runbook
from runbooks.plan import Plan, bind, resolved

FORMAT: Final = 1
UNSAID: Final = Approval(timeout_s=900.0)
"""Of a runbook that asks for confirmation and does not say more: anyone may agree, within 15 minutes."""
NOT_SHOWN: Final = "(not shown)"
_ORDER: Final = tuple(Risk)
_FROM: Final = {RequiredWhen.ALWAYS: Risk.LOW, RequiredWhen.MEDIUM: Risk.MEDIUM, RequiredWhen.HIGH: Risk.HIGH}


class Reading(NamedTuple):
    """What a precondition saw: its call, the answer (``Answer.value``), and the value it looked at, if it gives one.

    The words of a look are no part of it: they change with every look.
    """

    call: Call
    answer: str
    seen: Any = None


class Say(enum.Enum):
    APPROVE = "approve"
    REJECT = "reject"


class Vote(NamedTuple):
    """``who`` is an authenticated name with its kind: ``user:ann``, ``key:desk-1``, ``token:ann``."""

    who: str
    says: Say


class Verdict(enum.Enum):
    WAITING = "waiting"
    GRANTED = "granted"
    REJECTED = "rejected"
    EXPIRED = "expired"


def needs_approval(runbook: Runbook) -> bool:
    """Its own word with the risk of its worst action; or one of its actions asks for confirmation."""
    if any(action.requires_confirmation for action in runbook.actions):
        return True
    if runbook.approval is None:
        return False
    worst = max((_ORDER.index(action.risk) for action in runbook.actions), default=0)
    return worst >= _ORDER.index(_FROM[runbook.approval.required_when])


def why_no_safe_action(runbook: Runbook) -> str | None:
    """Why nobody may begin this one instead of a runbook that was not approved in time; None: it is one."""
    if not runbook.enabled:
        return "is disabled"
    if runbook.mode is not Mode.AUTO:
        return f"is in mode {runbook.mode.value}"
    if needs_approval(runbook) or any(action.risk is not Risk.LOW for action in runbook.actions):
        return "is no runbook of low risk without approval"
    return None


def rules_of(runbook: Runbook) -> Approval:
    return runbook.approval or UNSAID


# -- what is agreed to ------------------------------------------------------------------------------------------------


def plan_hash(
    runbook: Runbook, values: Mapping[str, Any], readings: Sequence[Reading] = (), facts: Facts | None = None
) -> str:
    """SHA-256 (hex) over canonical JSON: keys sorted, no blanks, ASCII. ``facts``: the alert, which ``when`` looks at.

    Raises:
        BadTemplate: the plan cannot be resolved with these values.
    """
    plan = resolved(bind(runbook, values, facts))
    said = {
        "format": FORMAT,
        "runbook": hashlib.sha256(runbook.source).hexdigest(),
        "values": _plain(values),
        "alert": _plain(facts or {}),
        "plan": _plain(dataclasses.replace(plan, seed="", facts={})),
        "readings": [[_plain(one.call), one.answer, _plain(one.seen)] for one in readings],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """As JSON holds it, without mixing up what is not equal (1 and 1.0 and "1" stay apart)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    match value:
        case enum.Enum():
            return value.value
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"a plan holds no {type(value).__name__}")


def plan_words(runbook: Runbook, values: Mapping[str, Any], facts: Facts | None = None) -> list[str]:
    """The plan for people, one line a step. Values that are never shown are not shown here either.

    Raises:
        BadTemplate: as ``plan_hash``.
    """
    hidden = {one.name for one in runbook.parameters if one.redact}
    bind(runbook, values, facts)  # what cannot be bound must not be shown as if it could
    shown = {name: NOT_SHOWN if name in hidden else value for name, value in values.items()}
    plan = resolved(bind(runbook, shown, facts)) if hidden else resolved(bind(runbook, values, facts))
    return list(_words(plan))


def _words(plan: Plan) -> Iterator[str]:
    for check in plan.preconditions:
        yield f"only if {_check_words(check)}"
    for number, action in enumerate(plan.actions, 1):
        if action.call is not None:
            does = _call_words(action.call)
        else:
            does = f"wait until {_check_words(action.verify)}" if action.verify else "nothing"
        notes = [action.effect.value, f"risk {action.risk.value}"]
        notes += ["only when its condition holds"] if action.when is not None else []
        if action.rollback is not None:
            notes.append(f"undone by {_call_words(action.rollback.call)}")
        elif action.mutates:
            notes.append("cannot be undone")
        yield f"{number}. {action.name}: {does} ({', '.join(notes)})"
    for check in plan.success_criteria:
        yield f"well when {_check_words(check)}"


def _check_words(check: Check) -> str:
    return ("" if check.expect is Expect.YES else "not ") + _call_words(check.call)


def _call_words(call: Call) -> str:
    given = [f"{name}={json.dumps(_plain(value))}" for name, value in sorted(call.arguments.items())]
    return " ".join((call.type.value, *given))


# -- who agrees -------------------------------------------------------------------------------------------------------


def person_of(who: str) -> str:
    """A person counts once, by whichever way he speaks: a user and a key of one name are one."""
    return who.partition(":")[2] or who


def is_approver(rules: Approval, who: str) -> bool:
    """``approvers`` names persons (``ann``), or a person by one way only (``key:ann``); none named: everybody may."""
    return not rules.approvers or who in rules.approvers or person_of(who) in rules.approvers


def refusal(rules: Approval, asked_by: Iterable[str], votes: Sequence[Vote], vote: Vote) -> str | None:
    """Why this vote cannot be taken; None: it can. ``votes``: those that were taken already."""
    person = person_of(vote.who)
    has_asked = person in map(person_of, asked_by)
    if vote.says is Say.REJECT and has_asked:
        return None  # who asked may always take it back
    if not is_approver(rules, vote.who):
        return f"{vote.who} is none of those who may: {', '.join(rules.approvers)}"
    if vote.says is Say.REJECT:
        return None
    if rules.four_eyes and has_asked:
        return f"{vote.who} asked for this run; another person must approve it"
    if any(one.says is Say.APPROVE and person_of(one.who) == person for one in votes):
        return f"{person} has approved it already; one person counts once"
    return None


def verdict(rules: Approval, votes: Iterable[Vote], now: float, expires_at: float) -> Verdict:
    """What follows from the votes that were taken, all in time. One rejection ends it. After ``expires_at`` nothing but
    the expiry follows, whatever was said before.
    """
    if now >= expires_at:
        return Verdict.EXPIRED
    people = set()
    for vote in votes:
        if vote.says is Say.REJECT:
            return Verdict.REJECTED
        people.add(person_of(vote.who))
    return Verdict.GRANTED if len(people) >= rules.quorum else Verdict.WAITING


def differences(before: Sequence[Reading], now: Sequence[Reading]) -> list[str]:
    """Which preconditions see something else than when it was asked, in words."""
    if len(before) != len(now):
        return ["the preconditions are others"]
    return [
        f"{one.call.type.value} says {_seen(two)}, and said {_seen(one)} when it was asked"
        for one, two in zip(before, now, strict=True)
        if (one.answer, _plain(one.seen)) != (two.answer, _plain(two.seen))
    ]


def _seen(reading: Reading) -> str:
    return reading.answer if reading.seen is None else f"{reading.answer} ({json.dumps(_plain(reading.seen))})"
