"""What pykka really does, pinned; and beside each surprise what our kernel makes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from actors.context import ActorContext, ActorSystem
from actors.kernel import IGNORE, PENDING, CrashedInHandler, StartRefused, SupervisedActor
from actors.messages import (
    ChildExited,
    ChildIgnored,
    ChildReady,
    ChildStarted,
    ChildStartFailed,
    ExitNow,
    Resume,
    StopYourself,
    Suspend,
)
from actors.refs import ActorGone, ActorRef, AskTimeout
from actors.spec import NORMAL, SHUTDOWN, ExitKind, ExitReason
from tests.support.eventually import eventually, holds_for


class Recorder:
    """Stands for the supervisor: keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, message: object) -> bool:
        self.told.append(message)
        return True

    def ask(self, message: object, timeout_s: float) -> Any:
        raise NotImplementedError

    def exits(self) -> list[ChildExited]:
        return [message for message in self.told if isinstance(message, ChildExited)]


class Plain(pykka.ThreadingActor):
    """A bare pykka actor that does what it is told, and remembers which hooks ran."""

    use_daemon_thread = True

    def __init__(self, hooks: list[str], *, fails_at: str = "") -> None:
        super().__init__()
        self.hooks, self.fails_at = hooks, fails_at

    def on_start(self) -> None:
        if self.fails_at == "start":
            raise ValueError("start")

    def on_stop(self) -> None:
        self.hooks.append("stop")

    def on_failure(self, *_: object) -> None:
        self.hooks.append("failure")

    def on_receive(self, message: Any) -> Any:
        return message()


class Ours(SupervisedActor):
    """The same on our kernel."""

    def __init__(self, context: ActorContext, events: list[str], setup: Any = None, teardown: Any = None) -> None:
        super().__init__(context)
        self.events, self._setup, self._teardown = events, setup, teardown

    def setup(self) -> object:
        return self._setup(self) if self._setup is not None else None

    def handle(self, message: Any) -> Any:
        return message(self)

    def teardown(self, reason: ExitReason) -> None:
        self.events.append(f"teardown {reason}")
        if self._teardown is not None:
            self._teardown(self)


def fail(text: str) -> Any:
    raise ValueError(text)


def leave(_: object = None) -> None:
    raise SystemExit(3)


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    made = ActorSystem()
    yield made
    made.close()


@pytest.fixture
def parent() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def _no_actor_is_left() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all(block=False)
    eventually(lambda: not pykka.ActorRegistry.get_all())


def born(system: ActorSystem, parent: Recorder, events: list[str] | None = None, **hooks: Any) -> ActorRef:
    context = ActorContext("a", "root/a", 7, parent, system)
    return ActorRef(Ours.start(context, events if events is not None else [], **hooks))


# -- a handler raises -------------------------------------------------------------------------------------------------


def test_pykka_a_failing_tell_ends_the_actor_by_on_failure() -> None:
    hooks: list[str] = []
    ref = Plain.start(hooks)
    ref.tell(lambda: fail("x"))
    eventually(lambda: not ref.is_alive() and hooks == ["failure"])


def test_ours_reports_a_failing_tell_once_after_its_teardown(system: ActorSystem, parent: Recorder) -> None:
    events: list[str] = []
    ref = born(system, parent, events)
    ref.tell(lambda _: fail("boom"))
    eventually(parent.exits)
    assert [(one.id, one.incarnation, one.reason.kind) for one in parent.exits()] == [("a", 7, ExitKind.CRASHED)]
    assert "ValueError: boom" in str(parent.exits()[0].reason)
    assert events == ["teardown ValueError: boom"]
    assert not ref.is_alive


def test_pykka_a_failing_ask_leaves_the_actor_alive() -> None:
    ref = Plain.start([])
    with pytest.raises(ValueError, match="x"):
        ref.ask(lambda: fail("x"), timeout=5)
    assert ref.is_alive()


def test_trap_50_ours_a_failing_ask_is_a_crash_too_and_the_caller_learns_of_it(
    system: ActorSystem, parent: Recorder
) -> None:
    ref = born(system, parent)
    with pytest.raises(CrashedInHandler, match="boom"):
        ref.ask(lambda _: fail("boom"), 5)
    eventually(parent.exits)
    assert not ref.is_alive


# -- a start fails ----------------------------------------------------------------------------------------------------


def test_pykka_a_failing_start_calls_no_hook() -> None:
    hooks: list[str] = []
    ref = Plain.start(hooks, fails_at="start")
    eventually(lambda: not ref.is_alive())
    assert hooks == []


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        (lambda _: fail("boom"), "ValueError: boom"),
        (leave, "SystemExit: 3"),
        (lambda _: "a value that means nothing", "a value that means nothing"),
    ],
)
def test_trap_49_ours_reports_a_failing_start(system: ActorSystem, parent: Recorder, setup: Any, text: str) -> None:
    ref = born(system, parent, setup=setup)
    (report,) = eventually(lambda: parent.told)
    assert isinstance(report, ChildStartFailed)
    assert text in str(report.reason)
    eventually(lambda: not ref.is_alive)


def test_ours_a_refused_start_has_its_plain_reason(system: ActorSystem, parent: Recorder) -> None:
    def refuse(_: object) -> None:
        raise StartRefused("port 8090 is taken")

    born(system, parent, setup=refuse)
    (report,) = eventually(lambda: parent.told)
    assert str(report.reason) == "port 8090 is taken"


def test_ours_declines_or_starts_later(system: ActorSystem, parent: Recorder) -> None:
    born(system, parent, setup=lambda _: IGNORE)
    eventually(lambda: parent.told == [ChildIgnored("a", 7)])
    parent.told.clear()
    ref = born(system, parent, setup=lambda _: PENDING)
    holds_for(lambda: parent.told == [], 0.2)
    ref.tell(lambda actor: actor.started())
    ref.tell(lambda actor: actor.started())
    eventually(lambda: parent.told == [ChildStarted("a", 7)])
    ref.tell(lambda actor: actor.ready())
    ref.tell(lambda actor: actor.ready())
    eventually(lambda: parent.told == [ChildStarted("a", 7), ChildReady("a", 7)])


# -- SystemExit -------------------------------------------------------------------------------------------------------


def test_pykka_system_exit_in_one_actor_stops_them_all() -> None:
    one, other = Plain.start([]), Plain.start([])
    one.tell(leave)
    eventually(lambda: not other.is_alive())


def test_trap_51_ours_it_is_an_ordinary_crash(system: ActorSystem, parent: Recorder) -> None:
    other = Plain.start([])
    ref = born(system, parent)
    ref.tell(leave)
    (report,) = eventually(parent.exits)
    assert (report.reason.kind, "SystemExit" in str(report.reason)) == (ExitKind.CRASHED, True)
    assert other.is_alive()


# -- the end ----------------------------------------------------------------------------------------------------------


def test_pykka_is_not_alive_while_its_on_stop_still_runs() -> None:
    gate, inside = threading.Event(), threading.Event()

    class Slow(Plain):
        def on_stop(self) -> None:
            inside.set()
            gate.wait(10)

    ref = Slow.start([])
    ref.stop(block=False)
    assert inside.wait(5)
    assert not ref.is_alive()
    gate.set()


def test_ours_reports_the_exit_last_of_all(system: ActorSystem, parent: Recorder) -> None:
    gate = threading.Event()
    ref = born(system, parent, teardown=lambda _: gate.wait(10))
    ref.tell(StopYourself(SHUTDOWN))
    eventually(lambda: not ref.is_alive)
    holds_for(lambda: parent.exits() == [], 0.2)
    gate.set()
    eventually(lambda: parent.exits() == [ChildExited("a", 7, SHUTDOWN)])


def test_ours_a_failing_teardown_does_not_replace_the_reason(system: ActorSystem, parent: Recorder) -> None:
    ref = born(system, parent, teardown=lambda _: fail("in teardown"))
    ref.tell(ExitNow(NORMAL))
    (report,) = eventually(parent.exits)
    assert report.reason == NORMAL


def test_pykka_handles_what_was_queued_before_its_stop() -> None:
    seen: list[int] = []
    gate = threading.Event()
    ref = Plain.start([])
    ref.tell(lambda: gate.wait(10))
    for number in range(5):
        ref.tell(lambda n=number: seen.append(n))
    ref.stop(block=False)
    gate.set()
    eventually(lambda: not ref.is_alive())
    assert seen == [0, 1, 2, 3, 4]


def test_ours_handles_nothing_after_its_exit_and_reports_once(system: ActorSystem, parent: Recorder) -> None:
    gate, seen = threading.Event(), list[str]()
    ref = born(system, parent)
    ref.tell(lambda actor: (gate.wait(10), actor.exit(NORMAL)))
    ref.tell(lambda _: seen.append("late"))
    ref.tell(ExitNow(ExitReason.crashed("second")))
    gate.set()
    (report,) = eventually(parent.exits)
    assert report.reason == NORMAL
    holds_for(lambda: seen == [] and len(parent.exits()) == 1, 0.2)
    assert ref.tell("anything") is False


def test_ours_suspended_it_keeps_messages_and_resumed_it_handles_them_in_order(
    system: ActorSystem, parent: Recorder
) -> None:
    seen: list[int] = []
    ref = born(system, parent)
    ref.tell(Suspend())
    for number in range(3):
        ref.tell(lambda _, n=number: seen.append(n))
    holds_for(lambda: seen == [], 0.2)
    ref.tell(Resume())
    eventually(lambda: seen == [0, 1, 2])


# -- asking -----------------------------------------------------------------------------------------------------------


def test_trap_52_every_ask_has_an_end(system: ActorSystem, parent: Recorder) -> None:
    gate = threading.Event()
    ref = born(system, parent)
    ref.tell(lambda _: gate.wait(10))
    with pytest.raises(AskTimeout):
        ref.ask(lambda _: 1, 0.1)
    gate.set()
    assert ref.ask(lambda _: 2, 5) == 2
    ref.tell(ExitNow(NORMAL))
    eventually(lambda: not ref.is_alive)
    with pytest.raises(ActorGone):
        ref.ask(lambda _: 3, 5)


def test_trap_55_an_actor_thread_never_keeps_the_process(system: ActorSystem, parent: Recorder) -> None:
    born(system, parent)
    thread = eventually(lambda: next((one for one in threading.enumerate() if one.name == "actor:root/a#7"), None))
    assert thread.daemon
