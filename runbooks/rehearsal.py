"""A runbook file's own tests, against the real decision and the real engine, in virtual time. Pure.

Only the answers of the world are the test's (``rehearsal_world``). A test begins with no past at all. ``no_match`` says
that this runbook leaves the alert alone; what must be approved first is taken as approved when the test expects an end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from guardian_link.messages import BadAlert, facts_of
from runbooks import engine
from runbooks.deciding.words import Health
from runbooks.engine_words import (
    Effect,
    Event,
    Fence,
    Fenced,
    Finish,
    Phase,
    Record,
    Recorded,
    RunCall,
    RunCheck,
    State,
    TakeSnapshot,
    WakeAt,
    Woke,
    WriteRecord,
)
from runbooks.matching import Decision, History, Outcome, Rules, decide
from runbooks.model import Facts, Runbook, RunbookTest, Status
from runbooks.plan import bind
from runbooks.rehearsal_world import BadFakes, World
from runbooks.step_views import step_views

MAX_EFFECTS: Final = 100_000
_BEGINS: Final = frozenset({"run", "queued", "awaiting_approval"})
_OUTCOMES: Final = frozenset(one.value for one in Outcome)
_STATUSES: Final = frozenset(one.value for one in Status if one.is_terminal)
_EXPECTED: Final = frozenset({"outcome", "runbook", "status", "steps", "calls", "target", "parameters", "detail"})


@dataclass(frozen=True, slots=True)
class Run:
    """What an execution came to. ``calls``: the acting calls made, in order; ``lasted_s``: in virtual time."""

    status: Status
    detail: str
    steps: Mapping[str, str]
    calls: tuple[Mapping[str, Any], ...]
    lasted_s: float


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """``problems``: what was not as expected; none for a test that passes."""

    test: RunbookTest
    problems: tuple[str, ...]
    decision: Decision | None = None
    run: Run | None = None

    @property
    def passed(self) -> bool:
        return not self.problems


def rehearse(runbook: Runbook, test: RunbookTest, library: Rules) -> Rehearsed:
    """One test of ``runbook``, which decides among all of ``library``."""
    problems = list(_expectation_problems(test.expect))
    if problems:
        return Rehearsed(test, tuple(problems))
    try:
        facts = facts_of(dict(test.alert))  # as it comes in: with its severity, whatever shape it was sent in
    except BadAlert as bad:
        return Rehearsed(test, (f"alert: {bad}",))
    decision = decide(facts, library, History(health=lambda: Health(1, 1)), 0.0)
    problems += _decision_problems(runbook, test.expect, decision)
    if problems or "status" not in test.expect or decision.runbook is None:
        return Rehearsed(test, tuple(problems), decision)
    try:
        run = perform(decision.runbook, decision.parameters, facts, test.fakes)
    except BadFakes as bad:
        return Rehearsed(test, bad.problems, decision)
    return Rehearsed(test, tuple(_run_problems(test.expect, run)), decision, run)


def _expectation_problems(expect: Mapping[str, Any]) -> Iterator[str]:
    unknown = sorted(set(expect) - _EXPECTED)
    if unknown:
        yield f"expect: does not know {', '.join(unknown)}; it takes {', '.join(sorted(_EXPECTED))}"
    if not {"outcome", "status"} & set(expect):
        yield "expect: needs outcome or status"
    for name, known in (("outcome", _OUTCOMES), ("status", _STATUSES)):
        if name in expect and (not isinstance(expect[name], str) or expect[name] not in known):
            yield f"expect: {name} is one of {', '.join(sorted(known))}"
    if "status" in expect and expect.get("outcome", "run") not in _BEGINS:
        yield f"expect: an alert answered by {expect['outcome']!r} has no execution, and so no status"
    if "status" not in expect and {"steps", "calls", "detail"} & set(expect):
        yield "expect: steps, calls and detail are those of an execution: expect its status too"


def _decision_problems(runbook: Runbook, expect: Mapping[str, Any], decision: Decision) -> Iterator[str]:
    outcome = decision.outcome.value
    answering = decision.runbook.id if decision.runbook is not None else None
    if expect.get("outcome") == "no_match" and "runbook" not in expect and answering != runbook.id:
        outcome = "no_match"  # of this runbook: another one may answer
        answering = None
    wanted = (str(expect["outcome"]),) if "outcome" in expect else tuple(sorted(_BEGINS))
    if outcome not in wanted:
        said = wanted[0] if "outcome" in expect else "run"
        yield f"outcome is {outcome} ({decision.reason}), expected {said}"
    if answering is not None and answering != expect.get("runbook", runbook.id):
        yield f"the alert is answered by {answering!r}, expected {expect.get('runbook', runbook.id)!r}"
    for name, found in (("target", decision.target), ("parameters", dict(decision.parameters))):
        if name in expect and found != expect[name]:
            yield f"{name} is {found!r:.200}, expected {expect[name]!r:.200}"


def _run_problems(expect: Mapping[str, Any], run: Run) -> Iterator[str]:
    if run.status.value != expect["status"]:
        told = f" ({run.detail})" if run.detail else ""
        yield f"status is {run.status.value}{told}, expected {expect['status']}"
    if str(expect.get("detail", "")) not in run.detail:
        yield f"detail is {run.detail!r:.300}, expected {expect['detail']!r:.100} in it"
    steps = expect.get("steps")
    if isinstance(steps, list) and steps != list(run.steps):
        yield f"steps begun are {list(run.steps)}, expected {steps}"
    elif isinstance(steps, dict) and steps != dict(run.steps):
        yield f"steps are {dict(run.steps)}, expected {steps}"
    elif not isinstance(steps, (list, dict, type(None))):
        yield "expect: steps is a list of ids, or an object of id and status"
    calls = expect.get("calls")
    if calls is not None and calls != [dict(one) for one in run.calls]:
        yield f"calls are {[dict(one) for one in run.calls]!r:.500}, expected {calls!r:.500}"


# -- performing -------------------------------------------------------------------------------------------------------


def perform(runbook: Runbook, values: Mapping[str, Any], alert: Facts, fakes: Mapping[str, Any]) -> Run:
    """Carry it out in a world of fakes.

    Raises:
        BadFakes: they are none of this runbook's.
        BadTemplate: the values cannot be put in.
    """
    stage = _Stage(World(runbook, fakes))
    finish = stage.play(engine.start(bind(runbook, values, alert, seed="rehearsal"), 0.0))
    views = step_views(stage.records, finish.status, stage.now)
    return Run(finish.status, finish.detail, {one.id: one.status for one in views}, tuple(stage.calls), stage.now)


@dataclass
class _Stage:
    world: World
    now: float = 0.0
    records: list[tuple[float, Record]] = field(default_factory=list)
    calls: list[Mapping[str, Any]] = field(default_factory=list)

    def play(self, step: engine.Step) -> Finish:
        for _ in range(MAX_EFFECTS):
            state, (effect,) = step
            if isinstance(effect, Finish):
                return effect
            step = engine.step(state, self._answer(state, effect), self.now)
        raise RuntimeError(f"{self.world.runbook.id} does not end within {MAX_EFFECTS} effects")

    def _answer(self, state: State, effect: Effect) -> Event:
        match effect:
            case WriteRecord(ticket, record):
                self.records.append((self.now, record))
                return Recorded(ticket)
            case RunCall():
                self.calls.append({"type": effect.call.type.value, "with": _plain(effect.call.arguments)})
                return self.world.call(effect, state.action.id, undoing=state.phase is Phase.UNDO_CALL)
            case RunCheck():
                step = "" if state.phase in (Phase.PRECONDITION, Phase.CRITERION) else state.action.id
                return self.world.look(effect, state.phase, step, state.index)
            case TakeSnapshot():
                return self.world.snapshot(effect, state.action.id)
            case WakeAt(ticket, at_s):
                self.now = max(self.now, at_s)
                return Woke(ticket)
            case Fence(ticket):
                return Fenced(ticket)
            case Finish():
                raise AssertionError("an end has no answer")


def _plain(value: Any) -> Any:
    """As JSON has it: lists instead of tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
