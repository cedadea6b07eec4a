"""Whatever somebody does to a container, the tree soon says what is true, and does what is right: one real daemon on
the real engine, one service for each deed. The time until the tree is right again is printed.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.models.containers import Container

from supervisors.remote import Base, RemoteManager
from tests.support.docker_engine import IMAGE, engine_client, remembers_kill, require_engine
from tests.support.eventually import eventually, holds_for
from tests.system.running import Running, daemon, write_config

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
CONVERGES_S = 5.0
LONG_S = 40.0
SLEEP = ["sleep", "1000"]
Node = dict[str, Any]


def killed_main(container: Container) -> None:
    """As the kernel or a crash would: no event tells of a ``docker kill``."""
    container.reload()
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)


@dataclass
class Place:
    """One daemon, its engine, and what the tree says."""

    tag: str
    engine: DockerClient
    folder: Path
    services: dict[str, Any] = field(default_factory=dict)
    strangers: list[Container] = field(default_factory=list)
    selfheal: Running = field(init=False)
    manager: RemoteManager = field(init=False)
    report: Callable[[str], None] = print

    def name(self, word: str) -> str:
        return f"{self.tag}-{word}"

    def ours(self, word: str, **more: Any) -> None:
        self.services[self.name(word)] = {
            "runtime": "docker",
            "image": IMAGE,
            "command": SLEEP,
            "graceful_shutdown_timeout": "1s",
        } | more

    def theirs(self, word: str, command: list[str], *, service: dict[str, Any] | None = None, **options: Any) -> None:
        """A container of somebody else that the daemon attaches to."""
        self.make(word, command, **options)
        self.services[self.name(word)] = {"runtime": "docker", "container": self.name(word)} | (service or {})

    def make(self, word: str, command: list[str], **options: Any) -> Container:
        defaults = {"name": self.name(word), "network_mode": "none", "init": True, "detach": True}
        made: Container = self.engine.containers.run(IMAGE, command, **{**defaults, **options})
        self.strangers.append(made)
        return made

    def node(self, word: str) -> Node:
        name = self.name(word)
        return next(dict(node) for node in self.manager.services() if node["name"] == name)

    def container(self, word: str) -> Container:
        return self.engine.containers.get(self.node(word)["container_id"])

    def converges(self, what: str, act: Callable[[], object], is_right: Callable[[], Any]) -> float:
        """Do it, and see the truth in the tree soon after."""
        act()
        began = time.monotonic()
        eventually(is_right, within_s=LONG_S, what=what)
        took_s = time.monotonic() - began
        self.report(f"docker truth: {what}: {took_s:.2f} s")
        assert took_s < CONVERGES_S, what
        return took_s

    def is_back(self, word: str, before: Node, restarts: int = 1) -> bool:
        """Ready in another run, which is really there."""
        node = self.node(word)
        assert (node["state"], node["restarts"]) == ("ready", before["restarts"] + restarts), node
        state = self.engine.api.inspect_container(node["container_id"])["State"]
        assert state["Running"]
        assert node["pid"] == state["Pid"]
        return bool(node["pid"] != before["pid"])

    def why(self, word: str) -> list[str]:
        return [one["text"] for one in self.manager.why(self.name(word))]


HEALTH = {"test": ["CMD-SHELL", "cat /tmp/well"], "interval": 200_000_000, "timeout": 5_000_000_000, "retries": 2}


@contextmanager
def running(place: Place) -> Iterator[None]:
    config = write_config(place.folder, place.services)
    with daemon(config, place.folder / "state") as selfheal:
        place.selfheal = selfheal
        with RemoteManager(Base(state_dir=place.folder / "state")) as manager:
            place.manager = manager
            yield


@contextmanager
def a_place(folder: Path, report: Callable[[str], None] = print) -> Iterator[Place]:
    require_engine()
    engine = engine_client()
    place = Place(f"t{uuid.uuid4().hex[:8]}", engine, folder, report=report)
    try:
        yield place
    finally:
        for container in engine.containers.list(all=True, ignore_removed=True):
            if place.tag in (container.name or ""):
                container.remove(force=True)
        engine.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("truth")) as made:
        work = made.folder / "work"
        work.mkdir()
        (work / "well").touch()
        for word in ("killed", "stopped", "restarted", "removed", "drifting"):
            made.ours(word)
        made.ours("wished", restart_policy="unless_stopped")
        probe = {"exec": ["test", "-e", str(work / "well")], "interval": "200ms", "retries": 2}
        made.ours("paused", health_check=probe)
        made.services[made.name("plain")] = {"command": SLEEP}
        memory = {"mem_limit": "16m", "volumes": [f"{work}:/w"]}
        eats = "while [ ! -e /w/eat ]; do sleep 0.1; done; busybox rm /w/eat; sh -c 'x=xxxx; while :; do x=$x$x; done'"
        made.theirs("hungry", ["sh", "-c", f"{eats}; exit 0"], service={"restart_policy": "on_failure"}, **memory)
        made.theirs("checked", ["sh", "-c", "echo > /tmp/well; exec sleep 1000"], healthcheck=HEALTH)
        made.theirs("fought", SLEEP, restart_policy={"Name": "always"})
        made.theirs("recreated", SLEEP)
        with running(made):
            wanted = [name for name in made.services if name != made.name("fought")]
            made.selfheal.until_ready(*wanted, within_s=LONG_S)
            yield made


@pytest.fixture(autouse=True)
def shown(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """The measured times are printed also when all is well."""

    def report(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    if "place" in request.fixturenames:
        request.getfixturevalue("place").report = report


def test_killed(place: Place) -> None:
    before = place.node("killed")
    place.converges("docker kill", place.container("killed").kill, lambda: place.is_back("killed", before))
    assert place.node("killed")["last_exit"]["cause"] == "docker kill"
    crashed = place.node("killed")
    container = place.container("killed")
    place.converges("main killed", lambda: killed_main(container), lambda: place.is_back("killed", crashed))
    assert place.node("killed")["last_exit"]["cause"] == "signal SIGKILL"
    assert place.node("killed")["container_id"] == before["container_id"]


def test_stopped(place: Place) -> None:
    before, container = place.node("stopped"), place.container("stopped")
    place.converges("docker stop", lambda: container.stop(timeout=1), lambda: place.is_back("stopped", before))
    assert place.node("stopped")["last_exit"]["cause"] == "docker stop"


@pytest.mark.parametrize("word", ["restarted", "wished"])
def test_trap_34_restarted_by_a_stranger_it_is_taken_on_and_left_alone(place: Place, word: str) -> None:
    before, container = place.node(word), place.container(word)
    place.converges("docker restart", lambda: container.restart(timeout=1), lambda: place.is_back(word, before))
    eventually(lambda: place.node(word)["last_exit"]["cause"] == "restarted from outside", within_s=LONG_S)
    container.reload()
    started_at = container.attrs["State"]["StartedAt"]
    holds_for(lambda: place.is_back(word, before), 1.0, every_s=0.1)
    container.reload()
    assert container.attrs["State"]["StartedAt"] == started_at
    eventually(lambda: any("from outside" in text for text in place.why(word)), within_s=LONG_S)


def test_a_wish_to_stop_and_to_start_again_is_respected(place: Place) -> None:
    container = place.container("wished")
    place.converges(
        "docker stop, unless_stopped",
        lambda: container.stop(timeout=1),
        lambda: place.node("wished")["state"] == "stopped",
    )
    stopped = place.node("wished")
    assert stopped["last_exit"]["cause"] == "docker stop"
    place.converges("docker start", container.start, lambda: place.is_back("wished", {**stopped, "pid": None}))


def test_removed(place: Place) -> None:
    before, container = place.node("removed"), place.container("removed")
    place.converges("docker rm -f", lambda: container.remove(force=True), lambda: place.is_back("removed", before))
    assert place.node("removed")["container_id"] != before["container_id"]


def test_paused_it_is_shown_so_and_not_judged(place: Place) -> None:
    before, container, well = place.node("paused"), place.container("paused"), place.folder / "work" / "well"
    place.converges("docker pause", container.pause, lambda: place.node("paused")["state"] == "paused")
    assert place.node("paused")["detail"] == "paused from outside (docker pause)"
    well.unlink()
    holds_for(lambda: place.node("paused")["state"] == "paused", 2.0, every_s=0.1)
    well.touch()
    place.converges("docker unpause", container.unpause, lambda: place.node("paused")["state"] == "ready")
    after = place.node("paused")
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])
    told = {"paused from outside (docker pause)", "unpaused from outside (docker unpause)"}
    eventually(lambda: told <= set(place.why("paused")), within_s=LONG_S)


def test_trap_29_out_of_memory_with_exit_0_is_a_failure(place: Place) -> None:
    before = place.node("hungry")
    eats = (place.folder / "work" / "eat").touch
    place.converges("OOM, exit 0", eats, lambda: place.is_back("hungry", before))
    last = place.node("hungry")["last_exit"]
    assert (last["cause"], last["code"]) == ("OOM", 0)


def test_the_containers_own_health_flips(place: Place) -> None:
    before, container = place.node("checked"), place.container("checked")
    assert before["health"] == "healthy"

    def fall_ill() -> None:
        container.exec_run(["busybox", "rm", "/tmp/well"])
        eventually(lambda: _health(container) == "unhealthy", within_s=LONG_S)

    place.converges("health flip", fall_ill, lambda: place.node("checked")["restarts"] > before["restarts"])
    eventually(lambda: place.is_back("checked", before), within_s=LONG_S)
    assert place.node("checked")["last_exit"]["cause"].startswith("unhealthy: docker health check")


def _health(container: Container) -> str:
    container.reload()
    return str(container.attrs["State"]["Health"]["Status"])


DRIFT = "drift: the engine restarts it too (restart policy always)"


def test_trap_34_a_restart_policy_of_somebody_else_is_drift(place: Place) -> None:
    before, container = place.node("drifting"), place.container("drifting")

    def is_drift() -> bool:
        node = place.node("drifting")
        return (node["state"], node.get("detail")) == ("degraded", DRIFT)

    place.converges("docker update --restart=always", lambda: _policy(container, "always"), is_drift)
    eventually(lambda: DRIFT in place.why("drifting"), within_s=LONG_S)
    assert place.selfheal.call("tree").returncode != 0
    place.converges("policy taken back", lambda: _policy(container, "no"), lambda: _is_ready(place, "drifting"))
    assert place.node("drifting")["pid"] == before["pid"]


def _policy(container: Container, name: str) -> None:
    policy: Any = {"Name": name}
    container.update(restart_policy=policy)


def _is_ready(place: Place, word: str) -> bool:
    return bool(place.node(word)["state"] == "ready")


def test_trap_34_two_supervisors_start_one_run(place: Place) -> None:
    """The engine's own policy starts it too: its run is taken on, nothing is started or ended twice."""
    before = place.node("fought")
    assert (before["state"], before["detail"]) == ("degraded", DRIFT)
    container = place.container("fought")

    def is_taken_on() -> bool:
        node = place.node("fought")
        state = place.engine.api.inspect_container(str(container.id))["State"]
        assert state["Running"]
        assert (node["state"], node["restarts"], node.get("pid")) == ("degraded", before["restarts"] + 1, state["Pid"])
        return bool(node["pid"] != before["pid"])

    place.converges("main killed, policy always", lambda: killed_main(container), is_taken_on)
    holds_for(is_taken_on, 1.0, every_s=0.1)


def test_a_container_made_anew_by_its_owner_is_taken_on(place: Place) -> None:
    before, container = place.node("recreated"), place.container("recreated")
    container.remove(force=True)
    eventually(lambda: place.node("recreated")["state"] != "ready", within_s=LONG_S)

    def is_taken_on() -> bool:
        node = place.node("recreated")
        return bool(node["state"] == "ready" and node["container_id"] != before["container_id"])

    place.converges("docker rm -f, run by its owner", lambda: place.make("recreated", SLEEP), is_taken_on)
    assert place.node("recreated")["incarnation"] > before["incarnation"]


def test_a_process_beside_them_is_left_alone(place: Place) -> None:
    assert (place.node("plain")["state"], place.node("plain")["restarts"]) == ("ready", 0)


# -- what cannot run --------------------------------------------------------------------------------------------------


def test_what_cannot_run_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    few = {"max_restarts": 1, "backoff": {"initial": "100ms"}}
    with a_place(tmp_path) as place:
        place.ours("taken", **few)
        stranger = place.make("stranger", SLEEP, name=f"selfheal-{place.name('taken')}")
        place.ours("imageless", image=f"no-such-image:{place.tag}", **few)
        place.ours("commandless", command=["no-such-program"], **few)
        place.ours("homeless", working_dir="/bin/busybox", **few)
        with running(place):
            words = {
                "taken": f"is taken by container {str(stranger.id)[:12]}, which is not ours",
                "imageless": f"image no-such-image:{place.tag} is not on this engine: run `docker pull",
                "commandless": "exit 127",
                "homeless": "not a directory",
            }
            for word, said in words.items():
                node = eventually(lambda word=word: _parked(place, word), within_s=LONG_S)  # type: ignore[misc]
                assert said in f"{node.get('detail')} {node.get('last_exit')}".replace("\\", ""), node
            left = {
                container.name: container.status
                for container in place.engine.containers.list(
                    all=True, filters={"label": "selfheal.instance"}, ignore_removed=True
                )
                if place.tag in (container.name or "")
            }
            assert left == {f"selfheal-{place.name('commandless')}": "exited"}, "it ran; the others never did"
        stranger.reload()
        assert stranger.status == "running"


def _parked(place: Place, word: str) -> Node | None:
    node = place.node(word)
    return node if node["state"] == "crash_loop" else None


# -- no daemon lives --------------------------------------------------------------------------------------------------


def test_containers_over_the_death_of_the_daemon(tmp_path: Path) -> None:
    """One lives on and is the same; the end of each other one is known, and answered by its policy."""
    with a_place(tmp_path) as place:
        for word in ("lives", "killed", "removed"):
            place.ours(word)
        ends = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"]
        place.ours("ended", command=ends, restart_policy="never")
        place.ours("wished", command=ends, restart_policy="unless_stopped")
        with running(place):
            before = place.selfheal.until_ready(within_s=LONG_S)
            started_at = place.container("lives").attrs["State"]["StartedAt"]
            containers = {word: place.container(word) for word in ("killed", "removed", "ended", "wished")}
            place.selfheal.process.kill()
            place.selfheal.process.wait()
        killed_main(containers["killed"])
        containers["removed"].remove(force=True)
        containers["ended"].kill("TERM")
        containers["wished"].stop(timeout=5)
        eventually(lambda: _status(containers["ended"]) == "exited", within_s=LONG_S)
        with running(place):
            place.selfheal.until_ready(*(place.name(word) for word in ("lives", "killed", "removed")), within_s=LONG_S)
            lives = place.node("lives")
            assert lives["container_id"] == before[place.name("lives")]["container_id"]
            assert place.container("lives").attrs["State"]["StartedAt"] == started_at
            assert (lives["restarts"], lives["incarnation"]) == (0, 1)
            found = {word: place.node(word) for word in containers}
            told = {word: (node["last_exit"]["cause"], node["restarts"], node["state"]) for word, node in found.items()}
            assert told["killed"] == ("signal SIGKILL", 1, "ready")
            assert told["removed"] == ("container removed", 1, "ready")
            assert told["ended"][1:] == (0, "failed"), "its policy is never"
            if remembers_kill(place.engine, str(containers["wished"].id)):
                assert told["wished"] == ("docker stop, exit 7", 0, "stopped")
            assert found["ended"]["last_exit"]["code"] == 7
            assert found["killed"]["container_id"] == containers["killed"].id


def _status(container: Container) -> str:
    container.reload()
    return str(container.status)
