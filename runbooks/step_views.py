"""The steps of a run as people see them, from its records. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runbooks.engine_words import Kind, Record
from runbooks.model import Status


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as ``selfheal executions`` shows it. Times are wall time (Unix seconds)."""

    id: str
    status: str
    attempts: int
    started_at: float
    ended_at: float | None = None
    error: str | None = None


def step_views(records: Sequence[tuple[float, Record]], status: Status, ended_at: float | None) -> tuple[StepView, ...]:
    """The steps begun so far, in order, from (time, record) pairs; ``status`` is that of the whole run."""
    views: dict[str, StepView] = {}
    for at, record in records:
        if record.step >= 0:
            if record.step_id not in views:  # nothing was left to verify: the run went on
                views = {name: _gone_on(view) for name, view in views.items()}
            views[record.step_id] = _seen(views.get(record.step_id), at, record)
    last = next(reversed(views), None)
    if last is not None and status.is_terminal and views[last].status in ("running", "verifying"):
        views[last] = replace(views[last], status=_ending(status), ended_at=ended_at)
    return tuple(views.values())


def _gone_on(view: StepView) -> StepView:
    return replace(view, status="succeeded") if view.status == "verifying" else view


def _ending(status: Status) -> str:
    return "unknown" if status is Status.UNKNOWN else "succeeded" if status is Status.SUCCEEDED else "failed"


def _seen(view: StepView | None, at: float, record: Record) -> StepView:
    if view is None:
        view = StepView(record.step_id, "running", 1, at)
    error = record.detail or None
    match record.kind:
        case Kind.INTENT:
            return replace(view, status="running", attempts=record.attempt, ended_at=None)
        case Kind.DONE if record.ok:
            return replace(view, status="verifying", ended_at=at, error=None)
        case Kind.DONE:
            return replace(view, status="failed", ended_at=at, error=error)
        case Kind.VERIFIED:
            return replace(view, status="succeeded", ended_at=at, error=None)
        case Kind.SKIPPED:
            return replace(view, status="skipped", attempts=0, ended_at=at, error=error)
        case Kind.STEP_FAILED:
            return replace(view, status="failed", ended_at=at, error=error)
        case Kind.UNDO_INTENT:
            return replace(view, status="rolling_back", ended_at=None)
        case Kind.UNDO_VERIFIED:
            return replace(view, status="rolled_back" if record.ok else "rollback_failed", ended_at=at)
        case _:
            return view
