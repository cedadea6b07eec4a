"""Alerts that are answered later: ``for`` (the condition must go on), ``group`` (one run for many), warm-up. Pure.

The first one waits; those that belong to it are folded into it. Its time comes by a timer, or with an alert.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from runbooks.deciding.repeats import is_worse
from runbooks.deciding.words import History, Pending, Waits
from runbooks.model import Facts, Runbook
from runbooks.predicates import MISSING, pointed


@dataclass(frozen=True, slots=True)
class Held:
    """``is_new``: this alert is the one that waits; otherwise it is folded into the one that does."""

    pending: Pending
    is_new: bool
    reason: str


@dataclass(frozen=True, slots=True)
class About:
    """One alert as it is held. ``passed``: what it need not wait for any more."""

    alert: Facts
    seq: int
    fingerprint: str
    severity: str
    passed: frozenset[Waits]


def held(runbook: Runbook, about: About, history: History, now: float) -> Held | str:
    """What the alert waits for; or the key of what waits and is answered with it ("" for nothing)."""
    settles = ""
    if Waits.WARM_UP not in about.passed and runbook.inhibited_by and now < history.warm_until:
        key = f"warm_up:{about.fingerprint}"
        return _held(key, Waits.WARM_UP, runbook, about, history, now, history.warm_until - now)
    if Waits.FOR not in about.passed and runbook.for_s > 0:
        key = f"for:{about.fingerprint}"
        waiting = history.pending.get(key)
        if waiting is None or has_stopped(waiting, runbook.for_s, now) or now < waiting.due_at:
            return _held(key, Waits.FOR, runbook, about, history, now, runbook.for_s)
        settles = key
    group = runbook.group
    if Waits.GROUP not in about.passed and group is not None:
        key = group_key(runbook, about.alert)
        waiting = history.pending.get(key)
        if waiting is None or (now < waiting.due_at and waiting.count + 1 < group.most):
            return _held(key, Waits.GROUP, runbook, about, history, now, group.wait_s)
        settles = key
    return settles


def has_stopped(waiting: Pending, for_s: float, now: float) -> bool:
    """Whether the condition did not go on: as long as it must, no further alert said so."""
    return waiting.waits is Waits.FOR and now - waiting.last_at > for_s


def severity_of_all(key: str, severity: str, history: History) -> str:
    """The worst of an alert's and of the group's, if one is answered with it under this key."""
    waiting = history.pending.get(key)
    if waiting is None or waiting.waits is not Waits.GROUP or not is_worse(waiting.severity, severity):
        return severity
    return waiting.severity


def _held(key: str, waits: Waits, runbook: Runbook, about: About, history: History, now: float, wait_s: float) -> Held:
    earlier = history.pending.get(key)
    if earlier is None or (waits is Waits.FOR and has_stopped(earlier, runbook.for_s, now)):
        fresh = Pending(key, waits, runbook.id, about.seq, now, now, now + wait_s, 1, about.severity)
        return Held(fresh, is_new=True, reason=_reason(fresh, now))
    severity = about.severity if is_worse(about.severity, earlier.severity) else earlier.severity
    grown = replace(earlier, last_at=now, count=earlier.count + 1, severity=severity)
    return Held(grown, is_new=False, reason=_reason(grown, now))


def _reason(pending: Pending, now: float) -> str:
    left_s = max(0.0, pending.due_at - now)
    match pending.waits:
        case Waits.FOR:
            return f"it must go on for another {left_s:.0f} s"
        case Waits.GROUP:
            return f"more of its group are awaited for {left_s:.0f} s ({pending.count} so far)"
        case Waits.WARM_UP:
            return f"the daemon began a moment ago: what inhibits it is awaited for {left_s:.0f} s"


def group_key(runbook: Runbook, alert: Facts) -> str:
    """Equal for alerts that one run answers."""
    pointers = runbook.group.by if runbook.group is not None else ()
    values = [pointed(alert, pointer) for pointer in pointers]
    said = [runbook.id, [None if value is MISSING else value for value in values]]
    return "group:" + hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Due:
    """What becomes of what waits: it is answered (``passed`` waits no more), looked at again, or over."""

    passed: frozenset[Waits] = frozenset()
    again_at: float | None = None
    over: str = ""


_ORDER = (Waits.WARM_UP, Waits.FOR, Waits.GROUP)


def due(pending: Pending, has_ended: bool | None, now: float) -> Due:
    """Its time has come.

    Args:
        has_ended: whether whoever sent it said that it is over; None: its kind is never said to be. Then only further
            alerts tell that the condition goes on.
    """
    if has_ended:
        return Due(over="it is over")
    if now < pending.due_at:
        return Due(again_at=pending.due_at)
    if pending.waits is Waits.FOR and has_ended is None:
        for_s = pending.due_at - pending.first_at
        if has_stopped(pending, for_s, now):
            return Due(over=f"it did not go on for {for_s:g} s")
        if pending.last_at < pending.due_at:
            return Due(again_at=pending.last_at + for_s + 0.001)
    return Due(frozenset(_ORDER[: _ORDER.index(pending.waits) + 1]))
