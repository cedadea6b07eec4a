"""The world of a runbook's own test: what is not said goes well, what is said goes so. Pure.

A fake says how one call ends, under the name of its place (``restart``, ``restart.verify``, ``restart.rollback``,
``success_criteria.0``) or of its type (``service_ready``). It can only say what a real call can: that it was done, with
a result of the fields its type gives (``catalogue.RESULTS``), or failed; of a look yes, no or unknown. Several answers
in a list are given one after the other, the last one for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.catalogue import EXAMPLES, RESULTS
from runbooks.engine_words import Answer, CallDone, CheckDone, Phase, RunCall, RunCheck, SnapshotTaken, TakeSnapshot
from runbooks.model import DOING, CallType, Expect, Runbook, Trouble

_ROLES: Final = {
    Phase.PROBE: "probe",
    Phase.RESUME_PROBE: "probe",
    Phase.VERIFY: "verify",
    Phase.UNDO_VERIFY: "rollback.verify",
    Phase.UNDO_PROBE: "rollback.verify",
    Phase.LEFT: "rollback.verify",
}
_TROUBLES: Final = frozenset(one.value for one in Trouble)
_CALL_WORDS: Final = ("ok", "fail")
_LOOK_WORDS: Final = tuple(answer.value for answer in Answer)


class BadFakes(ValueError):
    """Fakes that name no call of the runbook, or say what no real call can say. ``problems``: all of them."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass
class World:
    """Answers for one run. What was applied and not undone stands in ``applied``."""

    runbook: Runbook
    fakes: Mapping[str, Any]
    applied: set[str] = field(default_factory=set)
    _given: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = tuple(fake_problems(self.runbook, self.fakes))
        if problems:
            raise BadFakes(problems)

    def call(self, effect: RunCall, step: str, *, undoing: bool) -> CallDone:
        place = f"{step}.rollback" if undoing else step
        said = self._said((place, effect.call.type.value), "ok")
        is_ok = said == "ok" or (isinstance(said, dict) and "error" not in said)
        is_applied = is_ok if not isinstance(said, dict) else bool(said.get("applied", is_ok))
        if is_applied and undoing:
            self.applied.discard(step)
        elif is_applied:
            self.applied.add(step)
        if is_ok:
            result = said.get("result") if isinstance(said, dict) else None
            return CallDone(effect.ticket, True, result=EXAMPLES.get(effect.call.type) if result is None else result)
        told = said if isinstance(said, dict) else {}
        trouble = Trouble(told.get("trouble", Trouble.OTHER.value))
        error, is_untouched = str(told.get("error", "failed by the test")), told.get("untouched") is True
        return CallDone(effect.ticket, False, error=error, trouble=trouble, is_untouched=is_untouched)

    def look(self, effect: RunCheck, phase: Phase, step: str, number: int) -> CheckDone:
        kind = effect.call.type.value
        match phase:
            case Phase.PRECONDITION:
                holds = "yes" if self.runbook.preconditions[number].expect is Expect.YES else "no"
                said = self._said((f"preconditions.{number}", "preconditions", kind), holds)
            case Phase.CRITERION:
                said = self._said((f"success_criteria.{number}", "success_criteria", kind), "yes")
            case _:
                said = self._said((f"{step}.{_ROLES[phase]}", kind), self._usual(phase, step))
        told = said if isinstance(said, dict) else {"answer": said}
        return CheckDone(effect.ticket, Answer(told["answer"]), str(told.get("detail", f"{kind} by the test")))

    def snapshot(self, effect: TakeSnapshot, step: str) -> SnapshotTaken:
        if self._said((f"{step}.snapshot",), "ok") == "ok":
            return SnapshotTaken(effect.ticket, {"of": step})
        return SnapshotTaken(effect.ticket, None, "failed by the test")

    def _usual(self, phase: Phase, step: str) -> str:
        """A world that is as it is told: what was done shows."""
        stands = step in self.applied or not self._acts(step)
        is_undoing = phase in (Phase.UNDO_VERIFY, Phase.UNDO_PROBE, Phase.LEFT)
        return "yes" if stands is not is_undoing else "no"

    def _acts(self, step: str) -> bool:
        return any(action.id == step and action.call is not None for action in self.runbook.actions)

    def _said(self, places: Iterable[str], usual: Any) -> Any:
        for place in places:
            if place in self.fakes:
                said = self.fakes[place]
                if not isinstance(said, list):
                    return said
                number = self._given.get(place, 0)
                self._given[place] = number + 1
                return said[min(number, len(said) - 1)]
        return usual


# -- what may be said -------------------------------------------------------------------------------------------------


def fake_problems(runbook: Runbook, fakes: Mapping[str, Any]) -> Iterable[str]:
    """Why these fakes are none, if so."""
    acting, looking = _places(runbook)
    for place, said in fakes.items():
        answers = said if isinstance(said, list) else [said]
        if not answers:
            yield f"fakes: {place}: is an empty list"
        if place.endswith(".snapshot") and place in acting:
            yield from (f"fakes: {place}: {one!r:.60} is neither ok nor fail" for one in answers if not _is_word(one))
        elif place in acting:
            yield from (f"fakes: {place}: {text}" for one in answers for text in _call_problems(one, acting[place]))
        elif place in looking:
            yield from (f"fakes: {place}: {text}" for one in answers for text in _look_problems(one))
        else:
            yield f"fakes: there is no call {place!r}; there are {', '.join(sorted(acting.keys() | looking))}"


def _is_word(said: Any) -> bool:
    return isinstance(said, str) and said in _CALL_WORDS


def _places(runbook: Runbook) -> tuple[dict[str, CallType | None], set[str]]:
    """The names fakes may use: of acting calls with their type, and of looks."""
    acting: dict[str, CallType | None] = {}
    looking: set[str] = set()
    for name, checks in (("preconditions", runbook.preconditions), ("success_criteria", runbook.success_criteria)):
        for number, check in enumerate(checks):
            looking |= {name, f"{name}.{number}", check.call.type.value}
    for action in runbook.actions:
        rollback = action.rollback
        named = {action.id: action.call, f"{action.id}.rollback": rollback.call if rollback else None}
        for place, call in named.items():
            if call is not None:
                acting |= {place: call.type, call.type.value: call.type}
        undone = rollback.verify if rollback is not None else None
        for role, found in (("probe", action.probe), ("verify", action.verify), ("rollback.verify", undone)):
            if found is not None:
                looking |= {f"{action.id}.{role}", found.call.type.value}
        if action.snapshot_calls:
            acting[f"{action.id}.snapshot"] = None
    return acting, looking


def _call_problems(said: Any, kind: CallType | None) -> Iterable[str]:
    if _is_word(said):
        return
    if not isinstance(said, dict):
        yield f"{said!r:.60} is no answer; write ok, fail, or an object with result or error"
        return
    unknown = sorted(set(said) - ({"error", "trouble", "applied", "untouched"} if "error" in said else {"result"}))
    if unknown:
        yield f"does not know {', '.join(unknown)}"
    if said.get("trouble", "other") not in _TROUBLES:
        yield f"trouble is one of {', '.join(sorted(_TROUBLES))}"
    for name in ("applied", "untouched"):
        if not isinstance(said.get(name, False), bool):
            yield f"{name} is true or false"
    fields = RESULTS.get(kind) if kind in DOING and kind is not None else None
    result = said.get("result")
    if fields is not None and result is not None and (not isinstance(result, dict) or set(result) != fields):
        yield f"a real {kind.value if kind else 'call'} gives back {_named(fields)}"


def _named(fields: frozenset[str]) -> str:
    return f"an object with {', '.join(sorted(fields))}" if fields else "nothing"


def _look_problems(said: Any) -> Iterable[str]:
    answer = said.get("answer") if isinstance(said, dict) else said
    if not isinstance(answer, str) or answer not in _LOOK_WORDS:
        yield f"{answer!r:.60} is no answer of a look; write yes, no or unknown"
    if isinstance(said, dict) and set(said) - {"answer", "detail"}:
        yield f"does not know {', '.join(sorted(set(said) - {'answer', 'detail'}))}"
