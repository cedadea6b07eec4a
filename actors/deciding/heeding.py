"""What the guardian is told by people and by other parts, after it is on disk: it is known from here on."""

from __future__ import annotations

from dataclasses import replace

from actors.deciding.desk import Desk
from actors.deciding.words import Granted, Latched, Released, SilenceBegun, SilenceEnded
from actors.journal.rows import Execution
from actors.runbook import ExecutionFinished
from runbooks.deciding.words import LATCHING, PastRun
from runbooks.engine_words import ESCALATED
from runbooks.model import Status

Told = SilenceBegun | SilenceEnded | Latched | Released | Granted


def heed(desk: Desk, message: Told) -> None:
    history = desk.history
    match message:
        case SilenceBegun(silence, for_s):
            others = [one for one in history.silences if one.id != silence.id]
            history.silences = (*others, replace(silence, until=desk.now() + for_s))
        case SilenceEnded(silence_id):
            history.silences = tuple(one for one in history.silences if one.id != silence_id)
        case Latched(target, why):
            history.latches[target] = why
        case Released(target):
            history.latches.pop(target, None)
        case Granted(execution_id, new) if new is not None and execution_id not in desk.executions:
            _adopt(desk, new)
        case Granted(execution_id):
            _granted(desk, execution_id)


def _granted(desk: Desk, execution_id: str) -> None:
    run, execution = desk.history.get(execution_id), desk.executions.get(execution_id)
    if run is None or execution is None or run.status is not Status.AWAITING_APPROVAL:
        desk.context.log.warning("an approval of nothing that waits for one", execution=execution_id)
        return
    desk.executions[execution_id] = replace(execution, status=Status.QUEUED)
    desk.history.put(replace(run, status=Status.QUEUED))


def _adopt(desk: Desk, new: Execution) -> None:
    """What begins instead of a run nobody approved: queued on disk, and decided about by no alert."""
    desk.executions[new.id] = new
    known = (new.id, new.runbook, new.target, new.fingerprint, new.status)
    desk.history.put(PastRun(*known, desk.now(), None, new.severity, None, new.priority))


def note_end(desk: Desk, finished: ExecutionFinished) -> None:
    """An execution has ended. What leaves its target in nobody knows what state latches it (the end was written so)."""
    desk.executions.pop(finished.execution_id, None)
    run = desk.history.get(finished.execution_id)
    if run is not None:
        escalates = finished.detail.startswith(ESCALATED)
        desk.history.put(
            replace(
                run,
                status=finished.status,
                started_at=run.began_at,
                ended_at=desk.now(),
                facts=None,
                escalates=escalates,
            )
        )
        if finished.status in LATCHING:
            desk.history.latches[run.target] = f"{run.execution_id} ended {finished.status.value}"
