"""What only the Docker runtime can do wrong: causes, ownership, an engine that is away. On a real engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import APIError, NotFound

from actors.docker_watcher import DockerWatcher
from actors.runtimes.base import ContainerSpec, LaunchError, StopFailed, TruthUnknown
from actors.runtimes.docker import DockerRuntime
from actors.runtimes.docker_engine import DockerEngine
from actors.runtimes.docker_exits import ContainerEvent, read_event
from actors.runtimes.docker_outside import Unheard
from actors.runtimes.docker_spec import LABEL_SPEC_HASH, container_name
from actors.runtimes.observing import Observed
from actors.runtimes.settings import EnvironmentFile, EnvironmentSources, Limit, ProcessSettings
from tests.runtimes.docker_place import DockerPlace
from tests.runtimes.worlds import LONG_S, RUNS, STUBBORN, Exits
from tests.support.docker_engine import IMAGE, remembers_kill
from tests.support.eventually import eventually, holds_for
from tests.support.unix_proxy import UnixProxy

pytestmark = pytest.mark.docker


# -- why it ended -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "cause", "by_hand"), [("kill", "docker kill", False), ("stop", "docker stop", True)], ids=["kill", "stop"]
)
def test_ended_by_hand_and_brought_back(docker_place: DockerPlace, act: str, cause: str, by_hand: bool) -> None:
    runtime, on_exit = docker_place.daemon(watcher=DockerWatcher(reconcile_s=300)), Exits()  # by the event alone
    spec = docker_place.spec("a", RUNS)
    handle = runtime.launch(spec, 1, on_exit)
    docker_place.wait_ready(handle)
    began = time.monotonic()
    getattr(docker_place.container(handle), act)()
    status = on_exit.one()
    assert (status.cause, status.stopped_by_hand, status.asked) == (cause, by_hand, False)
    again = runtime.launch(spec, 2, Exits())
    took_s = time.monotonic() - began
    assert docker_place.is_alive(again)
    assert again.container_id == handle.container_id  # the same container, started again
    assert again.identity != handle.identity
    assert took_s < 30
    print(f"docker {act} -> running again: {took_s:.2f} s")


def test_a_hard_docker_stop_is_still_a_stop_by_hand(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", STUBBORN), 1, on_exit)
    docker_place.wait_ready(handle)
    docker_place.container(handle).stop(timeout=1)
    status = on_exit.one()
    assert (status.code, status.cause, status.stopped_by_hand) == (137, "docker stop", True)


def test_trap_29_137_from_the_host_is_a_plain_signal(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    docker_place.wait_ready(handle)
    docker_place.crash(handle)
    status = on_exit.one()
    assert (status.code, status.signal, status.cause) == (137, 9, "signal SIGKILL")
    assert not status.oom_killed
    assert not status.stopped_by_hand


EATS = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"


@pytest.mark.parametrize(
    ("text", "code"),
    [(f"exec sh -c '{EATS}'", 137), (f"sh -c '{EATS}'; exit 0", 0)],
    ids=["main", "child-main-exits-0"],
)
def test_trap_29_oom_is_named_even_when_the_main_process_ends_with_0(
    docker_place: DockerPlace, text: str, code: int
) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    runtime.launch(docker_place.spec("a", ("sh", "-c", text), memory_bytes=16 * 1024 * 1024), 1, on_exit)
    status = on_exit.one()
    assert (status.cause, status.oom_killed, status.code) == ("OOM", True, code)
    assert not status.is_clean


class HearsNoOom(DockerWatcher):
    def _take(self, raw: dict[str, Any]) -> None:
        if raw.get("Action") != "oom":
            super()._take(raw)


def test_trap_29_oom_is_known_although_its_event_was_lost(docker_place: DockerPlace) -> None:
    """Nobody waits for that: the end is told at once, its cause is put right."""
    runtime, on_exit = docker_place.daemon(watcher=HearsNoOom()), Exits()
    eats = docker_place.spec("a", ("sh", "-c", f"exec sh -c '{EATS}'"), memory_bytes=16 * 1024 * 1024)
    runtime.launch(eats, 1, on_exit)
    assert on_exit.one().cause == "signal SIGKILL"

    def cause() -> object:
        return (docker_place.ledger.record(eats.service).last_exit or {}).get("cause")

    eventually(lambda: cause() == "OOM", within_s=LONG_S)


def test_removed_by_force_is_told_and_made_anew(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    spec = docker_place.spec("a", RUNS)
    handle = runtime.launch(spec, 1, on_exit)
    docker_place.container(handle).remove(force=True)
    on_exit.one()
    eventually(lambda: not docker_place.ours())
    again = runtime.launch(spec, 2, Exits())
    assert again.container_id != handle.container_id
    assert docker_place.is_alive(again)


@pytest.mark.parametrize(("act", "cause"), [("stop", "docker stop"), ("crash", "signal SIGKILL")])
def test_an_end_that_no_daemon_saw_is_told_to_the_next_one(docker_place: DockerPlace, act: str, cause: str) -> None:
    first, spec = docker_place.daemon(), docker_place.spec("a", RUNS)
    handle = first.launch(spec, 1, Exits())
    docker_place.wait_ready(handle)
    first.close()
    docker_place.container(handle).stop() if act == "stop" else docker_place.crash(handle)
    eventually(lambda: docker_place.container(handle).status == "exited", within_s=LONG_S)
    second, on_exit = docker_place.daemon(), Exits()
    told = second.adopt(spec, on_exit)
    assert told is not None
    assert (told.run, told.container_id) == (1, handle.container_id)
    (status,) = on_exit.seen
    assert status.code == (143 if act == "stop" else 137)
    if act == "crash" or remembers_kill(docker_place.client, str(handle.container_id)):
        assert (status.cause, status.stopped_by_hand) == (cause, act == "stop")
    assert second.adopt(spec, Exits()) is None, "it is told once"
    third = docker_place.daemon()
    assert third.adopt(spec, Exits()) is None, "nor again by the daemon after"


def test_after_an_end_that_no_daemon_saw_another_spec_has_another_container(docker_place: DockerPlace) -> None:
    first, spec = docker_place.daemon(), docker_place.spec("a", RUNS)
    handle = first.launch(spec, 1, Exits())
    first.close()
    docker_place.crash(handle)
    eventually(lambda: docker_place.container(handle).status == "exited", within_s=LONG_S)
    changed, second, on_exit = docker_place.spec("a", RUNS, environment={"NEW": "1"}), docker_place.daemon(), Exits()
    assert second.adopt(changed, on_exit) is not None
    assert on_exit.one().cause == "signal SIGKILL"
    again = second.launch(changed, 2, Exits())
    assert "NEW=1" in docker_place.container(again).attrs["Config"]["Env"]
    assert len(docker_place.ours()) == 1


def test_a_container_removed_while_no_daemon_lived_is_a_known_end(docker_place: DockerPlace) -> None:
    first, spec = docker_place.daemon(), docker_place.spec("a", RUNS)
    handle = first.launch(spec, 1, Exits())
    first.close()
    docker_place.container(handle).remove(force=True)
    on_exit = Exits()
    assert docker_place.daemon().adopt(spec, on_exit) is not None
    assert [status.cause for status in on_exit.seen] == ["container removed"]


def test_a_paused_container_is_alive_and_can_be_stopped(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    docker_place.wait_ready(handle)
    docker_place.container(handle).pause()
    runtime.reconcile()
    assert on_exit.seen == []
    assert runtime.stop(handle, 1.0).asked


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_trap_31_a_name_taken_by_a_stranger(docker_place: DockerPlace) -> None:
    spec = docker_place.spec("a", RUNS)
    stranger = docker_place.stranger(RUNS, name=container_name(spec.service))
    stranger.start()
    runtime = docker_place.daemon()
    assert runtime.adopt(spec, Exits()) is None
    with pytest.raises(LaunchError, match=f"taken by container {str(stranger.id)[:12]}, which is not ours"):
        runtime.launch(spec, 1, Exits())
    stranger.reload()
    assert stranger.status == "running"
    assert docker_place.ours() == []


def test_a_name_that_is_just_being_given_back_is_waited_for(
    docker_place: DockerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine forgets a removed container before its name: between the two the name is taken by nobody."""
    runtime, spec = docker_place.daemon(), docker_place.spec("svc", RUNS)
    going, refused = docker_place.stranger(RUNS, name=container_name(spec.service)), list[APIError]()

    def asked(engine: DockerEngine, act: Callable[[DockerClient], object]) -> object:
        try:
            return ask(engine, act)
        except APIError as error:
            if error.status_code == 409 and not refused:
                refused.append(error)
                going.remove(force=True)
            raise

    ask = DockerEngine.ask
    monkeypatch.setattr(DockerEngine, "ask", asked)
    handle = runtime.launch(spec, 1, Exits())
    assert len(refused) == 1
    assert docker_place.container(handle).name == container_name(spec.service)


def test_another_instance_is_a_stranger(docker_place: DockerPlace, tmp_path: Path) -> None:
    spec = docker_place.spec("a", RUNS)
    handle = docker_place.daemon().launch(spec, 1, Exits())
    (tmp_path / "other").mkdir()
    other = DockerPlace(tmp_path / "other")
    try:
        runtime = other.daemon()
        assert runtime.adopt(spec, Exits()) is None
        with pytest.raises(LaunchError, match="not ours"):
            runtime.launch(spec, 1, Exits())
    finally:
        other.close()
    assert docker_place.is_alive(handle)


@pytest.mark.parametrize("fault", ["port", "network"])
def test_trap_30_a_container_that_cannot_start_is_not_left(docker_place: DockerPlace, fault: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"127.0.0.1:{taken.getsockname()[1]}:80"
        container = {
            "port": ContainerSpec(image=IMAGE, ports=(port,)),
            "network": ContainerSpec(image=IMAGE, network="selfheal-no-such-network"),
        }[fault]
        runtime = docker_place.daemon()
        words = {"port": "address already in use", "network": "selfheal-no-such-network"}[fault]
        with pytest.raises(LaunchError, match=words):
            runtime.launch(docker_place.spec("a", RUNS, container=container), 1, Exits())
    assert docker_place.ours() == []


def test_a_missing_program_shows_in_the_exit_and_the_log(docker_place: DockerPlace) -> None:
    """With an init as PID 1 the container does start."""
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", ("no-such-program",)), 1, on_exit)
    assert on_exit.one().code == 127
    assert "no-such-program" in runtime.log_tail(handle, 1)[0]


def test_what_the_sdk_refuses_is_a_failed_start_and_no_engine_away(docker_place: DockerPlace) -> None:
    container = ContainerSpec(image=IMAGE, network="host", ports=("8080:80",))
    with pytest.raises(
        LaunchError, match=r"Docker cannot create its container: .*network_mode.*incompatible"
    ) as refused:
        docker_place.daemon().launch(docker_place.spec("a", RUNS, container=container), 1, Exits())
    assert not isinstance(refused.value, TruthUnknown)
    assert docker_place.ours() == []


def test_a_missing_image_is_not_pulled(docker_place: DockerPlace) -> None:
    spec = docker_place.spec("a", RUNS, container=ContainerSpec(image="selfheal-no-such-image:1"))
    with pytest.raises(LaunchError, match="run `docker pull selfheal-no-such-image:1`") as refused:
        docker_place.daemon().launch(spec, 1, Exits())
    assert refused.value.permanent


def test_another_spec_replaces_the_container_of_the_old_one(docker_place: DockerPlace) -> None:
    first = docker_place.daemon()
    handle = first.launch(docker_place.spec("a", RUNS), 1, Exits())
    first.close()
    second = docker_place.daemon()
    changed = docker_place.spec("a", RUNS, environment={"NEW": "1"})
    assert second.adopt(changed, Exits()) is None
    again = second.launch(changed, 2, Exits())
    assert again.container_id != handle.container_id
    assert [container.id for container in docker_place.ours()] == [again.container_id]
    with pytest.raises(NotFound):
        docker_place.container(handle)


def test_a_stopped_container_of_the_same_spec_is_started_by_the_next_daemon(docker_place: DockerPlace) -> None:
    first, spec = docker_place.daemon(), docker_place.spec("a", RUNS)
    handle = first.launch(spec, 1, Exits())
    first.stop(handle, 5.0)
    first.close()
    again = docker_place.daemon().launch(spec, 2, Exits())
    assert again.container_id == handle.container_id


def test_what_a_container_gets(docker_place: DockerPlace) -> None:
    spec = docker_place.spec("a", RUNS, environment={"GREETING": "hello"}, memory_bytes=32 * 1024 * 1024)
    handle = docker_place.daemon().launch(spec, 5, Exits())
    inspected = docker_place.container(handle).attrs
    assert "GREETING=hello" in inspected["Config"]["Env"]
    assert inspected["Config"]["Labels"]["selfheal.run"] == "5"
    assert inspected["Config"]["Labels"][LABEL_SPEC_HASH]
    host = inspected["HostConfig"]
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert host["Init"] is True
    assert host["Memory"] == 32 * 1024 * 1024
    assert host["LogConfig"]["Config"] == {"max-file": "4", "max-size": str(10 * 1024 * 1024)}


def test_the_last_lines_of_a_container(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", ("sh", "-c", "echo one; echo two; echo three")), 1, on_exit)
    on_exit.one()
    assert runtime.log_tail(handle, 2) == ("two", "three")


# -- attached containers ----------------------------------------------------------------------------------------------


def test_attached_by_name_it_is_started_stopped_and_never_removed(docker_place: DockerPlace) -> None:
    theirs = docker_place.stranger(RUNS)
    spec = docker_place.spec("a", (), container=ContainerSpec(attach_name=theirs.name))
    runtime, on_exit = docker_place.daemon(), Exits()
    assert runtime.adopt(spec, Exits()) is None  # it is there, but does not run
    handle = runtime.launch(spec, 1, on_exit)
    assert handle.container_id == theirs.id
    docker_place.wait_ready(handle)
    docker_place.crash(handle)
    on_exit.one()
    again = runtime.launch(spec, 2, Exits())
    assert again.container_id == theirs.id
    runtime.stop(again, 5.0)
    theirs.reload()
    assert theirs.status == "exited"


def test_attached_and_unable_to_start_it_is_left_alone(docker_place: DockerPlace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        theirs = docker_place.stranger(RUNS, network_mode="bridge", ports={"80/tcp": ("127.0.0.1", port)})
        spec = docker_place.spec("a", (), container=ContainerSpec(attach_name=theirs.name))
        with pytest.raises(LaunchError, match="address already in use"):
            docker_place.daemon().launch(spec, 1, Exits())
    theirs.reload()
    assert theirs.status == "created"


def test_attached_by_compose_labels_while_it_runs(docker_place: DockerPlace) -> None:
    labels = {"com.docker.compose.project": f"p-{docker_place.id}", "com.docker.compose.service": "redis"}
    theirs = docker_place.stranger(RUNS, labels=labels)
    docker_place.stranger(RUNS, labels={**labels, "com.docker.compose.oneoff": "True"})
    theirs.start()
    container = ContainerSpec(compose_project=f"p-{docker_place.id}", compose_service="redis")
    spec = docker_place.spec("a", (), container=container)
    runtime, on_exit = docker_place.daemon(), Exits()
    adopted = runtime.adopt(spec, on_exit)
    assert adopted is not None
    assert (adopted.container_id, adopted.run) == (theirs.id, 1)
    theirs.kill()
    assert on_exit.one().cause == "docker kill"


def test_several_compose_containers_are_refused(docker_place: DockerPlace) -> None:
    labels = {"com.docker.compose.project": f"p-{docker_place.id}", "com.docker.compose.service": "web"}
    for _ in range(2):
        docker_place.stranger(RUNS, labels=labels)
    container = ContainerSpec(compose_project=f"p-{docker_place.id}", compose_service="web")
    with pytest.raises(LaunchError, match="several containers"):
        docker_place.daemon().adopt(docker_place.spec("a", (), container=container), Exits())


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (ContainerSpec(attach_name="selfheal-nobody"), "no container 'selfheal-nobody' to attach to"),
        (ContainerSpec(compose_project="nop", compose_service="s"), "compose project 'nop' has no container"),
    ],
)
def test_nothing_to_attach_to_is_said(docker_place: DockerPlace, container: ContainerSpec, words: str) -> None:
    with pytest.raises(LaunchError, match=words) as refused:
        docker_place.daemon().launch(docker_place.spec("a", (), container=container), 1, Exits())
    assert not refused.value.permanent


def test_trap_34_a_restart_from_outside_ends_the_run_we_knew(docker_place: DockerPlace) -> None:
    theirs = docker_place.stranger(RUNS)
    theirs.start()
    spec = docker_place.spec("a", (), container=ContainerSpec(attach_name=theirs.name))
    runtime, on_exit = docker_place.daemon(), Exits()
    adopted = runtime.adopt(spec, on_exit)
    assert adopted is not None
    theirs.restart(timeout=1)
    on_exit.one()
    again = runtime.launch(spec, adopted.run + 1, Exits())
    assert docker_place.is_alive(again)
    assert again.identity != adopted.identity


# -- the engine is away -----------------------------------------------------------------------------------------------


@pytest.fixture
def wire(docker_place: DockerPlace, tmp_path: Path) -> Iterator[UnixProxy]:
    assert docker_place.id
    proxy = UnixProxy(tmp_path / "docker.sock", "/var/run/docker.sock")
    yield proxy
    proxy.close()


def over(wire: UnixProxy, place: DockerPlace, *, reconcile_s: float = 0.5) -> DockerRuntime:
    """A daemon whose way to the engine can be cut."""

    address = f"unix://{wire.path}"
    watcher = DockerWatcher(DockerEngine(address), reconcile_s=reconcile_s)
    return place.daemon(address=address, watcher=watcher)


def test_trap_32_no_engine_at_all(docker_place: DockerPlace, tmp_path: Path) -> None:
    wire = UnixProxy(tmp_path / "docker.sock", "/var/run/docker.sock")
    wire.close()
    runtime, spec = over(wire, docker_place), docker_place.spec("a", RUNS)
    with pytest.raises(TruthUnknown, match=r"Docker engine not reachable at .*: start it"):
        runtime.launch(spec, 1, Exits())
    with pytest.raises(TruthUnknown):
        runtime.adopt(spec, Exits())
    eventually(lambda: runtime.trouble is not None and "not reachable" in runtime.trouble, within_s=LONG_S)


def test_trap_28_an_engine_away_is_not_a_dead_container(docker_place: DockerPlace, wire: UnixProxy) -> None:
    runtime, on_exit = over(wire, docker_place), Exits()
    spec = docker_place.spec("a", RUNS)
    handle = runtime.launch(spec, 1, on_exit)
    wire.cut()
    eventually(lambda: runtime.trouble, within_s=LONG_S)
    holds_for(lambda: not on_exit.seen, 1.5)
    with pytest.raises(LaunchError, match="already runs"):
        runtime.launch(spec, 2, Exits())
    with pytest.raises(StopFailed, match="not reachable"):
        runtime.stop(handle, 1.0)
    wire.mend()
    eventually(lambda: runtime.trouble is None, within_s=LONG_S)
    assert docker_place.is_alive(handle)
    assert on_exit.seen == []


def test_trap_26_the_stream_ends_silently_and_is_opened_again(docker_place: DockerPlace, wire: UnixProxy) -> None:
    runtime, on_exit = over(wire, docker_place, reconcile_s=300), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    docker_place.wait_ready(handle)
    wire.cut()
    wire.mend()
    eventually(lambda: runtime.watcher.events_of(handle.container_id), within_s=LONG_S)
    docker_place.container(handle).kill()
    assert on_exit.one().code == 137


def test_trap_27_a_death_during_the_outage_is_noticed_afterwards(docker_place: DockerPlace, wire: UnixProxy) -> None:
    runtime, on_exit = over(wire, docker_place), Exits()
    handle = runtime.launch(
        docker_place.spec("a", ("sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done")), 1, on_exit
    )
    docker_place.wait_ready(handle)
    wire.cut()
    eventually(lambda: runtime.trouble, within_s=LONG_S)
    docker_place.container(handle).stop()
    assert on_exit.seen == []
    wire.mend()
    assert on_exit.one().code == 6


class Deaf(DockerWatcher):
    """Takes no event at all."""

    def _take(self, raw: dict[str, Any]) -> None:
        assert raw


def test_a_lost_event_is_found_by_reconcile(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(watcher=Deaf(reconcile_s=0.3)), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    docker_place.wait_ready(handle)
    docker_place.crash(handle)
    assert on_exit.one().code == 137


class Listening(Unheard):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.again: list[tuple[str, float]] = []
        self.said: list[tuple[str, str]] = []

    def runs_again(self, service: str, started_at: float) -> None:
        self.again.append((service, started_at))

    def happened(self, service: str, event: str, text: str) -> None:
        self.said.append((event, text))


@pytest.mark.parametrize("watcher", [DockerWatcher, Deaf], ids=["event", "reconcile"])
def test_a_run_that_somebody_else_began_is_told_once(docker_place: DockerPlace, watcher: type[DockerWatcher]) -> None:
    runtime = docker_place.daemon(watcher=watcher(reconcile_s=0.3))
    runtime.outside.listener = told = Listening()
    spec = docker_place.spec("a", RUNS)
    handle = runtime.launch(spec, 1, Exits())
    runtime.stop(handle, 5.0)
    holds_for(lambda: not told.again, 0.7)
    docker_place.container(handle).start()
    eventually(lambda: told.again, within_s=LONG_S)
    holds_for(lambda: len(told.again) == 1, 0.7)
    adopted = runtime.adopt(spec, Exits())
    assert adopted is None, "the run that ended is not the one that was begun"
    again = runtime.launch(spec, 2, Exits())
    assert (again.container_id, again.started_at) == (handle.container_id, told.again[0][1])


def test_attached_and_made_anew_while_no_daemon_lived_it_is_a_new_run(docker_place: DockerPlace) -> None:
    theirs = docker_place.stranger(RUNS)
    theirs.start()
    spec = docker_place.spec("a", (), container=ContainerSpec(attach_name=theirs.name))
    first = docker_place.daemon()
    adopted = first.adopt(spec, Exits())
    assert adopted is not None
    first.close()
    theirs.remove(force=True)
    anew = docker_place.stranger(RUNS, name=theirs.name)
    anew.start()
    again = docker_place.daemon().adopt(spec, Exits())
    assert again is not None
    assert (again.run, again.container_id) == (adopted.run + 1, anew.id)
    record = docker_place.ledger.record(spec.service)
    assert (record.restarts, (record.last_exit or {}).get("cause")) == (1, "restarted from outside")


def test_our_own_pause_is_nobody_elses(docker_place: DockerPlace) -> None:
    runtime, seen = docker_place.daemon(watcher=DockerWatcher(reconcile_s=300)), list[Observed]()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, Exits())
    runtime.outside.is_paused_by_us = lambda service: service == handle.service
    runtime.observe(handle, seen.append)
    container = docker_place.container(handle)
    container.pause()
    eventually(lambda: any(one.action == "pause" for one in runtime.watcher.events_of(str(container.id))))
    runtime.reconcile()
    assert seen == [Observed()]


def test_what_is_seen_of_a_run_is_told_to_whoever_looks(docker_place: DockerPlace) -> None:
    runtime, seen = docker_place.daemon(watcher=DockerWatcher(reconcile_s=300)), list[Observed]()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, Exits())
    runtime.observe(handle, seen.append)
    assert seen == [Observed()]
    container = docker_place.container(handle)
    container.pause()
    eventually(lambda: seen[-1].paused == "paused from outside (docker pause)", within_s=LONG_S)
    container.unpause()
    eventually(lambda: seen[-1] == Observed(), within_s=LONG_S)
    policy: Any = {"Name": "always"}
    container.update(restart_policy=policy)
    eventually(lambda: "restart policy always" in (seen[-1].drift or ""), within_s=LONG_S)


def test_an_engine_that_hangs_is_one_that_is_away(
    docker_place: DockerPlace, wire: UnixProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.runtimes.docker_engine.TIMEOUT_S", 2)
    runtime, on_exit, seen = over(wire, docker_place), Exits(), list[Observed]()
    spec = docker_place.spec("a", RUNS)
    handle = runtime.launch(spec, 1, on_exit)
    runtime.observe(handle, seen.append)
    wire.hang()
    eventually(lambda: "overloaded or hung" in (seen[-1].unknown or ""), within_s=LONG_S)
    with pytest.raises(TruthUnknown):
        runtime.launch(docker_place.spec("b", RUNS), 1, Exits())
    wire.mend()
    eventually(lambda: runtime.trouble is None and seen[-1] == Observed(), within_s=LONG_S)
    assert on_exit.seen == []
    docker_place.crash(handle)
    assert on_exit.one().code == 137


def test_a_kill_that_the_engine_did_not_hear_is_carried_out_later(docker_place: DockerPlace, wire: UnixProxy) -> None:
    runtime, on_exit = over(wire, docker_place), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    wire.cut()
    with pytest.raises(StopFailed, match="killed when the engine is back"):
        runtime.kill(handle)
    assert docker_place.is_alive(handle)
    wire.mend()
    assert on_exit.one().asked


def test_an_intent_without_an_identity_finds_its_container(docker_place: DockerPlace) -> None:
    """The daemon died between the container's start and the record of it."""
    spec = docker_place.spec("a", RUNS)
    first = docker_place.daemon()
    handle = first.launch(spec, 1, Exits())
    first.close()
    docker_place.ledger.intent(spec.service, 1, "docker", "")
    adopted = docker_place.daemon().adopt(spec, Exits())
    assert adopted is not None
    assert (adopted.run, adopted.container_id, adopted.started_at) == (1, handle.container_id, handle.started_at)


def test_trap_34_a_restart_from_outside_is_found_by_reconcile(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(watcher=Deaf(reconcile_s=300)), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    docker_place.container(handle).restart(timeout=1)
    runtime.reconcile()
    assert on_exit.one().cause == "restarted from outside"


def test_a_late_event_of_an_older_run_ends_nothing(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", RUNS), 1, on_exit)
    runtime.container_event(ContainerEvent(handle.container_id, "die", handle.started_at - 1, exit_code=1))
    assert on_exit.seen == []
    assert docker_place.is_alive(handle)


class Early(DockerWatcher):
    """Hears of a death before the launch has returned, when the table does not know the run yet."""

    def _take(self, raw: dict[str, Any]) -> None:
        event = read_event(raw)
        assert event is not None
        with self._lock:
            self._recent.append(event)

    def events_of(self, container_id: str) -> list[ContainerEvent]:
        def has_died() -> bool:
            return any(event.action == "die" for event in super(Early, self).events_of(container_id))

        eventually(has_died, within_s=LONG_S)
        return super().events_of(container_id)


def test_a_death_while_the_launch_is_under_way_is_told(docker_place: DockerPlace) -> None:
    runtime, on_exit = docker_place.daemon(watcher=Early(reconcile_s=300)), Exits()
    eventually(lambda: runtime.watcher._stream is not None)
    runtime.launch(docker_place.spec("a", ("sh", "-c", "sleep 1; exit 3")), 1, on_exit)
    assert [status.code for status in on_exit.seen] == [3]


def test_trap_33_an_idle_stream_does_not_delay_the_end(docker_place: DockerPlace) -> None:
    runtime = docker_place.daemon()
    eventually(lambda: runtime.watcher.is_running and runtime.watcher._stream is not None)
    began = time.monotonic()
    runtime.watcher.close()
    assert time.monotonic() - began < 4
    assert not runtime.watcher.is_running


def test_one_image_serves_all_tests(docker_place: DockerPlace) -> None:
    assert docker_place.client.images.get(IMAGE).tags == [IMAGE]


# -- settings and variables -------------------------------------------------------------------------------------------


def test_a_container_gets_its_limits_and_its_user(docker_place: DockerPlace) -> None:
    settings = ProcessSettings((Limit("nofile", 64, 128),), user="1234", group="2345")
    command = ("sh", "-c", "ulimit -n; ulimit -Hn; cat /proc/self/status")
    runtime, on_exit = docker_place.daemon(), Exits()
    handle = runtime.launch(docker_place.spec("a", command, settings=settings), 1, on_exit)
    assert on_exit.one().code == 0
    lines = docker_place.container(handle).logs().decode().splitlines()
    assert lines[:2] == ["64", "128"]
    ids = {line.split()[0]: line.split()[1] for line in lines if line.startswith(("Uid:", "Gid:"))}
    assert ids == {"Uid:": "1234", "Gid:": "2345"}


def test_a_changed_environment_file_counts_at_the_next_start_and_not_before(
    docker_place: DockerPlace, tmp_path: Path
) -> None:
    file = tmp_path / "env"
    file.write_text("WORD=one\n")
    sources = EnvironmentSources((EnvironmentFile(file),))
    spec = docker_place.spec("a", ("sh", "-c", "echo $WORD; exec sleep 1000"), sources=sources)
    first = docker_place.daemon()
    handle = first.launch(spec, 1, Exits())
    first.close()
    file.write_text("WORD=two\n")
    second = docker_place.daemon()
    adopted = second.adopt(spec, Exits())
    assert adopted is not None
    assert adopted.container_id == handle.container_id  # a running one is left as it is
    second.stop(adopted, 1.0)
    again = second.launch(spec, 2, Exits())
    assert again.container_id != handle.container_id
    eventually(lambda: docker_place.container(again).logs() == b"two\n", within_s=LONG_S)
    second.stop(again, 1.0)
    assert second.launch(spec, 3, Exits()).container_id == again.container_id  # nothing changed: the same container
    file.unlink()
    with pytest.raises(LaunchError, match=f"environment file {file} does not exist"):
        docker_place.daemon().launch(replace(spec, service=f"b-{docker_place.id}"), 1, Exits())
