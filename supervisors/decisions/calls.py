"""The run-time calls and their answers, word for word OTP's. Pure."""

from __future__ import annotations

from dataclasses import replace

from actors.messages import StopMode
from actors.spec import SHUTDOWN, ChildSpec, ChildType
from supervisors.decisions import edits, reconcile
from supervisors.decisions.admission import check_child
from supervisors.decisions.model import ALIVE, Ask, Call, Child, ChildCounts, ChildInfo, Ok, Phase, Refused
from supervisors.decisions.work import Work


def waits_for_child(work: Work, call: Call) -> bool:
    """A call about a child that is on its way down is served when it is there."""
    if call.ask in (Ask.WHICH, Ask.COUNT, Ask.GET_SPEC):
        return False
    child_id = call.spec.id if isinstance(call.spec, ChildSpec) else call.id
    child = work.children.get(child_id or "")
    return child is not None and child.phase is Phase.STOPPING


def serve(work: Work, call: Call) -> None:
    """Answer a call now, or leave its number for when its child is up or down.

    Raises:
        BadSpec: the spec cannot be taken; nothing was changed.
    """
    match call.ask:
        case Ask.START:
            _start(work, call)
        case Ask.TERMINATE | Ask.HOLD:
            _terminate(work, call)
        case Ask.RESTART:
            _restart(work, call)
        case Ask.DELETE:
            _delete(work, call)
        case Ask.REPLACE | Ask.TAKE_OUT | Ask.INSERT | Ask.ARRANGE:
            edits.EDITS[call.ask](work, call)
        case Ask.WHICH:
            work.reply(call.number, Ok(which(work)))
        case Ask.COUNT:
            work.reply(call.number, Ok(count(work)))
        case Ask.GET_SPEC:
            _get_spec(work, call)


def _get_spec(work: Work, call: Call) -> None:
    child = work.children.get(call.id or "")
    template = work.flags.template
    if template is not None and (child is not None or call.id == template.id):
        work.reply(call.number, Ok(template))
    elif child is not None:
        work.reply(call.number, Ok(child.spec))
    else:
        work.reply(call.number, Refused("not_found"))


def _start(work: Work, call: Call) -> None:
    template = work.flags.template
    if template is not None:
        spec = replace(template, id=call.id or "", args=(*template.args, *call.args))
    else:
        spec = check_child(call.spec, work.flags)
    known = work.children.get(spec.id)
    if known is not None:
        word = "already_started" if known.phase in ALIVE else "already_present"
        work.reply(call.number, Refused(word))
        return
    limit = work.flags.max_children
    if limit is not None and len(work.children) >= limit:
        work.reply(call.number, Refused("max_children"))
        return
    work.want(work.add(spec))
    _leave(work, spec.id, call.number)


def _restart(work: Work, call: Call) -> None:
    child = _static_child(work, call)
    if child is None:
        return
    if child.phase is Phase.DOWN:
        work.want(child, not_before=None, is_resumed=False)  # what is asked for is done, whatever was before
        _leave(work, child.spec.id, call.number)
    else:
        restarting = child.phase in (Phase.RESTARTING, Phase.PARKED)
        work.reply(call.number, Refused("restarting" if restarting else "running"))


def _delete(work: Work, call: Call) -> None:
    child = _static_child(work, call)
    if child is None:
        return
    if child.phase is Phase.DOWN:
        work.forget(child)
        work.reply(call.number, Ok())
    else:
        restarting = child.phase in (Phase.RESTARTING, Phase.PARKED)
        work.reply(call.number, Refused("restarting" if restarting else "running"))


def _static_child(work: Work, call: Call) -> Child | None:
    """The child a call names; answered already when there is none, or when children here are dynamic (OTP)."""
    if work.is_dynamic:
        work.reply(call.number, Refused("simple_one_for_one"))
        return None
    child = work.children.get(call.id or "")
    if child is None:
        work.reply(call.number, Refused("not_found"))
    return child


def _terminate(work: Work, call: Call) -> None:
    child = work.children.get(call.id or "")
    if child is None:
        work.reply(call.number, _absent(work, call.id))
        return
    if work.is_group and child.is_tried_again:
        _end_round(work)
    last = child.last_reason
    child = work.put(child, wanted=False, held=call.ask is Ask.HOLD, not_before=None)
    _leave(work, child.spec.id, call.number)
    if child.phase in ALIVE:
        reconcile.stop(work, child, StopMode.TERMINATE)
        return
    work.set_down(work.put(child, failures=0, is_exhausted=False), last or SHUTDOWN)


def _absent(work: Work, child_id: str | None) -> Ok | Refused:
    """There is none to terminate: of a template's instances that is well, but the template is not one (OTP)."""
    template = work.flags.template
    if template is None:
        return Refused("not_found")
    return Refused("simple_one_for_one") if child_id == template.id else Ok()


def _end_round(work: Work) -> None:
    """Nobody tries this group restart again: those that waited for it stay stopped (OTP)."""
    for other in tuple(work.children.values()):
        if other.wanted and other.phase is Phase.DOWN and other.spec.id not in work.callers:
            work.put(other, wanted=False)


def _leave(work: Work, child_id: str, number: int | None) -> None:
    if number is not None:
        work.callers[child_id] = number


def which(work: Work) -> tuple[ChildInfo, ...]:
    """In start order (OTP lists in reverse)."""
    return tuple(
        ChildInfo(child.spec.id, _state(child), child.spec.type.value, child.incarnation)
        for child in work.children.values()
    )


def _state(child: Child) -> str:
    if child.phase in ALIVE:
        return "running"
    return "stopped" if child.phase is Phase.DOWN else "restarting"


def count(work: Work) -> ChildCounts:
    """OTP's quirk kept: with a template, specs is 1 and only instances count."""
    children = tuple(work.children.values())
    supervisors = sum(1 for child in children if child.spec.type is ChildType.SUPERVISOR)
    return ChildCounts(
        specs=len(children) if work.flags.template is None else 1,
        active=sum(1 for child in children if child.phase in ALIVE),
        supervisors=supervisors,
        workers=len(children) - supervisors,
    )
