"""The file is edited under the real daemon: plan, apply, SIGHUP, scale; what is not named is not touched.

The command line is called where its words and exit codes count; else the daemon is asked over its socket, as it does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from supervisors.api.alertmanager import PATHS
from supervisors.manager import BadConfig, CommandFailed, Node
from supervisors.remote import Base, RemoteManager
from tests.alertmanager.payloads import alert, notification
from tests.support.eventually import eventually
from tests.system.running import LINKS, SLEEPER, Running, daemon, free_port, of_state, web_service, write_config

LONG_S = 30.0


class Asked:
    """A daemon, and what it answers over its socket."""

    def __init__(self, running: Running, manager: RemoteManager) -> None:
        self.running = running
        self.manager = manager

    def services(self) -> dict[str, Node]:
        return {one["name"]: one for one in self.manager.services()}

    def pids(self) -> dict[str, int | None]:
        return {name: one.get("pid") for name, one in self.services().items()}

    def facts(self, *names: str) -> dict[str, tuple[Any, ...]]:
        """What an edit that does not name a service must not change of it."""
        services = self.services()
        return {name: tuple(services[name].get(key) for key in ("pid", "incarnation", "ready_since")) for name in names}

    def until_ready(self, *names: str) -> dict[str, Node]:
        def look() -> dict[str, Node]:
            services = self.services()
            states = {name: services[name]["state"] for name in names or services}
            assert set(states.values()) == {"ready"}, states
            return services

        return eventually(look, within_s=LONG_S)


@contextmanager
def asked(config: Path, state: Path) -> Iterator[Asked]:
    with daemon(config, state) as running, RemoteManager(Base(state_dir=state)) as manager:
        yield Asked(running, manager)


def actions(shown: Mapping[str, Any]) -> dict[str, str]:
    return {one["node"]: one["action"] for one in shown["nodes"] if one["action"] != "unchanged"}


def test_an_edit_of_policy_restarts_nothing_and_rules_the_next_crash(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, {"a": SLEEPER, "web": web_service(port)})
    with asked(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        kept = selfheal.facts("a", "web")
        write_config(tmp_path, {"a": SLEEPER | {"restart_policy": "never"}, "web": web_service(port, max_restarts=2)})
        shown = selfheal.running.call("plan")
        assert shown.returncode == 0
        assert "~ a    update in place\n    restart_policy: always -> never" in shown.stdout
        done = selfheal.running.call("apply")
        assert (done.returncode, "max_restarts: 5 -> 2" in done.stdout) == (0, True)
        assert selfheal.facts("a", "web") == kept, "nothing was started anew, and nothing proved anew"
        assert selfheal.manager.plan()["empty"]
        pid = selfheal.pids()["a"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: selfheal.services()["a"]["state"] == "failed", within_s=LONG_S)


def test_what_is_added_removed_and_changed_is_touched_and_nothing_else(tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    config = write_config(tmp_path, {"a": SLEEPER, "web": web_service(port), "gone": SLEEPER})
    with asked(config, state) as selfheal:
        before = selfheal.until_ready()
        kept = selfheal.facts("web")
        write_config(tmp_path, {"a": {"command": ["sleep", "1001"]}, "web": web_service(port), "new": SLEEPER})
        made = selfheal.manager.apply(by="ann")
        assert actions(made) == {"a": "restart", "new": "create", "gone": "remove"}
        assert made["ok"]
        after = selfheal.until_ready()
        assert set(after) == {"a", "web", "new"}
        assert after["a"]["pid"] != before["a"]["pid"]
        assert selfheal.facts("web") == kept
        assert sorted(one.pid for one in of_state(state)) == sorted(one["pid"] for one in after.values())


def test_a_bad_file_changes_nothing_and_every_problem_is_named(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER})
    with asked(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        kept = selfheal.facts("a")
        config.write_text("services:\n  a: {command: 5}\n  b: {restart_policy: x}\nversion: 1\n")
        refused = selfheal.running.call("apply")
        assert refused.returncode == 2
        assert "selfheal.yaml:2: services.a.command" in refused.stderr
        assert "selfheal.yaml:3: services.b.restart_policy" in refused.stderr
        with pytest.raises(BadConfig):
            selfheal.manager.plan()
        assert selfheal.facts("a") == kept
        assert set(selfheal.services()) == {"a"}


def test_what_is_not_there_is_a_warning_wherever_the_file_is_read(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER | {"working_dir": "/nope"}})
    said = "services.b.working_dir: /nope is no folder now"
    with asked(config, tmp_path / "state") as selfheal:
        eventually(lambda: selfheal.services()["a"]["state"] == "ready", within_s=LONG_S)
        log = selfheal.running.log
        assert log.read_text().count(said) == 1
        for words in (("plan",), ("apply",), ("tree", "--config", str(config))):
            shown = selfheal.running.call(*words)
            assert shown.returncode == 0, shown.stderr
            assert f"warning: {said}\n" in shown.stderr
        selfheal.running.process.send_signal(signal.SIGHUP)
        eventually(lambda: log.read_text().count(said) == 2, within_s=LONG_S)


def test_a_health_check_added_live_is_obeyed(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER})
    with asked(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        check = {"tcp": f"127.0.0.1:{free_port()}", "interval": "200ms", "retries": 2, "start_period": "0s"}
        write_config(tmp_path, {"a": SLEEPER | {"health_check": check}})
        assert actions(selfheal.manager.apply(by="ann")) == {"a": "update_in_place"}
        after = eventually(
            lambda: selfheal.services()["a"] if selfheal.services()["a"]["incarnation"] > 1 else None, within_s=LONG_S
        )
        assert after["last_exit"]["cause"].startswith("unhealthy")


def test_sighup_without_a_terminal_reads_the_file_again(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER})
    with asked(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        kept = selfheal.facts("a")
        config.write_text("version: 1\nservices: {a: {command: 5}}\n")
        selfheal.running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "services.a.command" in selfheal.running.log.read_text(), within_s=LONG_S)
        assert selfheal.facts("a") == kept
        config.write_text("")
        selfheal.running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "selfheal.yaml: is empty" in selfheal.running.log.read_text(), within_s=LONG_S)
        assert selfheal.running.call("plan").returncode == 2
        assert selfheal.facts("a") == kept
        write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER})
        selfheal.running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "b" in selfheal.services(), within_s=LONG_S)
        selfheal.until_ready()
        assert selfheal.facts("a") == kept
        assert selfheal.running.process.poll() is None


def test_a_scale_is_remembered_over_a_killed_daemon(tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = "import os, signal; print(os.environ['SELFHEAL_REPLICA'], flush=True); signal.pause()"
    config = write_config(tmp_path, {"a": SLEEPER, "w": {"command": [sys.executable, "-c", script]}})
    with asked(config, state) as selfheal:
        one = selfheal.until_ready()["w"]["pid"]
        done = selfheal.running.call("services", "scale", "w", "3", "--why", "load")
        assert (done.returncode, done.stderr) == (0, "")
        before = selfheal.until_ready("w", "w.2", "w.3")
        assert (before["w"]["pid"], before["w"]["replicas"], before["w"]["scaled"]["why"]) == (one, 3, "load")
        assert before["w"]["detail"].startswith("scaled to 3 by cli:")
        eventually(lambda: selfheal.manager.log_tail("w.3") == ["3"], within_s=LONG_S)
        selfheal.running.process.kill()
        selfheal.running.process.wait()
        with asked(config, state) as second:
            second.until_ready("a", "w", "w.2", "w.3")
            assert second.pids() == {name: service["pid"] for name, service in before.items()}


def test_commands_for_a_name_are_for_all_its_replicas(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER, "w": SLEEPER | {"replicas": 3}})
    with asked(config, tmp_path / "state") as selfheal:
        before = selfheal.until_ready()

        def down() -> set[str]:
            return {name for name, pid in selfheal.pids().items() if pid is None}

        assert selfheal.manager.stop("w", by="ann")["name"] == "w"
        assert down() == {"w", "w.2", "w.3"}
        selfheal.manager.start("w.2", by="ann")
        assert down() == {"w", "w.3"}
        selfheal.manager.start("w.1", by="ann")
        assert down() == {"w.3"}
        assert selfheal.manager.scale("w", 0, by="ann")["ok"]
        assert selfheal.pids() == {"a": before["a"]["pid"], "w": None}
        tree = selfheal.running.call("tree")
        assert (tree.returncode, "scaled to 0 by ann" in tree.stdout) == (0, True)
        with pytest.raises(CommandFailed, match="scaled to 0"):
            selfheal.manager.start("w", by="ann")


def test_settings_of_our_own_are_in_force_without_a_restart(tmp_path: Path) -> None:
    """Who may post alerts, who may say who asks, what names stand for; what needs a restart is said, and not used."""
    state, token = tmp_path / "state", tmp_path / "token"
    token.touch(0o600)
    token.write_text("t" * 32)
    config = write_config(tmp_path, {"a": SLEEPER})
    with asked(config, state) as selfheal:
        kept = selfheal.until_ready()["a"]
        address = (state / "operator.address").read_text().strip()

        def posted(name: str, **headers: str) -> int:
            body = notification(alert(name))
            return httpx.post(f"{address}{PATHS[0]}", json=body, headers=headers, timeout=30).status_code

        def proven() -> str | None:
            """Who the record says it was when somebody comes with the token."""
            with RemoteManager(Base(address=address, token="t" * 32)) as ann:
                ann.set_recovery(True, by="cli:ann")
            said = [one for one in selfheal.manager.why("root/links/alerts") if one["text"] == "recovery on by cli:ann"]
            found: str | None = said[0]["evidence"].get("proven")
            return found

        assert posted("Before") == 200
        assert proven() is None
        links = {
            "alertmanager": {"token_file": str(token), "types": {"After": "mine"}, "services": {"After": "a"}},
            "operator": {**LINKS["operator"], "tokens": {"ann": str(token)}},
            "curve": False,
        }
        few = {"max_alerts": 1}
        write_config(tmp_path, {"a": SLEEPER}, links={**LINKS, **links}, recovery={"max_concurrent": 7}, journal=few)
        shown = selfheal.running.call("plan")
        assert "~ root/links/operator  update in place (link)\n    links.operator.tokens.ann: none -> " in shown.stdout
        assert "~ root/links/alerts    update in place (link)\n    recovery.max_concurrent: 5 -> 7" in shown.stdout
        assert [line for line in shown.stdout.splitlines() if "restart" in line] == [
            "* links.curve: true -> false: needs a restart of the daemon"
        ]
        assert selfheal.manager.apply(by="cli:bob")["ok"]
        again = selfheal.manager.plan()
        assert (actions(again), [one["key"] for one in again["daemon"]]) == ({}, ["links.curve"])
        assert (posted("After"), posted("After", authorization=f"Bearer {'t' * 32}")) == (401, 200)
        left = [("mine", "a")]
        eventually(
            lambda: [(one["type"], one["service"]) for one in selfheal.manager.alerts(9)] == left, within_s=LONG_S
        )
        assert proven() == "token:ann"
        told = [one["text"] for one in selfheal.manager.why("root/links/operator")]
        assert any(one.startswith("apply by cli:bob: links.operator.tokens.ann: null -> ") for one in told), told
        now = selfheal.services()["a"]
        assert (now["pid"], now["incarnation"]) == (kept["pid"], kept["incarnation"])


def test_a_file_of_somebody_else_is_not_applied(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER})
    other = tmp_path / "other"
    other.mkdir()
    with asked(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        theirs = write_config(other, {"a": SLEEPER, "b": SLEEPER})
        theirs.chmod(0o666)
        with pytest.raises(CommandFailed, match="writable by nobody else"):
            selfheal.manager.apply(str(theirs), by="ann")
        theirs.chmod(0o644)
        assert selfheal.manager.apply(str(theirs), by="ann")["ok"]
        assert set(selfheal.services()) == {"a", "b"}
