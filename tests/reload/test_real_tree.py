"""Edits of a real tree of real processes: the untouched keep their pids, failures are told, a crash of ours adopts."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Stage

from actors.board import NodeKind, NodeState
from actors.ledger import ManualStop, Phase
from actors.messages import ExitNow
from actors.refs import ActorRef
from actors.spec import ChildSpec, ExitReason
from config.models import SystemConfig
from supervisors.decisions.model import Ask, Ok, Refused
from supervisors.library import call
from supervisors.manager import BadConfig, CommandFailed, UnknownNode
from supervisors.plans import Action, make_plan
from supervisors.supervisor import CallRequest
from supervisors.tree import unit_order
from tests.reload.files import files, nodes
from tests.reload.place import Place, alive, place
from tests.support.eventually import eventually

SLEEP = {"command": ["sleep", "1000"]}


def shape(config: SystemConfig) -> dict[str, tuple[str, ...]]:
    """What the board should show."""
    groups = {f"root/services/{name}": one.services for name, one in config.groups.items()}
    return {"root/services": unit_order(config), **groups}


@given(before=files(), after=files())
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Stage.explicit, Stage.reuse, Stage.generate),  # each example is a real tree: shrinking would take minutes
)
def test_untouched_nodes_keep_their_pid_and_the_rest_becomes_what_is_wanted(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    wanted, running = nodes(after), nodes(before)
    plan = make_plan(running, wanted)
    with TemporaryDirectory() as folder, place(Path(folder), before) as here:
        old = here.until_ready()
        made = here.apply(after)
        assert made["ok"], made
        new = here.until_ready()
        for entry in plan.entries:
            if entry.kind != "service":
                continue
            name = entry.node
            match entry.action:
                case Action.UNCHANGED | Action.UPDATE:
                    assert new[name] == old[name], (name, "was not to be touched")
                case Action.RESTART:
                    assert new[name] != old[name]
                    assert not alive(old[name])
                case Action.REMOVE:
                    assert new.get(name) is None
                    assert not alive(old[name])
                case Action.CREATE:
                    assert alive(new[name]) is not entry.is_idle
        assert here.catalog.config == wanted
        assert here.shown() == shape(wanted)
        commands = {name: tuple(psutil.Process(pid).cmdline()) for name, pid in new.items() if pid is not None}
        assert commands == {name: one.command for name, one in wanted.services.items() if one.replicas}
        assert here.reloader.plan()["empty"]


GROUPED = {"services": {"db": SLEEP, "app": SLEEP}, "groups": {"web": {"services": ["db", "app"]}}}
LONE = {"services": {"db": SLEEP, "web": {"command": ["sleep", "7002"]}}}
OTHER_DB = {"services": {"db": {"command": ["sleep", "1001"]}, "web": {"command": ["sleep", "7002"]}}}
AT_REST = {"services": {"db": SLEEP | {"replicas": 0}, "web": {"command": ["sleep", "7002"]}}}


@pytest.mark.parametrize("lone", [LONE, OTHER_DB, AT_REST], ids=["goes on", "is restarted", "rests"])
def test_a_service_takes_over_the_name_of_a_group_and_a_group_that_of_a_service(
    tmp_path: Path, lone: dict[str, Any]
) -> None:
    with place(tmp_path, GROUPED) as here:
        grouped = here.until_ready()
        made = here.apply(lone)
        assert made["ok"], made
        alone = here.until_ready()
        assert set(alone) == {"db", "web"}
        assert (alone["db"] == grouped["db"]) is (lone is LONE)
        assert not alive(grouped["app"])
        assert here.catalog.config == nodes(lone)
        assert here.shown() == {"root/services": ("db", "web")}
        assert here.reloader.plan()["empty"]
        crash(here, "root/services")
        up = {name: pid for name, pid in alone.items() if pid is not None}
        eventually(lambda: running(here, "root/services") == list(up), within_s=20)
        eventually(lambda: {name: one.pid for name, (_, one) in here.live.by_service.items()} == up, within_s=20)
        made = here.apply(GROUPED)
        assert made["ok"], made
        again = here.until_ready()
        assert not alive(alone["web"])
        assert (again["db"] == alone["db"]) is (lone is LONE)
        assert here.shown() == {"root/services": ("web",), "root/services/web": ("db", "app")}
        assert here.reloader.plan()["empty"]


def test_a_member_that_is_restarted_and_gives_a_name_free_starts_in_its_turn(tmp_path: Path) -> None:
    """It leaves the group ``new`` for one in which it comes behind the service ``first``."""
    after = {
        "services": {"first": SLEEP, "last": {"command": ["sleep", "1001"]}, "new": SLEEP},
        "groups": {"g": {"strategy": "rest_for_one", "services": ["first", "last"]}},
    }
    with place(tmp_path, {"services": {"last": SLEEP}, "groups": {"new": {"services": ["last"]}}}) as here:
        old = here.until_ready()
        here.system.board.listen(begun := Begun())
        assert here.apply(after)["ok"]
        assert not alive(old["last"])
        here.until_ready()
        assert begun.order == ["first", "last", "new"]
        assert here.shown() == {"root/services": ("g", "new"), "root/services/g": ("first", "last")}


class Begun:
    """Notes the order in which services get ready."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def __call__(self, status: Any) -> None:
        is_new = status.kind is NodeKind.SERVICE and status.path.rsplit("/", 1)[-1] not in self.order
        if is_new and status.state is NodeState.READY:
            self.order.append(status.path.rsplit("/", 1)[-1])


def test_a_group_that_cannot_be_removed_keeps_its_name_from_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place(tmp_path, GROUPED) as here:
        here.until_ready()
        with monkeypatch.context() as patched:
            refusing(here, patched, Ask.TERMINATE, "web", "busy")
            made = here.apply(LONE)
        told = {(one["kind"], one["node"]): one.get("error", "") for one in made["nodes"]}
        assert told == {
            ("service", "db"): "",
            ("service", "web"): "web: the group of that name is still there",
            ("service", "app"): "",
            ("group", "web"): "terminate_child web: refused by root/services: busy",
        }
        assert here.shown() == {"root/services": ("db", "web"), "root/services/web": ()}
        assert set(here.catalog.config.services) == {"db"}
        assert {(one["node"], one["action"]) for one in here.reloader.plan()["nodes"]} == {
            ("db", "unchanged"),
            ("web", "create"),
            ("web", "remove"),
        }
        assert here.apply(LONE)["ok"]
        here.until_ready()
        assert here.shown() == {"root/services": ("db", "web")}


def test_a_service_that_cannot_be_removed_keeps_its_name_from_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place(tmp_path, LONE) as here:
        lone = here.until_ready()
        with monkeypatch.context() as patched:
            refusing(here, patched, Ask.DELETE, "web", "busy")
            made = here.apply(GROUPED)
        told = {(one["kind"], one["node"]): one.get("error", "") for one in made["nodes"]}
        assert told == {
            ("group", "web"): "web: the service of that name is still there",
            ("service", "db"): "db: its group web is not there",
            ("service", "app"): "app: its group web is not there",
            ("service", "web"): "delete_child web: refused by root/services: busy",
        }
        assert here.shown() == {"root/services": ("db", "web")}
        assert here.pids()["db"] == lone["db"], "it could not move, and goes on where it is"
        assert here.apply(GROUPED)["ok"]
        assert here.until_ready()["db"] == lone["db"]


def test_who_is_not_taken_by_the_other_supervisor_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"services": {"a": SLEEP, "b": SLEEP}, "groups": {"g": {"services": ["b"]}}}
    after = {"services": {"a": SLEEP, "b": SLEEP}, "groups": {"g": {"services": ["b", "a"]}}}
    with place(tmp_path, before) as here:
        old = here.until_ready()
        with monkeypatch.context() as patched:
            refusing(here, patched, Ask.INSERT, "a", "no room", home="root/services/g")
            made = here.apply(after)
        assert [(one["node"], one.get("error")) for one in made["nodes"] if not one.get("ok")] == [
            ("a", "insert_child a: refused by root/services/g: no room")
        ]
        assert here.until_ready() == old
        assert here.shown() == shape(nodes(before)) | {"root/services": ("a", "g")}
        assert here.apply(after)["ok"]
        assert here.until_ready() == old
        assert here.shown() == shape(nodes(after))


@pytest.mark.parametrize("lost", ["a", "g"])
def test_what_a_supervisor_has_lost_is_not_in_force_and_the_next_plan_makes_it(tmp_path: Path, lost: str) -> None:
    data = {"services": {"a": SLEEP, "b": SLEEP}, "groups": {"g": {"services": ["b"]}}}
    with place(tmp_path, data) as here:
        here.until_ready()
        services = here.system.whereis("root/services")
        assert isinstance(services, ActorRef)
        for ask in (Ask.TERMINATE, Ask.DELETE):
            assert isinstance(call(services, CallRequest(ask, lost), 10), Ok)
        made = here.apply(data)
        told = {(one["kind"], one["node"]): one.get("error") for one in made["nodes"]}
        if lost == "a":
            assert told == {("service", "a"): "a: root/services has no such service any more"}
        else:
            assert told == {
                ("group", "g"): "g: root/services has no such group any more",
                ("service", "b"): "b: root/services/g has no such service any more",
            }
        assert not here.reloader.plan()["empty"]
        assert here.apply(data)["ok"]
        assert all(alive(pid) for pid in here.until_ready().values())
        assert here.shown() == shape(nodes(data))
        assert here.reloader.plan()["empty"]


def test_what_is_lost_while_it_is_made_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(ref: Any, request: CallRequest, timeout_s: float) -> Any:
        result = call(ref, request, timeout_s)
        if request.ask is Ask.INSERT:
            for ask in (Ask.TERMINATE, Ask.DELETE):
                assert isinstance(call(ref, CallRequest(ask, "new"), 10), Ok)
        return result

    with place(tmp_path, {"services": {"a": SLEEP}}) as here:
        here.until_ready()
        with monkeypatch.context() as patched:
            patched.setattr("supervisors.live_edit.call", asked)
            made = here.apply({"services": {"a": SLEEP, "new": SLEEP}})
        assert [(one["node"], one.get("error")) for one in made["nodes"]] == [
            ("new", "new: root/services has no such service any more")
        ]
        assert set(here.catalog.config.services) == {"a"}
        assert here.apply({"services": {"a": SLEEP, "new": SLEEP}})["ok"]
        assert set(here.until_ready()) == {"a", "new"}


def refusing(
    here: Place, patched: pytest.MonkeyPatch, ask: Ask, name: str, why: str, home: str = "root/services"
) -> None:
    """That supervisor refuses that call for that child."""

    def asked(ref: Any, request: CallRequest, timeout_s: float) -> Any:
        whom = getattr(request.spec, "id", None) or request.id
        if request.ask is ask and whom == name and ref is here.system.whereis(home):
            return Refused(why)
        return call(ref, request, timeout_s)

    patched.setattr("supervisors.live_edit.call", asked)


def running(here: Place, path: str) -> list[str]:
    ref = here.system.whereis(path)
    assert isinstance(ref, ActorRef)
    result = call(ref, CallRequest(Ask.WHICH), 10)
    assert isinstance(result, Ok)
    return [child.id for child in result.value if child.state == "running"]


def crash(here: Place, path: str) -> None:
    ref = here.system.whereis(path)
    assert isinstance(ref, ActorRef)
    ref.tell(ExitNow(ExitReason.crashed("a fault of ours")))
    eventually(lambda: here.system.whereis(path) is not ref and here.system.whereis(path), within_s=20)


@pytest.mark.parametrize("path", ["root/services", "root/services/g"])
def test_a_supervisor_started_anew_knows_the_edited_tree(tmp_path: Path, path: str) -> None:
    before = {"services": {"a": SLEEP, "b": SLEEP, "gone": SLEEP}, "groups": {"g": {"services": ["a", "gone"]}}}
    after = {"services": {"a": SLEEP, "b": SLEEP, "new": SLEEP}, "groups": {"g": {"services": ["new", "b", "a"]}}}
    with place(tmp_path, before) as here:
        here.until_ready()
        assert here.apply(after)["ok"]
        pids = here.until_ready()
        crash(here, path)
        eventually(lambda: running(here, "root/services/g") == ["new", "b", "a"], within_s=20)
        assert running(here, "root/services") == ["g"]
        assert {name: handle.pid for name, (_, handle) in here.live.by_service.items()} == pids
        assert all(alive(pid) for pid in pids.values())
        assert here.ledger.record("gone").phase is Phase.NEVER


def test_a_file_that_ends_before_its_services_removes_none(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"a": SLEEP, "b": SLEEP}}) as here:
        pids = here.until_ready()
        here.write({})
        said = (
            r"selfheal.yaml: services: is missing: is the file whole\? 'services: {}' says that all 2 shall be removed"
        )
        with pytest.raises(BadConfig, match=said):
            here.reloader.plan()
        with pytest.raises(BadConfig, match=said):
            here.reloader.apply(by="test", timeout_s=20)
        assert here.until_ready() == pids
        assert here.notes == []
        assert here.apply({"services": {}})["ok"]
        assert not any(alive(pid) for pid in pids.values())
        here.write({})
        assert here.reloader.plan()["empty"], "there is nothing to remove any more"


def test_a_setting_of_our_own_is_in_force_from_its_apply_on_and_touches_no_service(tmp_path: Path) -> None:
    before = {"services": {"a": SLEEP}, "runbooks": {"directories": ["/"]}}
    with place(tmp_path, before) as here:
        pids = here.until_ready()
        made = here.apply(before | {"runbooks": {"directories": ["/tmp"]}, "watch": {"every": "9s"}})
        assert [(one["node"], one["ok"]) for one in made["nodes"]] == [
            ("root/links/runbook-files", True),
            ("root/runtimes/usage-watch", True),
        ]
        assert (here.catalog.config.runbooks.directories, here.catalog.config.watch.every) == ((Path("/tmp"),), 9.0)
        assert here.reloader.plan()["empty"]
        assert here.until_ready() == pids
        assert here.notes == [
            ("root/services", "apply", "test", str(here.file)),
            ("root/links/runbook-files", "apply", "test", 'runbooks.directories: ["/"] -> ["/tmp"]'),
            ("root/runtimes/usage-watch", "apply", "test", "watch.every: 5.0 -> 9.0"),
        ]


def test_a_bad_file_changes_nothing_and_names_every_problem(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"a": SLEEP}}) as here:
        pids = here.until_ready()
        with pytest.raises(BadConfig) as caught:
            here.apply({"services": {"a": {"command": 5}, "b": {}}, "groups": {"g": {"services": ["x"]}}})
        assert len(caught.value.problems) == 3
        assert here.until_ready() == pids


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = {"command": ["/no/such/program"], "max_restarts": 0}
    before = {"services": {"a": SLEEP, "b": SLEEP, "c": SLEEP}}
    after = {"services": {"a": SLEEP | broken, "b": {"command": ["sleep", "1001"]}, "new": SLEEP}}
    with place(tmp_path, before) as here:
        old = here.until_ready()
        made = here.apply(after)
        assert not made["ok"]
        told = {one["node"]: (one.get("ok"), "program" in one.get("error", "")) for one in made["nodes"]}
        assert told == {"a": (False, True), "b": (True, False), "new": (True, False), "c": (True, False)}
        assert not alive(old["c"])
        assert here.catalog.config == nodes(after), "the broken one is in force too: its command is what the file says"
        here.apply(before)
        assert set(here.until_ready()) == {"a", "b", "c"}


def test_a_plan_that_is_another_by_now_is_refused(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"a": SLEEP}}) as here:
        here.until_ready()
        here.write({"services": {"a": SLEEP, "b": SLEEP}})
        seen = here.reloader.plan()["plan"]
        with pytest.raises(CommandFailed, match="the plan is another by now"):
            here.apply({"services": {"a": SLEEP, "c": SLEEP}}, plan=seen)
        assert set(here.pids()) == {"a"}
        assert here.apply({"services": {"a": SLEEP, "b": SLEEP}}, plan=seen)["ok"]
        assert set(here.until_ready()) == {"a", "b"}


def test_two_edits_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"a": SLEEP}}) as here:
        pids = here.until_ready()
        here.write({"services": {"a": SLEEP, "b": SLEEP}})
        made: list[dict[str, Any]] = []

        def apply() -> None:
            made.append(dict(here.reloader.apply(by="test", timeout_s=30)))

        threads = [threading.Thread(target=apply) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(len(one["nodes"]) for one in made) == [0, 0, 0, 1]
        assert here.until_ready()["a"] == pids["a"]


def test_what_a_person_stopped_stays_stopped_over_an_edit(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"a": SLEEP, "b": SLEEP}}) as here:
        here.until_ready()
        here.ledger.stopped_by("a", ManualStop("ann", 1.0))
        made = here.apply({"services": {"a": {"command": ["sleep", "1001"]}, "b": SLEEP}})
        assert made["ok"], made
        assert here.pids()["a"] is None


def test_scaling_stops_the_newest_first_and_touches_no_other(tmp_path: Path) -> None:
    data = {"services": {"a": SLEEP, "w": SLEEP | {"replicas": 2}}, "groups": {"g": {"services": ["w", "a"]}}}
    with place(tmp_path, data) as here:
        two = here.until_ready()
        assert here.reloader.scale("w", 4, by="ann", why="load", timeout_s=30)["ok"]
        four = here.until_ready()
        assert {name: four[name] for name in two} == two
        assert here.shown()["root/services/g"] == ("w", "w.2", "w.3", "w.4", "a")
        here.system.board.listen(gone := Gone())
        made = here.reloader.scale("w", 1, by="bob", timeout_s=30)
        assert [one["node"] for one in made["nodes"]] == ["w.4", "w.3", "w.2"]
        assert gone.order == ["w.4", "w.3", "w.2"]
        assert here.until_ready() == {"w": two["w"], "a": two["a"]}
        record = here.ledger.record("w").scaled
        assert record is not None
        assert (record.replicas, record.by) == (1, "bob")
        assert here.reloader.plan()["empty"], "the remembered number wins over the file's"
        assert here.reloader.scale("w", None, by="bob", timeout_s=30)["ok"]
        assert len(here.until_ready()) == 3


class Gone:
    """Notes the order in which services stop."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def __call__(self, status: Any) -> None:
        name = status.path.rsplit("/", 1)[-1]
        if status.state.value == "stopping" and name not in self.order:
            self.order.append(name)


def test_scaled_to_nothing_and_back(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"w": SLEEP | {"replicas": 2}}}) as here:
        old = here.until_ready()
        assert here.reloader.scale("w", 0, by="ann", timeout_s=30)["ok"]
        assert here.until_ready() == {"w": None}
        assert not any(alive(pid) for pid in old.values())
        assert here.reloader.scale("w", 2, by="ann", timeout_s=30)["ok"]
        assert all(alive(pid) for pid in here.until_ready().values())


def test_what_cannot_be_scaled_says_why(tmp_path: Path) -> None:
    checked = SLEEP | {"health_check": {"tcp": "127.0.0.1:7009"}}
    with place(tmp_path, {"services": {"a": checked}}) as here:
        with pytest.raises(CommandFailed, match=r"a: cannot scale: all would be asked at '127\.0\.0\.1:7009'"):
            here.reloader.scale("a", 2, by="ann", timeout_s=5)
        with pytest.raises(UnknownNode):
            here.reloader.scale("nobody", 2, by="ann", timeout_s=5)
        assert here.ledger.record("a").scaled is None


def test_what_an_earlier_edit_did_after_its_time_was_up_is_taken_as_done(tmp_path: Path) -> None:
    with place(tmp_path, {"services": {"a": SLEEP}}) as here:
        here.until_ready()
        services = here.system.whereis("root/services")
        assert isinstance(services, ActorRef)
        spec = spec_of(services, "a")
        plan = replace(spec.args[0], name="b", launch=replace(spec.args[0].launch, service="b"))
        late = CallRequest(Ask.INSERT, spec=replace(spec, id="b", args=(plan, *spec.args[1:])))
        assert isinstance(call(services, late, 10), Ok)
        assert here.apply({"services": {"a": SLEEP, "b": SLEEP | {"max_restarts": 1}}})["ok"]
        assert set(here.until_ready()) == {"a", "b"}
        pacing = spec_of(services, "b").pacing
        assert pacing is not None
        assert pacing.max_restarts == 1


def spec_of(ref: ActorRef, name: str) -> ChildSpec:
    result = call(ref, CallRequest(Ask.GET_SPEC, name), 10)
    assert isinstance(result, Ok)
    spec: ChildSpec = result.value
    return spec
