"""Real services under the real daemon: crashed ones come back, the rest is untouched, nothing is left at the end."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from actors.log_rotation import OWN_BYTES, OWN_LOGS
from config import DEMO
from tests.support.eventually import eventually, holds_for
from tests.system.running import LINKS, SELFHEAL, SLEEPER, free_port, of_state, web_service, write_config
from tests.system.running import daemon as any_daemon

daemon = functools.partial(any_daemon, in_order=False)


def test_a_killed_service_is_back_with_a_new_pid_and_the_rest_is_untouched(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER, "c": web_service(free_port())})
    with daemon(config, tmp_path / "state") as selfheal:
        before = selfheal.until_ready()
        os.kill(before["a"]["pid"], signal.SIGKILL)
        after = eventually(lambda: _run(selfheal.services(), "a", 2))
        assert after["a"]["state"] == "ready"
        assert after["a"]["pid"] != before["a"]["pid"]
        assert after["a"]["restarts"] == 1
        assert after["a"]["last_exit"] == after["a"]["last_exit"] | {"cause": "signal SIGKILL", "signal": 9}
        for other in ("b", "c"):
            assert (after[other]["pid"], after[other]["restarts"]) == (before[other]["pid"], 0)


def _run(services: dict[str, Any], name: str, run: int) -> dict[str, Any] | None:
    one = services[name]
    return services if one["incarnation"] == run and one["state"] == "ready" else None


def test_rest_for_one_restarts_those_after_it_newest_first_then_in_order(tmp_path: Path) -> None:
    names = ["one", "two", "three", "four"]
    services = {name: web_service(free_port(), name) for name in names}
    groups = {"pipeline": {"strategy": "rest_for_one", "services": names}}
    with daemon(write_config(tmp_path, services, groups=groups), tmp_path / "state") as selfheal:
        before = selfheal.until_ready()
        os.kill(before["two"]["pid"], signal.SIGKILL)
        after = eventually(lambda: _run(selfheal.services(), "four", 2), within_s=20)
        assert after["one"]["pid"] == before["one"]["pid"]
        for name in names[1:]:
            assert after[name]["pid"] != before[name]["pid"]
            assert after[name]["restarts"] == 1
        assert after["three"]["last_exit"]["at"] > after["four"]["last_exit"]["at"] > after["two"]["last_exit"]["at"]
        for earlier, later in itertools.pairwise(names[1:]):
            assert after[earlier]["ready_since"] <= after[later]["since"], "the next starts when this one is ready"


def test_an_orderly_stop_ends_everything_newest_first_with_exit_0(tmp_path: Path) -> None:
    script = "import os,signal;signal.signal(15, lambda *_: (print('end', flush=True), os._exit(0)));signal.pause()"
    services = {name: {"command": [sys.executable, "-c", script]} for name in ("a", "b", "c")}
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, services), state) as selfheal:
        selfheal.until_ready()
        eventually(lambda: len(of_state(state)) == 3)
        assert selfheal.stop() == 0
        assert of_state(state) == []
        ended = [(state / "logs" / f"{name}.log").stat().st_mtime_ns for name in ("c", "b", "a")]
        assert ended == sorted(ended)


def test_selfheal_stop_ends_it_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {"a": SLEEPER}), state) as selfheal:
        selfheal.until_ready()
        assert selfheal.call("stop").returncode == 0
        assert selfheal.process.wait(20) == 0
        assert of_state(state) == []
        assert selfheal.call("tree").returncode == 4


def test_a_crash_loop_is_parked_and_shown_and_bystanders_go_on(tmp_path: Path) -> None:
    looping = {
        "command": [sys.executable, "-c", "print('no such table: orders'); raise SystemExit(3)"],
        "max_restarts": 2,
        "backoff": {"initial": "50ms", "max": "30s", "jitter": False},
    }
    with daemon(write_config(tmp_path, {"bad": looping, "good": SLEEPER}), tmp_path / "state") as selfheal:
        good = selfheal.pid("good")
        bad = eventually(lambda: _in_state(selfheal.services()["bad"], "crash_loop"))
        assert bad["last_exit"]["cause"] == "exit 3"
        assert selfheal.pid("good") == good
        shown = selfheal.call("tree")
        assert shown.returncode == 3
        assert "crash_loop" in shown.stdout.lower()
        assert "no such table: orders" in shown.stdout
        assert "good" not in selfheal.call("tree", "--only-bad").stdout
        assert "exit 3" in selfheal.call("why", "bad").stdout
        (alert,) = selfheal.json("alerts")["alerts"]
        assert (alert["type"], alert["service"], alert["source"]) == ("crash_loop", "bad", "selfheal")


def _in_state(service: dict[str, Any], state: str) -> dict[str, Any] | None:
    return service if service["state"] == state else None


def test_an_unhealthy_service_is_killed_and_restarted(tmp_path: Path) -> None:
    port = free_port()
    with daemon(write_config(tmp_path, {"web": web_service(port)}), tmp_path / "state") as selfheal:
        before = selfheal.until_ready()["web"]
        urllib.request.urlopen(f"http://127.0.0.1:{port}/fault/unhealthy", data=b"").close()
        after = eventually(lambda: _run(selfheal.services(), "web", 2), within_s=20)["web"]
        assert after["pid"] != before["pid"]
        assert "unhealthy" in after["last_exit"]["cause"]


def test_a_hung_service_is_killed_and_restarted(tmp_path: Path) -> None:
    port = free_port()
    web = web_service(port)
    web["health_check"] |= {"timeout": "300ms"}
    with daemon(write_config(tmp_path, {"web": web}), tmp_path / "state") as selfheal:
        pid = selfheal.until_ready()["web"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        after = eventually(lambda: _run(selfheal.services(), "web", 2), within_s=30)["web"]
        assert after["pid"] != pid


def test_a_service_waits_for_what_it_depends_on(tmp_path: Path) -> None:
    port = free_port()
    db = web_service(port, "db")
    db["command"] += ["--start-delay-s", "1.0"]
    app = SLEEPER | {"dependencies": ["db"]}
    with daemon(write_config(tmp_path, {"app": app, "db": db}), tmp_path / "state") as selfheal:
        services = selfheal.until_ready()
        assert services["db"]["ready_since"] <= services["app"]["since"]


def test_the_four_policies(tmp_path: Path) -> None:
    cases = [("never", 3, False), ("on_failure", 0, False), ("on_failure", 3, True), ("always", 0, True)]
    names = {f"{policy}-{code}".replace("_", "-"): (policy, code, comes_back) for policy, code, comes_back in cases}
    script = """import os, signal, sys
flag, code = sys.argv[1:]
if not os.path.exists(flag):
    open(flag, 'w').close()
    sys.exit(int(code))
signal.pause()"""
    services = {
        name: {
            "command": [sys.executable, "-c", script, str(tmp_path / f"{name}.flag"), str(code)],
            "restart_policy": policy,
        }
        for name, (policy, code, _) in names.items()
    }
    ended = {name: "failed" if code else "stopped" for name, (_, code, comes_back) in names.items() if not comes_back}
    with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
        after = selfheal.until_ready(*(name for name in names if name not in ended))
        assert all(after[name]["incarnation"] == 2 for name in names if name not in ended), after
        eventually(lambda: {name: selfheal.services()[name]["state"] for name in ended} == ended, every_s=0.05)
        holds_for(lambda: {selfheal.services()[name]["incarnation"] for name in ended} == {1}, 1.0, every_s=0.05)


def test_a_stop_by_hand_is_remembered_by_the_next_daemon_and_undone_by_start(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        selfheal.until_ready()
        assert selfheal.call("services", "stop", "a").returncode == 0
        assert selfheal.services()["a"]["state"] == "stopped"
        assert selfheal.call("tree").returncode == 0, "stopped by hand is not bad"
        selfheal.stop()
    with daemon(config, state) as selfheal:
        selfheal.until_ready("b")
        assert selfheal.services()["a"]["state"] == "stopped"
        assert selfheal.call("services", "start", "a").returncode == 0
        assert selfheal.services()["a"]["state"] == "ready"


def test_keep_services_leaves_them_to_the_next_daemon(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        pid = selfheal.until_ready()["a"]["pid"]
        assert selfheal.call("stop", "--keep-services").returncode == 0
        assert selfheal.process.wait(20) == 0
        assert [one.pid for one in of_state(state)] == [pid]
        with daemon(config, state) as next_one:
            assert next_one.until_ready()["a"]["pid"] == pid
            assert len(of_state(state)) == 1


def test_after_sigkill_of_the_daemon_the_next_one_adopts(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready()
        selfheal.process.kill()
        selfheal.process.wait()
        os.kill(before["b"]["pid"], signal.SIGKILL)
        with daemon(config, state) as next_one:
            after = next_one.until_ready()
            assert after["a"]["pid"] == before["a"]["pid"]
            assert after["b"]["pid"] != before["b"]["pid"]
            assert sorted(one.pid for one in of_state(state)) == sorted(one["pid"] for one in after.values())


def test_a_second_daemon_on_the_same_state_refuses_and_names_the_owner(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        pid = selfheal.until_ready()["a"]["pid"]
        with daemon(config, state, wait=False) as second:
            assert second.process.wait(20) == 1
            assert f"pid {selfheal.process.pid}" in second.log.read_text()
            assert selfheal.pid("a") == pid


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {"a": SLEEPER}), tmp_path / "first") as selfheal:
        address = selfheal.ready_line.split()[1].removeprefix("http://")
        links = LINKS | {"operator": {"address": address}}
        with daemon(write_config(tmp_path, {"b": SLEEPER}, links=links), state, wait=False) as second:
            assert second.process.wait(30) == 1
            said = second.log.read_text()
        assert address in said.splitlines()[-1]
        reached = (tmp_path / "first" / "guardian.address").read_text().strip()
        links = LINKS | {"guardian": {"address": reached}}
        with daemon(write_config(tmp_path, {"b": SLEEPER}, links=links), state, wait=False) as third:
            assert third.process.wait(30) == 1
            last = third.log.read_text().splitlines()[-1]
        assert last.endswith(
            f"guardian address {reached}: is in use by another program; change links.guardian.address"
        ), last
        assert last.count(reached) == 1
        assert not (state / "logs").exists(), "no service was started"
        assert of_state(state) == []


def test_a_broken_file_exits_2_with_every_problem(tmp_path: Path) -> None:
    config = tmp_path / "selfheal.yaml"
    config.write_text("services:\n  a: {comand: [x]}\n  b: {command: [x], dependencies: [c]}\nversion: 3\n")
    with daemon(config, tmp_path / "state", wait=False) as selfheal:
        assert selfheal.process.wait(20) == 2
        problems = selfheal.log.read_text()
    for line in ("selfheal.yaml:2: services.a.comand: unknown key", "services.b.dependencies[0]", "selfheal.yaml:4"):
        assert line in problems
    assert not (tmp_path / "state").exists()


def test_a_missing_program_is_said_and_tried_again_with_backoff(tmp_path: Path) -> None:
    bad = {"command": ["no-such-program"], "max_restarts": 1, "backoff": {"initial": "50ms", "max": "30s"}}
    with daemon(write_config(tmp_path, {"bad": bad}), tmp_path / "state") as selfheal:
        eventually(lambda: _in_state(selfheal.services()["bad"], "crash_loop"))
        assert "no-such-program" in selfheal.call("tree").stdout


def test_why_it_cannot_be_started_is_said_also_of_one_that_has_run_before(tmp_path: Path) -> None:
    variables = tmp_path / "variables.env"
    variables.write_text("A=1\n")
    service = SLEEPER | {"environment_files": [str(variables)], "max_restarts": 1, "backoff": {"initial": "50ms"}}
    with daemon(write_config(tmp_path, {"a": service}), tmp_path / "state") as selfheal:
        selfheal.until_ready()
        variables.unlink()
        done = selfheal.call("services", "restart", "a")
        assert (done.returncode, "variables.env" in done.stderr) == (1, True), done.stderr
        assert "variables.env" in selfheal.call("tree").stdout


def test_the_logs_of_a_service(tmp_path: Path) -> None:
    talker = {"command": [sys.executable, "-u", "-c", "print('hello'); print('there'); import signal; signal.pause()"]}
    with daemon(write_config(tmp_path, {"a": talker}), tmp_path / "state") as selfheal:
        eventually(lambda: selfheal.call("logs", "a").stdout == "hello\nthere\n")
        assert selfheal.call("logs", "a", "-n", "1").stdout == "there\n"
        wrong = selfheal.call("logs", "b")
        assert wrong.returncode == 1
        assert "'b'" in wrong.stderr


def test_a_services_log_is_rotated_while_it_writes(tmp_path: Path) -> None:
    script = (
        "import threading\nfor n in range(10**9):\n print('x' * 100, n, flush=True)\n threading.Event().wait(0.002)"
    )
    chatty = {"command": [sys.executable, "-c", script], "log": {"max_size": "8KiB", "backups": 2}}
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {"a": chatty}), state) as selfheal:
        eventually(lambda: len(list((state / "logs").glob("a.log.*"))) == 2, within_s=30)
        assert len(list((state / "logs").glob("a.log*"))) == 3
        last = selfheal.call("logs", "a", "-n", "1").stdout
        assert last.startswith("x" * 100)


def test_our_own_logs_are_rotated_too(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    for name in OWN_LOGS:
        with (state / name).open("ab") as log:
            log.truncate(OWN_BYTES + 1)
    with daemon(write_config(tmp_path, {"a": SLEEPER}), state):
        eventually(lambda: all((state / f"{name}.1").exists() for name in OWN_LOGS), within_s=30)
        eventually(lambda: all((state / name).stat().st_size < OWN_BYTES for name in OWN_LOGS), within_s=30)


@pytest.mark.xdist_group("shipped ports")
def test_the_demo_as_shipped(tmp_path: Path) -> None:
    """Ports are the demo's own, so this runs alone on a machine."""
    with daemon(DEMO, tmp_path / "state") as selfheal:
        selfheal.until_ready(within_s=40)
        selfheal.until_well()
        assert len(selfheal.services()) == 16
        simulator = [sys.executable, str(DEMO.parents[1] / "examples" / "bridge_simulator.py"), "--simulate-errors"]
        done = subprocess.run(
            [*simulator, "--state", str(selfheal.state)], check=False, capture_output=True, text=True, timeout=90
        )
        assert (done.returncode, "6 recovered, 0 not recovered" in done.stdout) == (0, True), done
        os.kill(selfheal.pid("mql4-peer"), signal.SIGUSR2)

        def was_reset() -> bool:
            newest = selfheal.get("/v1/executions")["executions"][0]
            steps = {step["id"]: step["status"] for step in newest["steps"]}
            return (newest["status"], steps.get("reset")) == ("succeeded", "succeeded")

        eventually(was_reset, within_s=30)
        assert selfheal.stop(signal.SIGINT) == 0
    assert of_state(tmp_path / "state") == []


def test_a_check_that_cannot_be_made_is_that_services_failure_only(tmp_path: Path) -> None:
    strange = SLEEPER | {"health_check": {"tcp": "a..b:80", "interval": "100ms", "retries": 2, "start_period": "0s"}}
    with daemon(write_config(tmp_path, {"strange": strange, "good": SLEEPER}), tmp_path / "state") as selfheal:
        pid = selfheal.until_ready("good")["good"]["pid"]
        eventually(lambda: selfheal.services()["strange"]["incarnation"] >= 2, within_s=20)
        assert selfheal.pid("good") == pid
        assert selfheal.process.poll() is None


def test_a_launch_that_nobody_can_carry_out_is_that_services_failure_only(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.env" for number in range(3)]
    for path in files:
        path.write_bytes(b"A" + path.stem.encode() + b"=" + b"\xff" * 1_000_000)
    more = {"max_restarts": 2, "backoff": {"initial": "20ms"}}
    services = {
        "huge": SLEEPER | {"environment_files": [str(path) for path in files]} | more,
        "nobody": SLEEPER | {"user": "no-such-user"} | more,
        "good": SLEEPER,
    }
    with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
        pid = selfheal.until_ready("good")["good"]["pid"]
        for name, words in (("huge", "too long for the keeper"), ("nobody", "no-such-user")):
            eventually(lambda name=name: _in_state(selfheal.services()[name], "crash_loop"), within_s=20)  # type: ignore[misc]
            assert words in selfheal.services()[name]["detail"]
        assert selfheal.pid("good") == pid
        assert selfheal.process.poll() is None


def test_a_log_reader_that_goes_away_disturbs_nobody(tmp_path: Path) -> None:
    """As with `selfheal run 2>&1 | head`."""
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    reads, writes = os.pipe()
    process = subprocess.Popen([*SELFHEAL, "run", "--config", str(config), "--state", str(state)], stderr=writes)
    os.close(writes)
    os.close(reads)
    try:
        first = eventually(lambda: of_state(state), within_s=20)[0].pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: [one.pid for one in of_state(state)] not in ([], [first]), within_s=20)
    finally:
        process.terminate()
    assert process.wait(20) == 0
    assert of_state(state) == []


def test_an_impatient_ctrl_c_leaves_no_process_either(tmp_path: Path) -> None:
    deaf = {"command": [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"]}
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {"deaf": deaf, "a": SLEEPER}), state) as selfheal:
        selfheal.until_ready()
        for _ in range(3):
            selfheal.process.send_signal(signal.SIGINT)
            holds_for(lambda: True, 0.1)
        selfheal.process.wait(20)
        assert of_state(state) == []
        assert (state / "ledger.jsonl").read_text().count('"launched"') == 2, "nobody is started again"


def test_a_closed_terminal_ends_it_in_order(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ours, theirs = os.openpty()
    try:
        with daemon(write_config(tmp_path, {"a": SLEEPER}), state, terminal=theirs) as selfheal:
            selfheal.until_ready()
            assert selfheal.stop(signal.SIGHUP) == 0
            assert of_state(state) == []
    finally:
        os.close(ours)
        os.close(theirs)


def test_slow_stops_do_not_stand_in_the_way_of_a_restart(tmp_path: Path) -> None:
    deaf = {
        "command": [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"],
        "graceful_shutdown_timeout": "6s",
    }
    services = {f"s{number}": deaf for number in range(40)} | {"victim": SLEEPER}
    with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
        pid = selfheal.until_ready(within_s=40)["victim"]["pid"]
        selfheal.call("services", "stop", "--all", "--no-wait")
        selfheal.call("services", "start", "victim")
        pid = selfheal.pid("victim")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: selfheal.services()["victim"].get("pid") not in (None, pid), within_s=4)
        eventually(lambda: selfheal.services()["s0"]["state"] == "stopped", within_s=30)


@pytest.mark.parametrize("who", ["a person", "a runbook"])
def test_a_stop_in_the_middle_of_a_restart_is_the_last_word(tmp_path: Path, who: str) -> None:
    """The service takes its time to end: meanwhile somebody else says that it shall stay down."""
    may_end = tmp_path / "may-end"
    waits = f"while [ ! -e {may_end} ]; do sleep 0.05; done; exit 0"
    slow = {
        "command": ["sh", "-c", f"trap '{waits}' TERM; echo ready; while :; do sleep 0.05; done"],
        "graceful_shutdown_timeout": "50s",
    }
    with daemon(write_config(tmp_path, {"a": slow}), tmp_path / "state") as selfheal:
        selfheal.until_ready()
        eventually(lambda: "ready" in selfheal.call("logs", "a").stdout)
        if who == "a person":
            words = ["services", "restart", "a", "--by", "ann"]
        else:
            words = ["runbook", "run", "service_failure", "--set", "service=a"]
        restart = subprocess.Popen(
            [*SELFHEAL, *words, "--state", str(selfheal.state)], stderr=subprocess.PIPE, text=True
        )
        eventually(lambda: selfheal.services()["a"]["state"] == "stopping", every_s=0.02)
        assert selfheal.call("services", "stop", "a", "--by", "bob", "--no-wait").returncode == 0
        may_end.touch()
        _, error = restart.communicate(timeout=60)
        assert "is not started again: stopped by bob" in error or who == "a runbook"
        eventually(lambda: selfheal.services()["a"]["state"] == "stopped", within_s=20)
        holds_for(lambda: selfheal.services()["a"]["state"] == "stopped", 3, every_s=0.1)
        assert selfheal.services()["a"]["desired"]["by"] == "bob"
