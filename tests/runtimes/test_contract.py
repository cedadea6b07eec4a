"""What every runtime promises, on the real ones and on the fake alike."""

from __future__ import annotations

import time

import pytest

from actors.runtimes.base import LaunchError
from tests.runtimes.worlds import LONG_S, RUNS, STUBBORN, Exits, World, exits
from tests.support.eventually import eventually, holds_for


def test_a_launched_run_lives_and_tells_who_it_is(world: World) -> None:
    runtime = world.daemon()
    spec = world.spec("a", RUNS)
    handle = runtime.launch(spec, 7, Exits())
    world.wait_ready(handle)
    assert (handle.service, handle.run) == (spec.service, 7)
    assert handle.pid is not None
    assert abs(handle.started_at - time.time()) < LONG_S
    assert world.is_alive(handle)


def test_trap_40_an_exit_code_is_told_once(world: World) -> None:
    on_exit = Exits()
    world.daemon().launch(world.spec("a", exits(3)), 1, on_exit)
    status = on_exit.one()
    assert (status.code, status.signal, status.cause, status.asked) == (3, None, "exit 3", False)
    assert not status.is_clean
    holds_for(lambda: len(on_exit.seen) == 1, 0.3)


def test_exit_0_is_clean(world: World) -> None:
    on_exit = Exits()
    world.daemon().launch(world.spec("a", exits(0)), 1, on_exit)
    assert on_exit.one().is_clean


def test_a_crash_is_told_and_nobody_asked_for_it(world: World) -> None:
    on_exit = Exits()
    handle = world.daemon().launch(world.spec("a", RUNS), 1, on_exit)
    world.wait_ready(handle)
    world.crash(handle)
    status = on_exit.one()
    assert not status.asked
    assert not status.is_clean
    assert not status.stopped_by_hand
    assert not world.is_alive(handle)


def test_never_two_live_runs(world: World) -> None:
    runtime = world.daemon()
    handle = runtime.launch(world.spec("a", RUNS), 1, Exits())
    world.wait_ready(handle)
    with pytest.raises(LaunchError, match="already runs"):
        runtime.launch(world.spec("a", RUNS), 2, Exits())
    assert world.is_alive(handle)


def test_two_services_live_side_by_side(world: World) -> None:
    runtime = world.daemon()
    first = runtime.launch(world.spec("a", RUNS), 1, Exits())
    second = runtime.launch(world.spec("b", RUNS), 1, Exits())
    runtime.stop(first, 5.0)
    assert world.is_alive(second)
    assert not world.is_alive(first)


def test_a_run_may_follow_an_ended_one(world: World) -> None:
    runtime, on_exit, second_exit = world.daemon(), Exits(), Exits()
    first = runtime.launch(world.spec("a", RUNS), 1, on_exit)
    world.crash(first)
    on_exit.one()
    second = runtime.launch(world.spec("a", RUNS), 2, second_exit)
    assert world.is_alive(second)
    assert second.run == 2
    assert second.pid != first.pid
    assert second_exit.seen == []


def test_stop_ends_it_and_says_it_was_asked(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    handle = runtime.launch(world.spec("a", RUNS), 1, on_exit)
    world.wait_ready(handle)
    status = runtime.stop(handle, LONG_S)
    assert not world.is_alive(handle)
    assert status.asked
    assert not status.stopped_by_hand
    assert on_exit.seen == [status]


def test_stop_kills_what_ignores_the_polite_signal(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    handle = runtime.launch(world.spec("a", STUBBORN), 1, on_exit)
    world.wait_ready(handle)
    began = time.monotonic()
    status = runtime.stop(handle, 1.0)
    assert time.monotonic() - began >= 1.0
    assert not world.is_alive(handle)
    assert 9 in (status.signal, (status.code or 0) - 128)
    assert on_exit.seen == [status]


def test_stop_of_an_ended_run_gives_how_it_ended(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    handle = runtime.launch(world.spec("a", exits(5)), 1, on_exit)
    assert on_exit.one().code == 5
    status = runtime.stop(handle, 1.0)
    assert status.code == 5
    assert len(on_exit.seen) == 1


def test_kill_ends_it_at_once(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    handle = runtime.launch(world.spec("a", STUBBORN), 1, on_exit)
    world.wait_ready(handle)
    runtime.kill(handle)
    assert on_exit.one().asked
    assert not world.is_alive(handle)


def test_nothing_to_adopt(world: World) -> None:
    assert world.daemon().adopt(world.spec("a", RUNS), Exits()) is None


def test_an_exit_somebody_was_told_of_is_not_adopted_again(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    runtime.launch(world.spec("a", exits(1)), 1, on_exit)
    on_exit.one()
    late = Exits()
    eventually(lambda: runtime.adopt(world.spec("a", RUNS), late) is None)
    assert late.seen == []


def test_a_restarted_actor_takes_over_the_running_process(world: World) -> None:
    runtime, old, new = world.daemon(), Exits(), Exits()
    handle = runtime.launch(world.spec("a", RUNS), 1, old)
    world.wait_ready(handle)
    assert runtime.adopt(world.spec("a", RUNS), new) == handle
    assert world.is_alive(handle)
    world.crash(handle)
    new.one()
    assert old.seen == []


def test_an_exit_nobody_was_told_of_is_kept_for_the_next(world: World) -> None:
    runtime, gone, new = world.daemon(), Exits(answer=False), Exits()
    handle = runtime.launch(world.spec("a", exits(4)), 1, gone)
    gone.one()
    assert eventually(lambda: runtime.adopt(world.spec("a", RUNS), new)) == handle
    assert [status.code for status in new.seen] == [4]
    assert runtime.adopt(world.spec("a", RUNS), Exits()) is None


def test_trap_36_a_second_daemon_adopts_and_never_doubles(world: World) -> None:
    first = world.daemon()
    handle = first.launch(world.spec("a", RUNS), 4, Exits())
    world.wait_ready(handle)
    first.close()
    assert world.is_alive(handle)  # runs live on
    second, on_exit = world.daemon(), Exits()
    with pytest.raises(LaunchError):
        second.launch(world.spec("a", RUNS), 5, Exits())
    adopted = second.adopt(world.spec("a", RUNS), on_exit)
    assert adopted is not None
    assert (adopted.pid, adopted.container_id, adopted.run) == (handle.pid, handle.container_id, 4)
    world.crash(adopted)
    assert not on_exit.one().is_clean
    again = second.launch(world.spec("a", RUNS), 5, Exits())
    assert world.is_alive(again)


def test_an_adopted_run_can_be_stopped(world: World) -> None:
    first = world.daemon()
    handle = first.launch(world.spec("a", RUNS), 1, Exits())
    world.wait_ready(handle)
    first.close()
    second, on_exit = world.daemon(), Exits()
    adopted = second.adopt(world.spec("a", RUNS), on_exit)
    assert adopted is not None
    assert second.stop(adopted, 10.0).asked
    assert not world.is_alive(adopted)
    assert len(on_exit.seen) == 1


def test_usage_of_a_live_run_only(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    handle = runtime.launch(world.spec("a", RUNS), 1, on_exit)
    world.wait_ready(handle)
    usage = runtime.usage(handle)
    assert usage is not None
    assert usage.memory_bytes > 0
    assert usage.cpu_percent >= 0
    runtime.stop(handle, 10.0)
    assert runtime.usage(handle) is None


def test_what_is_not_wanted_any_more_is_cleared_by_a_further_daemon(world: World) -> None:
    handle = world.daemon().launch(world.spec("a", RUNS), 1, Exits())
    bystander = world.daemon().launch(world.spec("b", RUNS), 1, Exits())
    world.wait_ready(handle)
    runtime = world.daemon()
    assert runtime.clear(handle.service, LONG_S)
    assert not world.is_alive(handle)
    assert world.is_alive(bystander)
    assert not runtime.clear(handle.service, LONG_S)
    assert runtime.adopt(world.spec("b", RUNS), Exits()) is not None


def test_a_paused_run_lives_on_and_can_be_stopped(world: World) -> None:
    runtime, on_exit = world.daemon(), Exits()
    handle = runtime.launch(world.spec("a", RUNS), 1, on_exit)
    world.wait_ready(handle)
    for _ in range(2):
        runtime.pause(handle)
        assert world.is_frozen(handle)
    runtime.resume(handle)
    assert not world.is_frozen(handle)
    runtime.resume(handle)
    runtime.pause(handle)
    assert world.is_alive(handle)
    assert on_exit.seen == []
    runtime.resume(handle)
    runtime.stop(handle, 5.0)
    assert not world.is_alive(handle)
