"""The same cases for every owner of the contract: in the process, over a unix socket, over TCP."""

from __future__ import annotations

import os
import threading
import time

import pytest

from actors.board import NodeState
from supervisors.manager import BadConfig, CommandFailed, Manager, NotAllowed, TimedOut, UnknownNode
from supervisors.people import user_name
from supervisors.tree_json import find
from tests.outside.fake_manager import GROUP, FakeManager


def test_looking_gives_the_same_values(manager: Manager, fake: FakeManager) -> None:
    assert manager.info() == fake.info()
    assert manager.tree() == fake.tree()
    assert manager.services() == fake.services()
    assert manager.alerts() == fake.alerts()
    assert manager.executions() == fake.executions()
    assert manager.execution("e-1") == fake.execution("e-1")
    assert manager.statistics() == fake.statistics()
    assert manager.runbooks() == fake.runbooks()
    assert manager.why("engine") == fake.why("engine")
    assert manager.recovery_status() == fake.recovery_status()


def test_limits_are_kept(manager: Manager) -> None:
    assert len(manager.alerts(1)) == 1
    assert len(manager.why("engine", 1)) == 1
    assert manager.log_tail("engine", 2) == ["two", "three ü"]
    assert manager.log_tail("engine", 0) == []


def test_commands_reach_the_service_with_everything_said(manager: Manager, fake: FakeManager) -> None:
    assert manager.stop("web", by="ann", why="too loud", wait=False, timeout_s=7.0)["state"] == "stopped"
    assert manager.start("web", by="bob", timeout_s=8.0)["pid"] == 200
    assert manager.restart(f"{GROUP}/engine", by="cec", timeout_s=9.0)["incarnation"] == 2
    assert fake.calls == [
        ("stop", "web", "ann", "too loud", False, 7.0),
        ("start", "web", "bob", True, 8.0),
        ("restart", f"{GROUP}/engine", "cec", True, 9.0),
    ]


def test_commands_for_all_keep_their_order(manager: Manager, fake: FakeManager) -> None:
    assert [one["name"] for one in manager.stop_all(by="ann")] == ["web", "engine", "ingest"]
    assert [one["name"] for one in manager.start_all(by="ann")] == ["ingest", "engine", "web"]
    assert all(one["ok"] for one in manager.restart_all(by="ann"))
    assert [call[:2] for call in fake.calls[:3]] == [("stop", "web"), ("stop", "engine"), ("stop", "ingest")]


def test_one_of_all_that_fails_is_told_and_holds_nothing_up(manager: Manager, fake: FakeManager) -> None:
    fake.broken.add("engine")
    results = {one["name"]: one for one in manager.start_all(by="ann")}
    assert not results["engine"]["ok"]
    assert "exit 3" in results["engine"]["error"]
    assert results["web"]["ok"]
    assert results["web"]["service"]["state"] == "ready"


def test_a_pause_says_who_and_why_until_it_ends(manager: Manager, fake: FakeManager) -> None:
    paused = manager.pause("web", by="ann", why="the exchange is closed", timeout_s=7.0)
    assert (paused["state"], paused["wanted"], paused["pid"]) == ("paused", False, 103)
    assert paused["desired"]["by"] == "ann"
    assert paused["desired"]["why"] == "the exchange is closed"
    resumed = manager.resume("web", by="bob", timeout_s=8.0)
    assert (resumed["state"], resumed.get("desired")) == ("ready", None)
    assert fake.calls == [
        ("pause", "web", "ann", "the exchange is closed", True, 7.0),
        ("resume", "web", "bob", True, 8.0),
    ]


@pytest.mark.parametrize("command", ["start", "stop", "restart", "pause", "resume"])
def test_an_unknown_service_is_named_with_a_suggestion(manager: Manager, command: str) -> None:
    with pytest.raises(UnknownNode) as caught:
        getattr(manager, command)("engin", by="ann")
    assert (caught.value.name, caught.value.suggestion) == ("engin", "engine")
    assert "engin" in str(caught.value)
    assert "did you mean 'engine'" in str(caught.value)


def test_unknown_nodes_and_executions(manager: Manager) -> None:
    for ask in (
        lambda: manager.why("nobody-of-that-name"),
        lambda: manager.wait_for("nobody-of-that-name", "ready", timeout_s=1),
        lambda: manager.log_tail("nobody-of-that-name"),
        lambda: manager.log_follow("nobody-of-that-name", closed=threading.Event()),
        lambda: manager.execution("nobody-of-that-name"),
    ):
        with pytest.raises(UnknownNode) as caught:
            ask()
        assert caught.value.name == "nobody-of-that-name"


def test_a_name_with_odd_letters_is_only_unknown(manager: Manager) -> None:
    for name in ("a b?c=d&e#f", "ü/../x", "..", "", "%2e%2e"):
        with pytest.raises(UnknownNode) as caught:
            manager.why(name)
        assert caught.value.name == name


def test_a_command_that_fails_and_one_that_is_late(manager: Manager, fake: FakeManager) -> None:
    fake.broken.add("engine")
    with pytest.raises(CommandFailed, match="engine: crash_loop: exit 3"):
        manager.start("engine", by="ann")
    with pytest.raises(TimedOut, match=r"engine: not ready within 2.5 s"):
        manager.restart("engine", by="ann", timeout_s=2.5)


def test_waiting_ends_when_the_state_comes(manager: Manager, fake: FakeManager) -> None:
    fake.put("root/services/web", state=NodeState.STARTING)
    later = threading.Timer(0.2, lambda: fake.put("root/services/web", state=NodeState.READY))
    later.start()
    assert manager.wait_for("web", "ready", timeout_s=30.0)["state"] == "ready"
    later.join()


def test_waiting_in_vain(manager: Manager) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"web: not failed within 1.5 s; it is ready"):
        manager.wait_for("web", "failed", timeout_s=1.5)
    assert time.monotonic() - began >= 1.4


def test_the_recovery_switch(manager: Manager, fake: FakeManager) -> None:
    answer = manager.set_recovery(False, by="ann", why="works")
    assert (answer["enabled"], answer["by"], answer["why"]) == (False, "ann", "works")
    assert fake.enabled is False
    assert manager.recovery_status()["enabled"] is False


def test_following_a_log(manager: Manager, fake: FakeManager) -> None:
    closed = threading.Event()
    lines = manager.log_follow("engine", 2, closed=closed)
    assert next(lines) == "two"
    assert next(lines) == "three ü"
    fake.log("four", "", '{"line": 1}')
    assert [next(lines) for _ in range(3)] == ["four", "", '{"line": 1}']
    closed.set()
    assert list(lines) == []


def test_plans_and_edits_are_the_same_from_everywhere(manager: Manager, fake: FakeManager) -> None:
    assert manager.plan() == fake.plan()
    assert manager.plan("/x/other.yaml")["file"] == "/x/other.yaml"
    assert manager.apply("/x/other.yaml", by="ann", plan="p1", timeout_s=5.0)["ok"]
    assert manager.scale("web", 3, by="bob", why="load", timeout_s=6.0)["nodes"][0]["node"] == "web"
    assert manager.scale("web", None, by="bob")["ok"]
    assert fake.calls[:2] == [("apply", "/x/other.yaml", "ann", "p1", 5.0), ("scale", "web", 3, "bob", "load", 6.0)]
    assert fake.calls[2][2] is None


def test_a_bad_file_another_plan_and_a_node_that_failed_are_told(manager: Manager, fake: FakeManager) -> None:
    for ask in (lambda: manager.plan("/x/bad.yaml"), lambda: manager.apply("/x/bad.yaml", by="ann")):
        with pytest.raises(BadConfig) as caught:
            ask()
        assert [problem["text"] for problem in caught.value.problems] == ["k1: m", "k2: m"]
    with pytest.raises(CommandFailed, match="the plan is another by now"):
        manager.apply(by="ann", plan="p2")
    fake.broken.add("web")
    made = manager.apply(by="ann")
    assert (made["ok"], made["nodes"][0].get("error")) == (False, "boom")


def test_the_end_is_asked_for_once(manager: Manager, fake: FakeManager) -> None:
    manager.shutdown(keep_services=True, by="ann")
    assert fake.calls == [("shutdown", True, "ann")]


def test_a_node_is_found_by_name_or_path(manager: Manager) -> None:
    root = manager.tree()["root"]
    assert find(root, "engine") == find(root, f"{GROUP}/engine")


def test_votes_go_to_the_daemon_which_says_who_votes(
    manager: Manager, fake: FakeManager, request: pytest.FixtureRequest
) -> None:
    assert manager.approvals() == fake.approvals()
    if "tcp" in request.node.callspec.id:
        with pytest.raises(NotAllowed, match="who asks is not known"):
            manager.approve("e-2", by="user:root", plan="ab" * 32)
        return
    me = f"user:{user_name(os.geteuid())}"
    came = manager.approve("e-2", by=me, plan="ab" * 32, why="seen")
    assert (came["outcome"], came["plan"]) == ("granted", "ab" * 32)
    assert manager.reject("e-2", by=me)["outcome"] == "rejected"
    assert fake.calls == [("approve", "e-2", me, "ab" * 32, "seen"), ("reject", "e-2", me, None, "")]
    with pytest.raises(CommandFailed, match="awaits no approval"):
        manager.approve("e-1", by=me)


def test_silences_and_latches_are_the_same_from_everywhere(manager: Manager, fake: FakeManager) -> None:
    made = manager.add_silence(["service=web", "message=~a b/c"], 60.0, by="ann", why="works")
    assert (made["state"], made["matchers"], made["for_s"]) == ("active", ["service=web", "message=~a b/c"], 60.0)
    assert manager.silences() == fake.silences()
    ended = manager.end_silence(made["id"], by="bob", why="done")
    assert (ended["state"], ended["ended_by"]) == ("ended", "bob")
    assert fake.calls[-1] == ("end_silence", made["id"], "bob", "done")
    with pytest.raises(UnknownNode, match="silence list"):
        manager.end_silence("s/odd", by="bob")
    with pytest.raises(CommandFailed, match="no matcher"):
        manager.add_silence(["nonsense"], 60.0, by="ann")
    assert manager.latches() == fake.latches() != []
    released = manager.release("service:web", by="ann", why="looked at it")
    assert (released["released_by"], released["released_why"]) == ("ann", "looked at it")
    assert manager.latches() == []
    with pytest.raises(UnknownNode, match="recovery latches"):
        manager.release("service:web", by="ann", why="again")
