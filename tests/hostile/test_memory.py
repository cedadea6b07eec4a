"""Messages that never end, of a peer who has a key: the daemon's memory stays bounded, and it goes on supervising."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from bridge_link.keys import find_key
from guardian_link import Alert, GuardianClient
from supervisors.memory_guard import BOUND, LARGE, MIB, Level, judged, step, to_cut
from tests.hostile.relay import without_an_end
from tests.hostile.test_bytes import endpoint, rss_mb
from tests.support.eventually import eventually
from tests.support.tables import TABLE
from tests.system.running import SLEEPER, Running, daemon, write_config

ATTACK = 192 * MIB


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("memory")
    with daemon(write_config(folder, {"a": SLEEPER}), folder / "state") as selfheal:
        selfheal.until_ready("a")
        yield selfheal


def troubles(running: Running) -> list[str]:
    told = running.get("/v1/alerts")["alerts"]
    return [one["message"] for one in told if one["type"] == "records_trouble"]


def come_back(running: Running, old: int) -> int:
    eventually(lambda: running.services()["a"].get("pid") not in (None, old), within_s=20)
    running.until_ready("a")
    return running.pid("a")


def attacked(running: Running) -> tuple[float, float, str]:
    """(most MB, MB afterwards, the peer); a service is killed meanwhile."""
    pid, most = running.pid("a"), 0.0
    before = rss_mb(running)
    with without_an_end(endpoint(running), find_key(None, running.state, {}), ATTACK) as relay:

        def is_cut() -> bool:
            nonlocal most
            most = max(most, rss_mb(running))
            return relay.is_cut.is_set()

        eventually(lambda: is_cut() or most > before + 64, within_s=20, every_s=0.01)
        os.kill(pid, signal.SIGKILL)
        eventually(is_cut, within_s=20, every_s=0.01)
        eventually(lambda: rss_mb(running) < before + 40, within_s=20)
        return most, rss_mb(running), relay.peer


def test_trap_21_a_message_without_an_end(running: Running, record_property: Callable[[str, object], None]) -> None:
    before, pid, rows = rss_mb(running), running.pid("a"), []
    for number in (1, 2):
        most, after, peer = attacked(running)
        rows.append(f"attack {number}, {ATTACK // MIB} MiB: RSS at most {most:.1f} MB, {after:.1f} MB afterwards")
        assert most > before + 64, "nothing was held: the attack is none"
        assert most < before + ATTACK / MIB + 40
        if number == 1:
            eventually(lambda: len(troubles(running)) == 1)
            assert peer in troubles(running)[0]
        pid = come_back(running, pid)
        with GuardianClient(state_dir=running.state) as guardian:
            assert guardian.send(Alert(type="noise"), timeout_s=20).status == "stored"
    assert len(troubles(running)) == 1, "one trouble that comes again is alerted once"
    links = next(one for one in running.get("/v1/tree")["root"]["children"] if one["name"] == "links")
    shown = {one["name"]: one.get("detail") for one in links["children"]}
    assert "messages without an end" in shown["guardian"]
    assert shown["bridge"] is None
    record_property(TABLE, f"RSS before {before:.1f} MB\n" + "\n".join(rows))


def test_the_level_is_the_lowest_and_growth_beyond_the_bound_is_too_much() -> None:
    level, _ = step(Level(), 90 * MIB)
    level, is_much = step(level, 60 * MIB)
    assert (level, is_much) == (Level(60 * MIB), False)
    assert step(level, 60 * MIB + BOUND) == (level, False)
    assert step(level, 60 * MIB + BOUND + 1) == (level, True)
    assert step(level, 60 * MIB + BOUND + 1, explained=1) == (level, False)


def test_who_may_be_holding_much_is_cut_off() -> None:
    assert to_cut({"a": LARGE, "b": LARGE - 1}) == {"a"}
    many = {str(n): LARGE // 4 for n in range(4)}
    assert to_cut(many) == many.keys()
    assert to_cut({"a": LARGE // 4, "b": 0}) == frozenset()


def test_growth_of_our_own_is_no_peers_and_is_the_level_from_then_on() -> None:
    low, high = Level(60 * MIB), 60 * MIB + BOUND + 10
    theirs = judged(low, high, 70 * MIB)
    assert (theirs.level, theirs.freed) == (low, high - 70 * MIB)
    ours = judged(low, high, high - MIB)
    assert (ours.level, ours.freed) == (low, 0), "back under the bound: nothing to learn"
    stays = judged(low, high, high)
    assert (stays.level, stays.freed) == (Level(high), 0)
    assert step(stays.level, high + BOUND) == (stays.level, False)
