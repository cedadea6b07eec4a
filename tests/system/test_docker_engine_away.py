"""The engine goes away and comes back, under the real daemon: nothing is started while nobody can tell, processes are
not affected, what was asked for meanwhile is done afterwards, and nothing is restarted that still runs.

``SELFHEAL_AWAY_S`` says for how many seconds it is away (3 without it).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.docker_engine import require_engine
from tests.support.eventually import eventually, holds_for
from tests.support.private_engine import PrivateEngine
from tests.support.unix_proxy import UnixProxy
from tests.system.test_docker_truth import CONVERGES_S, LONG_S, SLEEP, Place, a_place, running

AWAY_S = float(os.environ.get("SELFHEAL_AWAY_S", "3"))
pytestmark = [pytest.mark.docker, pytest.mark.timeout(240 + 2 * AWAY_S)]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return say


@contextmanager
def an_engine(folder: Path, *, live_restore: bool) -> Iterator[PrivateEngine]:
    engine = PrivateEngine(folder, live_restore=live_restore)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


def begin(place: Place, *words: str, **more: Any) -> None:
    for word in words:
        place.ours(word, network="none", **more)


def nothing_is_known(place: Place, *words: str) -> bool:
    return all(place.node(word)["state"] == "unknown" for word in words)


def crash_a_process(place: Place) -> None:
    """Processes go on under us while the engine is away."""
    before = place.node("plain")
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: place.node("plain")["restarts"] == before["restarts"] + 1, within_s=LONG_S)
    eventually(lambda: place.node("plain")["state"] == "ready", within_s=LONG_S)


def converges(place: Place, what: str, is_right: Callable[[], Any]) -> None:
    """The engine answers again: from now on."""
    began = time.monotonic()
    eventually(is_right, within_s=LONG_S, what=what)
    took_s = time.monotonic() - began
    place.report(f"docker truth: {what}, away {AWAY_S:g} s: {took_s:.2f} s")
    assert took_s < CONVERGES_S


def is_same(place: Place, word: str, before: dict[str, Any]) -> bool:
    node, keys = place.node(word), ("state", "restarts", "incarnation", "pid", "container_id")
    return [node.get(key) for key in keys] == [before[key] for key in keys]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_an_engine_restarted_under_living_containers(
    tmp_path_factory: pytest.TempPathFactory,
    report: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """With live-restore. One container dies meanwhile (no event ever tells), one is stopped by a person."""
    require_engine()
    folder = tmp_path_factory.mktemp("e")
    with an_engine(folder, live_restore=True) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        place = Place("t", engine.client(), folder, report=report)
        begin(place, "lives", "dies", "unwanted")
        place.services["t-plain"] = {"command": SLEEP}
        place.services["t-quiet"] = {"command": SLEEP}
        with running(place):
            place.selfheal.until_ready(within_s=LONG_S)
            before = {word: place.node(word) for word in ("lives", "dies", "unwanted", "quiet")}
            engine.stop(number)
            eventually(lambda: nothing_is_known(place, "lives", "dies", "unwanted"), within_s=LONG_S)
            assert all(psutil.pid_exists(before[word]["pid"]) for word in ("lives", "dies", "unwanted"))
            assert place.selfheal.call("services", "stop", "t-unwanted", "--no-wait").returncode == 0
            os.kill(before["dies"]["pid"], signal.SIGKILL)
            crash_a_process(place)
            holds_for(lambda: place.node("dies")["state"] == "unknown", AWAY_S, every_s=0.2)
            assert place.node("quiet")["pid"] == before["quiet"]["pid"]
            engine.start()
            converges(
                place,
                f"engine {number.name}, live-restore, one container died",
                lambda: place.is_back("dies", before["dies"]) and is_same(place, "lives", before["lives"]),
            )
            eventually(lambda: place.node("unwanted")["state"] == "stopped", within_s=LONG_S)
            eventually(lambda: not psutil.pid_exists(before["unwanted"]["pid"]), within_s=LONG_S)
            holds_for(lambda: is_same(place, "lives", before["lives"]), 1.0, every_s=0.2)
            assert place.node("dies")["last_exit"]["code"] == 137
        place.engine.close()


def test_an_engine_that_takes_its_containers_along(
    tmp_path_factory: pytest.TempPathFactory, report: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without live-restore. Its end looks like a ``docker stop`` of each, and is nobody's wish."""
    require_engine()
    folder = tmp_path_factory.mktemp("e")
    with an_engine(folder, live_restore=False) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        place = Place("t", engine.client(), folder, report=report)
        begin(place, "always")
        begin(place, "unless", "held", restart_policy="unless_stopped")
        place.services["t-plain"] = {"command": SLEEP}
        with running(place):
            place.selfheal.until_ready(within_s=LONG_S)
            assert place.selfheal.call("services", "stop", "t-held").returncode == 0
            before = {word: place.node(word) for word in ("always", "unless", "plain")}
            engine.stop()
            eventually(lambda: place.node("always")["state"] == "unknown", within_s=LONG_S)
            holds_for(lambda: place.node("always")["state"] == "unknown", AWAY_S, every_s=0.2)
            assert place.node("plain")["pid"] == before["plain"]["pid"]
            engine.start()
            converges(
                place,
                "engine SIGTERM, no live-restore",
                lambda: place.is_back("always", before["always"]) and place.is_back("unless", before["unless"]),
            )
            assert place.node("held")["state"] == "stopped"
            crash_a_process(place)
        place.engine.close()


def test_an_engine_out_of_reach(tmp_path: Path, report: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared engine behind a wire that is cut. Started while it is out of reach, the next daemon starts nothing."""
    with a_place(tmp_path, report) as place:
        wire = UnixProxy(tmp_path / "docker.sock", "/var/run/docker.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{wire.path}")
        begin(place, "lives", "dies")
        place.services[place.name("plain")] = {"command": SLEEP}
        try:
            with running(place):
                place.selfheal.until_ready(within_s=LONG_S)
                before = {word: place.node(word) for word in ("lives", "dies", "plain")}
                wire.cut()
                eventually(lambda: nothing_is_known(place, "lives", "dies"), within_s=LONG_S)
                os.kill(before["dies"]["pid"], signal.SIGKILL)
                crash_a_process(place)
                holds_for(lambda: nothing_is_known(place, "lives", "dies"), AWAY_S, every_s=0.2)
                wire.mend()
                converges(
                    place,
                    "engine out of reach",
                    lambda: place.is_back("dies", before["dies"]) and is_same(place, "lives", before["lives"]),
                )
                wire.cut()
                place.selfheal.process.kill()
                place.selfheal.process.wait()
            with running(place):
                place.selfheal.until_ready(place.name("plain"), within_s=LONG_S)
                eventually(lambda: nothing_is_known(place, "lives", "dies"), within_s=LONG_S)
                holds_for(lambda: nothing_is_known(place, "lives", "dies"), 2.0)
                assert place.selfheal.call("services", "stop", place.name("dies"), "--no-wait").returncode == 0
                wire.mend()
                converges(place, "engine found", lambda: is_same(place, "lives", before["lives"]))
                eventually(lambda: not psutil.pid_exists(_pid_of(place, "dies")), within_s=LONG_S)
                assert place.node("dies")["state"] == "stopped"
        finally:
            wire.close()


def _pid_of(place: Place, word: str) -> int:
    """0 when it does not run: pid_exists(0) is true of the kernel's own, so that is turned into one that is not."""
    found = place.engine.api.inspect_container(f"selfheal-{place.name(word)}")["State"]["Pid"]
    return int(found) or 2**22 + 1
