"""A person who asks twice to end the daemon: nothing is started again, and a launch under way is waited for."""

from __future__ import annotations

import threading

import pytest

from actors.live_runs import LiveRuns
from actors.runtimes.base import LaunchError
from tests.support.eventually import eventually


def test_a_launch_under_way_is_waited_for_and_no_other_begins() -> None:
    live, may_end, waited = LiveRuns(), threading.Event(), list[bool]()

    def launch() -> None:
        with live.launching("a"):
            may_end.wait(10)

    launching = threading.Thread(target=launch)
    launching.start()
    eventually(lambda: not live.await_launched(0.0))
    live.no_more()
    with pytest.raises(LaunchError, match="'b': the daemon ends"), live.launching("b"):
        pytest.fail("begun")
    waiting = threading.Thread(target=lambda: waited.append(live.await_launched(10.0)))
    waiting.start()
    assert not live.await_launched(0.05)
    may_end.set()
    launching.join()
    waiting.join()
    assert waited == [True]
    assert live.await_launched(0.0)


def test_a_launch_that_fails_is_over_too() -> None:
    live = LiveRuns()
    with pytest.raises(OSError, match="no such"), live.launching("a"):
        raise OSError("no such program")
    assert live.await_launched(0.0)
