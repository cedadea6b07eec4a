"""The file is edited while no daemon lives, or the daemon dies within an apply: what lives is what it says."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from docker import DockerClient

from actors.failpoints import DAEMON_VARIABLE, NOTES_VARIABLE
from supervisors.manager import DaemonUnreachable
from supervisors.remote import Base, RemoteManager
from tests.support.docker_engine import IMAGE
from tests.support.eventually import eventually, holds_for
from tests.support.unix_proxy import UnixProxy
from tests.system.running import SLEEPER, daemon, of_state, write_config
from tests.system.test_daemon_death import killed

LONG_S = 60.0
KEEPER_S = 1.0
"""The keeper starts an armed service again at once: by then it would have."""
pytestmark = pytest.mark.timeout(240)


def box(seconds: str = "1000", **more: Any) -> dict[str, Any]:
    words = ["sleep", seconds]
    return {"runtime": "docker", "image": IMAGE, "command": words, "graceful_shutdown_timeout": "1s"} | more


def sleeper(seconds: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sleep", seconds]} | more


def commands(state: Path, name: str) -> list[str]:
    """What each living process of the service runs."""
    found = [one for one in of_state(state) if one.environ().get("SELFHEAL_SERVICE") == name]
    return [" ".join(one.cmdline()) for one in found]


def living(engine: DockerClient, tag: str) -> list[str]:
    """What each running container with the tag in its name runs."""
    found = [one for one in engine.containers.list(ignore_removed=True) if tag in (one.name or "")]
    return [" ".join(one.attrs["Config"]["Cmd"] or ()) for one in found]


# -- another runtime --------------------------------------------------------------------------------------------------


@pytest.mark.docker
def test_who_changes_the_runtime_while_no_daemon_lives_is_there_once(
    engine: DockerClient, tag: str, tmp_path: Path
) -> None:
    p, c, state = f"{tag}-p", f"{tag}-c", tmp_path / "state"
    config = write_config(tmp_path, {p: sleeper("9001"), c: box("9002"), "b": SLEEPER})
    with daemon(config, state) as first:
        before = first.until_ready(within_s=LONG_S)
        killed(first)
        write_config(tmp_path, {p: box("9001"), c: sleeper("9002"), "b": SLEEPER})
        with daemon(config, state) as second:
            after = second.until_ready(within_s=LONG_S)
            assert (living(engine, tag), commands(state, p), commands(state, c)) == (["sleep 9001"], [], ["sleep 9002"])
            assert [after[name]["restarts"] for name in (p, c, "b")] == [0, 0, 0]
            assert after["b"]["pid"] == before["b"]["pid"]
            holds_for(lambda: commands(state, p) == [], KEEPER_S)
            killed(second)
            write_config(tmp_path, {p: sleeper("9001"), c: box("9002"), "b": SLEEPER})
            with daemon(config, state) as third:
                back = third.until_ready(within_s=LONG_S)
                assert (living(engine, tag), commands(state, p), commands(state, c)) == (
                    ["sleep 9002"],
                    ["sleep 9001"],
                    [],
                )
                assert back["b"]["pid"] == before["b"]["pid"]
                assert third.stop() == 0
                assert (living(engine, tag), of_state(state)) == ([], [])


@pytest.mark.docker
def test_a_death_in_the_middle_of_an_apply_that_changes_the_runtime(
    engine: DockerClient, tag: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {tag: sleeper("9001"), "b": SLEEPER})
    armed = {DAEMON_VARIABLE: "daemon.stop.wanted", NOTES_VARIABLE: str(tmp_path)}
    with daemon(config, state, environment=armed) as first:
        kept = first.until_ready()["b"]["pid"]
        write_config(tmp_path, {tag: box("9001"), "b": SLEEPER})
        with RemoteManager(Base(state_dir=state)) as manager, pytest.raises(DaemonUnreachable):
            manager.apply(by="ann")
        assert first.process.wait(30) == -signal.SIGKILL
        for one in of_state(state):
            if one.environ().get("SELFHEAL_SERVICE") == tag:  # an armed one is started again by the keeper
                one.kill()
        with daemon(config, state) as second:
            after = second.until_ready(within_s=LONG_S)
            assert (living(engine, tag), commands(state, tag)) == (["sleep 9001"], [])
            assert after["b"]["pid"] == kept
            holds_for(lambda: commands(state, tag) == [], KEEPER_S)


@pytest.mark.docker
def test_between_an_image_an_attached_container_and_a_process(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    """Somebody else's container is stopped, as an apply would, and stays where it is."""
    state, name = tmp_path / "state", f"{tag}-s"
    theirs = engine.containers.create(IMAGE, ["sleep", "9003"], name=f"{tag}-theirs", init=True)
    attached = {"runtime": "docker", "container": f"{tag}-theirs", "graceful_shutdown_timeout": "1s"}
    kinds = {"image": box("9002"), "attached": attached, "process": sleeper("9001")}
    lives = {"image": (["sleep 9002"], []), "attached": (["sleep 9003"], []), "process": ([], ["sleep 9001"])}
    for kind in ("image", "attached", "process", "attached", "image"):
        config = write_config(tmp_path, {name: kinds[kind]})
        with daemon(config, state) as running:
            running.until_ready(within_s=LONG_S)
            assert (living(engine, tag), commands(state, name)) == lives[kind], kind
            killed(running)
    theirs.reload()
    assert theirs.status == "exited"
    with daemon(config, state) as last:
        last.until_ready(within_s=LONG_S)


@pytest.mark.docker
def test_a_stop_by_hand_ends_the_run_of_the_runtime_before(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    """A person stopped it, the daemon died before it was down, and the file says something else by now."""
    theirs = engine.containers.create(IMAGE, ["sleep", "9003"], name=f"{tag}-theirs")
    state = tmp_path / "state"
    config = write_config(tmp_path, {tag: SLEEPER})
    with daemon(config, state) as first:
        first.until_ready()
        killed(first)
        stop = {"is": "desired", "service": tag, "stopped": {"by": "ann", "at": 1.0, "why": ""}, "paused": None}
        with (state / "ledger.jsonl").open("a", encoding="ascii") as ledger:
            ledger.write(json.dumps(stop) + "\n")
        write_config(tmp_path, {tag: {"runtime": "docker", "container": theirs.name}})
        with daemon(config, state) as second:
            eventually(lambda: commands(state, tag) == [], within_s=LONG_S)
            assert second.services()[tag]["state"] == "stopped"


@pytest.mark.docker
def test_a_process_that_only_the_keeper_knows_is_ended_too(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    """The record of it is lost, and the file wants a container."""
    state = tmp_path / "state"
    config = write_config(tmp_path, {tag: sleeper("9001"), "b": SLEEPER})
    with daemon(config, state) as first:
        kept = first.until_ready()["b"]["pid"]
        killed(first)
        (state / "ledger.jsonl").unlink()
        write_config(tmp_path, {tag: box("9001"), "b": SLEEPER})
        with daemon(config, state) as second:
            assert second.until_ready(within_s=LONG_S)["b"]["pid"] == kept
            assert (living(engine, tag), commands(state, tag)) == (["sleep 9001"], [])
            holds_for(lambda: commands(state, tag) == [], KEEPER_S)


@pytest.mark.docker
def test_nothing_is_started_while_nobody_can_tell_of_the_container_before(
    engine: DockerClient, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {tag: box("9001")})
    with closing(UnixProxy(tmp_path / "engine.sock", "/var/run/docker.sock")) as proxy:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{proxy.path}")
        with daemon(config, state) as first:
            first.until_ready(within_s=LONG_S)
            killed(first)
            write_config(tmp_path, {tag: sleeper("9001")})
            proxy.cut()
            with daemon(config, state, wait=False) as second:
                eventually(lambda: second.services()[tag]["state"] == "unknown", within_s=LONG_S)
                assert "not reachable" in second.services()[tag]["detail"]
                holds_for(lambda: commands(state, tag) == [], KEEPER_S)
                assert living(engine, tag) == ["sleep 9001"]
                proxy.mend()
                second.until_ready(within_s=LONG_S)
                assert (living(engine, tag), commands(state, tag)) == ([], ["sleep 9001"])


# -- another command --------------------------------------------------------------------------------------------------


def test_a_command_edited_while_no_daemon_lives_is_what_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": sleeper("9001"), "b": SLEEPER})
    with daemon(config, state) as first:
        before = first.until_ready()
        killed(first)
        write_config(tmp_path, {"a": sleeper("9002"), "b": SLEEPER | {"max_restarts": 9}})
        with daemon(config, state) as second:
            after = second.until_ready()
            assert commands(state, "a") == ["sleep 9002"]
            assert (after["a"]["restarts"], after["b"]["pid"]) == (0, before["b"]["pid"])
            assert after["a"]["last_exit"]["cause"] == "ended: the file had been edited"
            with RemoteManager(Base(state_dir=state)) as manager:
                assert manager.plan()["empty"]
            killed(second)
            with daemon(config, state) as third:
                assert third.until_ready()["a"]["pid"] == after["a"]["pid"], "only once"


def test_a_successor_of_the_keeper_is_of_before_the_edit_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": sleeper("9001")})
    with daemon(config, state) as first:
        pid = first.until_ready()["a"]["pid"]
        eventually(lambda: '"is":"ready"' in (state / "ledger.jsonl").read_text().replace(" ", ""))
        killed(first)
        psutil.Process(pid).kill()
        eventually(lambda: pid not in (now := [one.pid for one in of_state(state)]) and len(now) == 1)
        write_config(tmp_path, {"a": sleeper("9002")})
        with daemon(config, state) as second:
            assert second.until_ready()["a"]["restarts"] == 1
            assert commands(state, "a") == ["sleep 9002"]
            holds_for(lambda: commands(state, "a") == ["sleep 9002"], KEEPER_S)


def test_a_death_in_the_middle_of_an_apply_that_changes_the_command(tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": sleeper("9001"), "b": SLEEPER})
    armed = {DAEMON_VARIABLE: "daemon.stop.wanted", NOTES_VARIABLE: str(tmp_path)}
    with daemon(config, state, environment=armed) as first:
        first.until_ready()
        write_config(tmp_path, {"a": sleeper("9002"), "b": SLEEPER})
        with RemoteManager(Base(state_dir=state)) as manager, pytest.raises(DaemonUnreachable):
            manager.apply(by="ann")
        assert first.process.wait(30) == -signal.SIGKILL
        assert commands(state, "a") == ["sleep 9001"]
        with daemon(config, state) as second:
            second.until_ready()
            assert commands(state, "a") == ["sleep 9002"]


def test_a_run_without_a_hash_is_taken_as_it_is(tmp_path: Path) -> None:
    """It was begun by an older version of Selfheal: nobody knows what of."""
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": sleeper("9001")})
    with daemon(config, state) as first:
        pid = first.until_ready()["a"]["pid"]
        killed(first)
        ledger = state / "ledger.jsonl"
        entries = [json.loads(line) for line in ledger.read_text().splitlines() if line]
        assert [entry.pop("spec_hash") for entry in entries if "spec_hash" in entry]
        ledger.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        write_config(tmp_path, {"a": sleeper("9002")})
        with daemon(config, state) as second:
            assert second.until_ready()["a"]["pid"] == pid


def test_one_that_waits_for_another_does_not_wait_with_what_it_was(tmp_path: Path) -> None:
    """Its dependency is not ready: the run of before is ended all the same, and a stop leaves nothing behind."""
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": sleeper("9001"), "b": SLEEPER})
    never = {"tcp": "127.0.0.1:1", "interval": "200ms", "start_period": "100s"}
    with daemon(config, state) as first:
        first.until_ready()
        killed(first)
        edited = sleeper("9002", dependencies=["b"])
        write_config(tmp_path, {"a": edited, "b": sleeper("1001", health_check=never)})
        with daemon(config, state) as second:
            eventually(lambda: commands(state, "a") == [], within_s=LONG_S)
            assert second.services()["a"]["state"] == "waiting"
            assert second.call("services", "stop", "a").returncode == 0
            assert commands(state, "a") == []


def test_one_of_which_the_file_wants_none_any_more_is_ended(tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": sleeper("9001"), "b": SLEEPER})
    with daemon(config, state) as first:
        kept = first.until_ready()["b"]["pid"]
        killed(first)
        write_config(tmp_path, {"a": sleeper("9001", replicas=0), "b": SLEEPER})
        with daemon(config, state) as second:
            eventually(lambda: commands(state, "a") == [], within_s=LONG_S)
            assert second.until_ready("b")["b"]["pid"] == kept
            assert second.call("services", "scale", "a", "1").returncode == 0
            assert commands(state, "a") == ["sleep 9001"]
