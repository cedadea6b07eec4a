"""The supervisor's shell with real pykka threads, through the library face."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors.context import ActorContext, ActorSystem
from actors.messages import ChildExited, ExitNow, IoDone, StopMode
from actors.refs import ActorRef
from actors.spec import Backoff, ExitKind, ExitReason, OnExhausted, Origin, Pacing
from supervisors import (
    ChildSpec,
    Restart,
    Strategy,
    SupervisedActor,
    SupervisionError,
    Supervisor,
    WaitFor,
)
from tests.support.eventually import eventually, holds_for


class Worker(SupervisedActor):
    """Obeys callables; ``journal`` gets what happens to it."""

    def __init__(self, context: ActorContext, journal: list[str], *, is_ready: bool = True, deaf: Any = None) -> None:
        super().__init__(context)
        self.journal, self._is_ready, self._deaf = journal, is_ready, deaf

    def setup(self) -> None:
        self.journal.append(f"start {self.context.id}")
        if self._is_ready:
            self.ready()

    def handle(self, message: Any) -> Any:
        return message(self)

    def stop_requested(self, reason: ExitReason) -> None:
        if self._deaf is not None:
            self._deaf.wait(30)
        super().stop_requested(reason)

    def teardown(self, reason: ExitReason) -> None:
        self.journal.append(f"end {self.context.id} {self.stop_mode.value}")

    def kill_owned(self) -> None:
        self.journal.append(f"kill {self.context.id}")


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    made = ActorSystem()
    yield made
    made.close()


def workers(journal: list[str], *names: str, **more: Any) -> list[ChildSpec]:
    return [ChildSpec(id=name, start=Worker, args=(journal,), **more) for name in names]


def crash(root: Supervisor, name: str, reason: ExitReason | None = None) -> None:
    ref = root.child(name)
    assert ref is not None
    ref.tell(ExitNow(reason or ExitReason.crashed("boom")))


def world(text: str = "gone") -> ExitReason:
    return ExitReason.crashed(text, origin=Origin.WORLD)


def test_the_docstrings_example_runs() -> None:
    journal: list[str] = []
    root = Supervisor.start(strategy=Strategy.ONE_FOR_ONE, children=workers(journal, "a", "b"))
    assert [(one.id, one.state) for one in root.which_children()] == [("a", "running"), ("b", "running")]
    assert root.count_children().active == 2
    assert root.stop().kind is ExitKind.SHUTDOWN
    assert journal == ["start a", "start b", "end b terminate", "end a terminate"]
    with pytest.raises(SupervisionError, match="noproc"):
        root.which_children()


def test_faults_of_the_world_never_spend_the_supervisors_budget(system: ActorSystem) -> None:
    journal: list[str] = []
    pacing = Pacing(Backoff(jitter=False, initial_s=0.01), max_restarts=50)
    root = Supervisor.start(
        strategy=Strategy.ONE_FOR_ONE, intensity=0, children=workers(journal, "a", pacing=pacing), system=system
    )
    for number in range(1, 6):
        crash(root, "a", world())
        eventually(lambda n=number: journal.count("start a") == n + 1)  # type: ignore[misc]
    assert root.is_alive
    crash(root, "a")  # a fault of ours does
    assert root.wait(10).kind is ExitKind.SHUTDOWN


def test_a_child_that_uses_up_its_budget_is_parked_and_tried_again(system: ActorSystem) -> None:
    journal: list[str] = []
    pacing = Pacing(Backoff(jitter=False, initial_s=0.01, max_s=0.5), max_restarts=1, on_exhausted=OnExhausted.PARK)
    specs = [*workers(journal, "a", pacing=pacing), *workers(journal, "b")]
    root = Supervisor.start(strategy=Strategy.ONE_FOR_ONE, children=specs, system=system)
    crash(root, "a", world())
    eventually(lambda: journal.count("start a") == 2)
    crash(root, "a", world())
    parked = eventually(lambda: _node(system, "root/a", "crash_loop"))
    assert parked.next_try_at is not None
    holds_for(lambda: journal.count("start a") == 2, 0.2)
    eventually(lambda: journal.count("start a") == 3)
    assert journal.count("start b") == 1
    root.stop()


def _node(system: ActorSystem, path: str, state: str) -> Any:
    node = system.board.get(path)
    return node if node is not None and node.state.value == state else None


def test_in_a_group_the_next_waits_until_this_one_is_ready(system: ActorSystem) -> None:
    journal: list[str] = []
    gate = ChildSpec(id="a", start=Worker, args=(journal,), kwargs={"is_ready": False}, wait_for=WaitFor.READY)
    root = Supervisor.start(strategy=Strategy.REST_FOR_ONE, children=[gate, *workers(journal, "b")], system=system)
    holds_for(lambda: journal == ["start a"], 0.3)
    ref = root.child("a")
    assert ref is not None
    ref.tell(lambda actor: actor.ready())
    eventually(lambda: journal == ["start a", "start b"])
    root.stop()


def test_trap_54_a_child_that_does_not_stop_is_abandoned_and_what_it_owns_killed(system: ActorSystem) -> None:
    """Its thread cannot be killed: what it says later is of an old incarnation and is dropped."""
    journal: list[str] = []
    deaf = threading.Event()
    spec = ChildSpec(id="a", start=Worker, args=(journal,), kwargs={"deaf": deaf}, shutdown=0.2)
    root = Supervisor.start(strategy=Strategy.ONE_FOR_ONE, children=[spec], system=system)
    root.terminate_child("a")
    eventually(lambda: "kill a" in journal)
    root.restart_child("a")
    assert journal.count("start a") == 2
    deaf.set()  # now the abandoned thread ends and reports
    eventually(lambda: "end a terminate" in journal)
    holds_for(lambda: [one.state for one in root.which_children()] == ["running"], 0.3)
    assert journal.count("start a") == 2
    root.stop()


def test_our_own_fault_detaches_the_siblings_and_the_worlds_takes_them_along(system: ActorSystem) -> None:
    journal: list[str] = []
    specs = [*workers(journal, "a", pacing=Pacing()), *workers(journal, "b")]
    root = Supervisor.start(strategy=Strategy.REST_FOR_ONE, intensity=5, children=specs, system=system)
    crash(root, "a")
    eventually(lambda: journal.count("start b") == 2)
    assert f"end b {StopMode.DETACH.value}" in journal
    crash(root, "a", world())
    eventually(lambda: journal.count("start b") == 3)
    assert f"end b {StopMode.TERMINATE.value}" in journal
    root.stop()


def test_a_supervisor_that_crashes_itself_leaves_no_orphan_and_is_restarted(system: ActorSystem) -> None:
    journal: list[str] = []
    inner = Supervisor.spec("inner", children=workers(journal, "w"))
    root = Supervisor.start(strategy=Strategy.ONE_FOR_ONE, intensity=3, children=[inner], system=system)
    nested = root.supervisor("inner")
    assert nested is not None
    old = nested.child("w")
    assert old is not None
    unhashable: Any = ["a bug of ours"]
    nested.ref.tell(ChildExited(unhashable, 1, ExitReason.crashed("x")))
    eventually(lambda: journal.count("start w") == 2)
    eventually(lambda: not old.is_alive)
    assert root.is_alive
    root.stop()
    assert journal.count("end w detach") == 1


def test_a_held_child_is_started_by_no_strategy_but_by_hand(system: ActorSystem) -> None:
    journal: list[str] = []
    root = Supervisor.start(
        strategy=Strategy.ONE_FOR_ALL, intensity=5, children=workers(journal, "a", "b"), system=system
    )
    root.hold_child("b")
    crash(root, "a")
    eventually(lambda: journal.count("start a") == 2)
    holds_for(lambda: journal.count("start b") == 1, 0.2)
    root.restart_child("b")
    assert journal.count("start b") == 2
    root.stop()


def test_children_can_be_added_and_deleted_while_it_runs(system: ActorSystem) -> None:
    journal: list[str] = []
    root = Supervisor.start(strategy=Strategy.ONE_FOR_ONE, system=system)
    assert isinstance(root.start_child(workers(journal, "a")[0]), ActorRef)
    with pytest.raises(SupervisionError, match="already_started"):
        root.start_child(workers(journal, "a")[0])
    root.terminate_child("a")
    root.delete_child("a")
    assert root.which_children() == ()
    assert root.start_child({"id": "b", "start": Worker, "args": (journal,), "restart": Restart.TEMPORARY}) is not None
    root.stop()


def test_a_job_that_raises_comes_back_as_an_error_also_system_exit(system: ActorSystem) -> None:
    told: list[Any] = []

    class Told:
        def tell(self, message: object) -> bool:
            told.append(message)
            return True

        def ask(self, message: object, timeout_s: float) -> Any:
            raise NotImplementedError

    def leave() -> None:
        raise SystemExit(3)

    for tag, job in (("good", lambda: 5), ("bad", lambda: 1 / 0), ("exit", leave)):
        system.io.run(job, Told(), tag)
    eventually(lambda: len(told) == 3)
    done = {one.tag: one for one in told}
    assert done["good"] == IoDone("good", 5)
    assert isinstance(done["bad"].error, ZeroDivisionError)
    assert isinstance(done["exit"].error, SystemExit)
    system.io.run(lambda: 6, Told(), "after")
    eventually(lambda: len(told) == 4)


def test_timers_keep_their_order_and_can_be_cancelled(system: ActorSystem) -> None:
    told: list[Any] = []

    class Told:
        def tell(self, message: object) -> bool:
            told.append(message)
            return True

        def ask(self, message: object, timeout_s: float) -> Any:
            raise NotImplementedError

    system.timers.after(0.2, Told(), "second")
    system.timers.after(0.1, Told(), "first")
    system.timers.after(0.15, Told(), "never").cancel()
    eventually(lambda: told == ["first", "second"])
    holds_for(lambda: len(told) == 2, 0.1)
