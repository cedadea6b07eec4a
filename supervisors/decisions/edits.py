"""The run-time calls of a live edit of the tree (beyond OTP): other specs, another order, a child that moves. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from actors.messages import StopMode
from actors.spec import ChildSpec
from supervisors.decisions import reconcile
from supervisors.decisions.admission import check_child, check_flags
from supervisors.decisions.model import ALIVE, Ask, Call, Child, Flags, Ok, Phase, Refused, Respec, Strategy
from supervisors.decisions.work import Work

HELD = "held"
"""In ``args`` of an insertion: the child is there, and not started until somebody asks."""


def replace_spec(work: Work, call: Call) -> None:
    """Nothing is stopped or started; pacing, counters and the present run go on.

    Raises:
        BadSpec: the spec cannot be taken.
    """
    spec = check_child(call.spec, work.flags)
    child = work.children.get(spec.id)
    if work.is_dynamic:
        work.reply(call.number, Refused("simple_one_for_one"))
    elif child is None:
        work.reply(call.number, Refused("not_found"))
    else:
        work.put(child, spec=spec)
        if child.phase in (Phase.STARTING, Phase.UP):
            work.effects.append(Respec(spec, child.incarnation))
        work.reply(call.number, Ok())


def take_out(work: Work, call: Call) -> None:
    """What the child stands for lives on (its actor detaches); the child is forgotten and its record is the answer.

    One whose shutdown is brutal, or that does not answer in time, is killed like in any stop.
    """
    child = work.children.get(call.id or "")
    if work.is_dynamic or child is None:
        work.reply(call.number, Refused("simple_one_for_one" if work.is_dynamic else "not_found"))
        return
    if call.number is not None:
        work.callers[child.spec.id] = call.number
    if child.phase in ALIVE:
        reconcile.stop(work, work.put(child, doomed=True, is_moving=True, recycle=False), StopMode.DETACH)
        return
    work.callers.pop(child.spec.id, None)
    work.forget(child)
    work.reply(call.number, Ok(child))


def insert(work: Work, call: Call) -> None:
    """A new child at the end, or one that was taken out elsewhere, with its backoff and counters.

    Raises:
        BadSpec: the spec cannot be taken.
    """
    spec = check_child(call.spec, work.flags)
    known = work.children.get(spec.id)
    if work.is_dynamic or known is not None:
        taken = known is not None and known.phase in ALIVE
        word = "already_started" if taken else "already_present"
        work.reply(call.number, Refused("simple_one_for_one" if work.is_dynamic else word))
        return
    record = next((one for one in call.args if isinstance(one, Child)), None)
    if record is not None:
        child = _arrived(record, spec)
    else:
        is_held = HELD in call.args
        child = Child(spec, held=is_held, wanted=not is_held, is_new=not is_held)
    work.children[spec.id] = child
    if not child.wanted or child.is_backing_off:
        work.reply(call.number, Ok())
        return
    work.want(child)
    if call.number is not None:
        work.callers[spec.id] = call.number


def _arrived(record: Child, spec: ChildSpec) -> Child:
    """The record as its new supervisor's: no run of it is known here; what waits for its next try goes on waiting."""
    waits = record.is_backing_off
    return replace(
        record,
        spec=spec,
        phase=record.phase if waits else Phase.DOWN,
        not_before=record.not_before if waits else None,
        recycle=False,
        doomed=False,
        is_new=False,
        is_moving=False,
        incarnation=0,
        is_ready=False,
        stop_by=None,
        turn=0,
    )


def arrange(work: Work, call: Call) -> None:
    """Children named in ``args`` come first, in that order; others keep theirs, behind. ``spec``: other flags.

    Raises:
        BadSpec: the flags cannot be used.
    """
    flags = call.spec
    if work.is_dynamic or (isinstance(flags, Flags) and flags.strategy is Strategy.SIMPLE_ONE_FOR_ONE):
        work.reply(call.number, Refused("simple_one_for_one"))
        return
    if isinstance(flags, Flags):
        check_flags(flags)
        work.flags = flags
    named = [name for name in call.args if name in work.children]
    order = dict.fromkeys([*named, *work.children])
    work.children = {name: work.children[name] for name in order}
    work.reply(call.number, Ok())


EDITS: Final = {
    Ask.REPLACE: replace_spec,
    Ask.TAKE_OUT: take_out,
    Ask.INSERT: insert,
    Ask.ARRANGE: arrange,
}
