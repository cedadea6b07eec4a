"""Live edits of a supervisor: what goes on goes on, order is kept, a child that moves takes its history along."""

from __future__ import annotations

from dataclasses import replace

from actors.messages import ChildExited, ChildReady, ChildStarted, StopMode
from actors.spec import Backoff, ChildSpec, ExitReason, Origin, Pacing, Restart, WaitFor
from supervisors.decisions.edits import HELD
from supervisors.decisions.model import (
    Answer,
    Ask,
    Boot,
    Call,
    Child,
    Effect,
    Event,
    Flags,
    Ok,
    Phase,
    Refused,
    Respec,
    StartActor,
    StopActor,
    Strategy,
    SupervisorState,
    Woke,
)
from supervisors.decisions.step import initial, step

CRASH = ExitReason.crashed("exit 3", origin=Origin.WORLD)


def spec(name: str, max_restarts: int = 5, initial_s: float = 5.0) -> ChildSpec:
    pacing = Pacing(Backoff(1.0, initial_s, 2.0, 60.0, jitter=False), max_restarts)
    return ChildSpec(id=name, start=object, restart=Restart.TRANSIENT, wait_for=WaitFor.READY, pacing=pacing)


class Judge:
    """A supervisor whose children are all up and ready at once."""

    def __init__(self, *names: str, strategy: Strategy = Strategy.ONE_FOR_ONE) -> None:
        self.now = 100.0
        self.state: SupervisorState = initial(Flags(strategy), [spec(name) for name in names])
        self.take(Boot())

    def take(self, event: Event) -> list[Effect]:
        self.state, effects = step(self.state, event, self.now)
        seen = list(effects)
        for effect in effects:
            if isinstance(effect, StartActor):
                seen += self.take(ChildStarted(effect.spec.id, effect.incarnation))
                seen += self.take(ChildReady(effect.spec.id, effect.incarnation))
        return seen

    def crash(self, name: str) -> list[Effect]:
        return self.take(ChildExited(name, self.state.children[name].incarnation, CRASH))

    def order(self) -> tuple[str, ...]:
        return tuple(self.state.children)


def answer(effects: list[Effect]) -> Ok | Refused:
    found = [effect.result for effect in effects if isinstance(effect, Answer)]
    assert len(found) == 1, effects
    return found[0]


def test_another_spec_restarts_nothing_and_the_running_child_is_told() -> None:
    judge = Judge("a", "b")
    before = judge.state.children["a"]
    wanted = spec("a", max_restarts=9)
    effects = judge.take(Call(1, Ask.REPLACE, spec=wanted))
    assert answer(effects) == Ok()
    assert Respec(wanted, before.incarnation) in effects
    assert not [effect for effect in effects if isinstance(effect, (StartActor, StopActor))]
    assert judge.state.children["a"] == replace(before, spec=wanted)


def test_another_spec_leaves_a_backoff_as_it_is_and_rules_the_next_one() -> None:
    judge = Judge("a")
    judge.crash("a")
    until = judge.state.children["a"].not_before
    assert until == 101.0
    effects = judge.take(Call(1, Ask.REPLACE, spec=spec("a", initial_s=30.0)))
    assert not [effect for effect in effects if isinstance(effect, Respec)], "no run is there to be told"
    assert judge.state.children["a"].not_before == until
    judge.now = 101.0
    judge.take(Woke())
    judge.crash("a")
    assert judge.state.children["a"].not_before == 131.0


def test_a_spec_of_nobody_is_refused() -> None:
    assert answer(Judge("a").take(Call(1, Ask.REPLACE, spec=spec("z")))) == Refused("not_found")


def test_taken_out_lives_on_and_takes_its_history_along() -> None:
    judge, other = Judge("a", "b"), Judge("x")
    judge.crash("a")
    judge.now = 101.0
    judge.take(Woke())
    effects = judge.take(Call(1, Ask.TAKE_OUT, "a"))
    stops = [effect for effect in effects if isinstance(effect, StopActor)]
    assert [(one.id, one.mode) for one in stops] == [("a", StopMode.DETACH)]
    record = answer(judge.take(ChildExited("a", judge.state.children["a"].incarnation, stops[0].reason)))
    assert isinstance(record, Ok)
    assert isinstance(record.value, Child)
    assert judge.order() == ("b",)
    arrived = other.take(Call(2, Ask.INSERT, spec=spec("a"), args=(record.value,)))
    assert [effect.spec.id for effect in arrived if isinstance(effect, StartActor)] == ["a"]
    assert answer(arrived) == Ok("a")
    child = other.state.children["a"]
    assert (child.failures, len(child.paced_at), child.phase) == (1, 1, Phase.UP)


def test_one_that_waits_for_its_next_try_goes_on_waiting_elsewhere() -> None:
    judge, other = Judge("a"), Judge("x")
    judge.crash("a")
    record = answer(judge.take(Call(1, Ask.TAKE_OUT, "a")))
    assert isinstance(record, Ok)
    other.take(Call(2, Ask.INSERT, spec=spec("a"), args=(record.value,)))
    assert (other.state.children["a"].phase, other.state.children["a"].not_before) == (Phase.RESTARTING, 101.0)
    other.now = 101.0
    other.take(Woke())
    assert other.state.children["a"].phase is Phase.UP


def test_inserted_as_held_is_not_started_until_somebody_asks() -> None:
    judge = Judge("a")
    effects = judge.take(Call(1, Ask.INSERT, spec=spec("b"), args=(HELD,)))
    assert answer(effects) == Ok()
    assert (judge.state.children["b"].held, judge.state.children["b"].phase) == (True, Phase.DOWN)
    assert answer(judge.take(Call(2, Ask.RESTART, "b"))) == Ok("b")


def test_the_order_rules_who_is_taken_along() -> None:
    judge = Judge("a", "b", "c", strategy=Strategy.REST_FOR_ONE)
    judge.take(Call(1, Ask.ARRANGE, args=("c", "a", "b")))
    assert judge.order() == ("c", "a", "b")
    judge.crash("a")
    judge.now = 101.0
    effects = judge.take(Woke())
    assert {one.id for one in effects if isinstance(one, StopActor)} <= {"b"}
    assert judge.state.children["c"].incarnation == 3, "it stands before the one that failed"


def test_other_flags_rule_from_now_on() -> None:
    judge = Judge("a", "b", strategy=Strategy.ONE_FOR_ONE)
    judge.take(Call(1, Ask.ARRANGE, spec=Flags(Strategy.ONE_FOR_ALL), args=("b", "a")))
    effects = judge.crash("a")
    assert [one.id for one in effects if isinstance(one, StopActor)] == ["b"]
