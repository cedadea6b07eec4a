"""Whether supervisors answer, with real actors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from actors.context import ActorSystem
from actors.messages import AreYouThere
from supervisors import Strategy, Supervisor
from supervisors.pulse import SAID_AFTER_S, Pulse
from tests.support.eventually import eventually, holds_for


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    made = ActorSystem()
    yield made
    made.close()


def tree(system: ActorSystem) -> Supervisor:
    inner = Supervisor.spec("inner", strategy=Strategy.ONE_FOR_ONE, children=[])
    return Supervisor.start(children=[inner], system=system)


def pulse_of(system: ActorSystem) -> Pulse:
    return Pulse(system.whereis, lambda: ("root", "root/inner", "root/not-there"), time.monotonic)


def test_those_that_answer_are_well_again_and_again(system: ActorSystem) -> None:
    root = tree(system)
    pulse = pulse_of(system)
    for _ in range(3):
        eventually(pulse.look)
    assert pulse.trouble is None
    root.stop()


@pytest.mark.parametrize("who", ["root", "root/inner"])
def test_one_that_hangs_is_seen_and_named(system: ActorSystem, who: str) -> None:
    root, go_on, now_s = tree(system), threading.Event(), 100.0
    pulse = Pulse(system.whereis, lambda: ("root", "root/inner"), lambda: now_s)
    ref = system.whereis(who)
    assert ref is not None
    ref.tell(AreYouThere(lambda: _wait(go_on)))
    pulse.look()
    holds_for(lambda: not pulse.look(), 0.3)
    troubles = [pulse.trouble]  # nothing yet: a moment's silence is not worth a word
    now_s += SAID_AFTER_S
    troubles.append(pulse.trouble)
    assert troubles == [None, f"{who} has not answered for {SAID_AFTER_S:.0f} s"]
    go_on.set()
    eventually(pulse.look)
    root.stop()


def test_one_that_ended_without_an_answer_is_not_waited_for(system: ActorSystem) -> None:
    root, go_on = tree(system), threading.Event()
    pulse = pulse_of(system)
    inner = system.whereis("root/inner")
    assert inner is not None
    inner.tell(AreYouThere(lambda: _wait(go_on)))
    root.ref.tell(AreYouThere(lambda: None))
    pulse.look()
    threading.Thread(target=root.stop).start()
    holds_for(lambda: not pulse.look(), 0.2)
    go_on.set()
    eventually(pulse.look)


def _wait(event: threading.Event) -> None:
    event.wait(20)
