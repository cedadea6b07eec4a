"""What an edit means: each key's consequence, nothing shown that may be secret, and a plan that leads where it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel

from config.models import ServiceConfig, SystemConfig
from config.private import HIDDEN
from supervisors.layouts import result_of, settled
from supervisors.plans import AT_ONCE, LIVE, SERVICE_KEYS, Action, Change, Entry, Plan, make_plan, start_order
from tests.reload.files import files, nodes

SLEEP = {"command": ["sleep", "1000"]}


def plan(before: dict[str, Any], after: dict[str, Any]) -> Plan:
    return make_plan(nodes(before), nodes(after))


def one(service: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "services": {"a": service, "b": SLEEP}} | more


def actions(made: Plan) -> dict[str, Action]:
    return {entry.node: entry.action for entry in made.changed}


def test_every_key_of_a_service_is_classified() -> None:
    assert set(SERVICE_KEYS) == set(ServiceConfig.model_fields)


@pytest.mark.parametrize(
    "edit",
    [
        {"restart_policy": "on_failure"},
        {"backoff": {"initial": "1s"}},
        {"max_restarts": 2},
        {"within": "50s"},
        {"on_exhausted": "escalate"},
        {"health_check": {"tcp": "127.0.0.1:7001"}},
        {"graceful_shutdown_timeout": "1s"},
        {"log": {"max_size": "1MB"}},
        {"description": "sleeps"},
        {"dependencies": ["b"]},
        {"required_resources": {"memory_mb": 5}},
        {"on_shutdown": "leave"},
    ],
)
def test_what_only_rules_a_service_is_changed_in_place(edit: dict[str, Any]) -> None:
    assert actions(plan(one(SLEEP), one(SLEEP | edit)))["a"] is Action.UPDATE


@pytest.mark.parametrize(
    "edit", [{"command": ["sleep", "5"]}, {"working_dir": "/tmp"}, {"environment": {"A": "1"}}]
)  # fmt: skip
def test_what_makes_it_another_process_restarts_that_one_alone(edit: dict[str, Any]) -> None:
    assert actions(plan(one(SLEEP), one(SLEEP | edit))) == {"a": Action.RESTART}


@pytest.mark.parametrize(
    "edit", [{"image": "x:2"}, {"ports": ["80"]}, {"volumes": ["v:/v"]}, {"network": "n"}, {"log": {"backups": 1}}]
)
def test_what_makes_it_another_container_restarts_it(edit: dict[str, Any]) -> None:
    container = {"runtime": "docker", "image": "x:1"}
    assert actions(plan(one(container), one(container | edit))) == {"a": Action.RESTART}


def test_old_and_new_values_are_told_and_those_of_the_environment_are_not() -> None:
    made = plan(
        one(SLEEP | {"environment": {"TOKEN": "hunter1", "GONE": "x"}}),
        one(SLEEP | {"environment": {"TOKEN": "hunter2"}, "max_restarts": 9}),
    )
    entry = next(entry for entry in made.changed if entry.node == "a")
    assert set(entry.changes) == {
        Change("environment.TOKEN", HIDDEN, HIDDEN),
        Change("environment.GONE", HIDDEN, None),
        Change("max_restarts", 5, 9),
    }
    assert "hunter" not in repr(made)


def test_addresses_headers_and_passwords_of_the_daemon_s_own_settings_are_not_shown() -> None:
    def secret(number: int) -> dict[str, Any]:
        hook = {"webhook": f"https://h/hunter{number}", "headers": {"A": f"hunter{number}"}}
        return {
            "alerting": {"sinks": [hook, {"command": ["tell", f"https://me:hunter{number}@h/x"]}]},
            "notifications": {"channels": {"ops": hook, f"more{number}": hook}},
            "runbooks": {"databases": {"a": {"url": f"redis://:hunter{number}@h/0"}}},
        }

    made = plan(one(SLEEP, **secret(1)), one(SLEEP, **secret(2)))
    assert {change.key.rpartition(".")[0] for change in made.daemon} == {
        "alerting",
        "notifications.channels",
        "notifications.channels.ops",
        "notifications.channels.ops.headers",
        "runbooks.databases.a",
    }
    assert "hunter" not in repr(made)
    assert "https://me:***@h/x" in repr(made)


def test_a_umask_is_told_as_it_is_written() -> None:
    made = plan(one(SLEEP), one(SLEEP | {"umask": "027"}))
    assert next(entry for entry in made.changed if entry.node == "a").changes == (Change("umask", None, "027"),)


def test_a_move_between_groups_keeps_the_run() -> None:
    before = one(SLEEP, groups={"g": {"services": ["a"]}})
    after = one(SLEEP, groups={"h": {"services": ["b", "a"]}})
    made = plan(before, after)
    assert actions(made) == {"h": Action.CREATE, "a": Action.UPDATE, "b": Action.UPDATE, "g": Action.REMOVE}
    moved = next(entry for entry in made.changed if entry.node == "a")
    assert (moved.moves_to, moved.changes) == ("h", (Change("in_group", "g", "h"),))


def test_groups_and_order_are_changed_in_place() -> None:
    before = one(SLEEP, groups={"g": {"strategy": "rest_for_one", "services": ["a", "b"]}})
    after = one(SLEEP, groups={"g": {"strategy": "one_for_all", "services": ["b", "a"]}})
    assert actions(plan(before, after)) == {"g": Action.UPDATE}


def test_what_only_a_restart_of_the_daemon_changes_is_said() -> None:
    links = {"operator": {"address": "127.0.0.1:9999"}}
    made = plan(one(SLEEP), one(SLEEP, links=links, watchdog={"frozen_after": "9s"}))
    assert made.changed == ()
    assert {change.key for change in made.daemon} == {"links.operator.address", "watchdog.frozen_after"}
    assert not made.is_empty


def test_other_runbook_directories_are_an_update_in_place_of_the_node_that_reads_them() -> None:
    made = plan(one(SLEEP, runbooks={"directories": ["/"]}), one(SLEEP, runbooks={"directories": ["/", "/tmp"]}))
    change = Change("runbooks.directories", ["/"], ["/", "/tmp"])
    assert made.changed == (Entry("root/links/runbook-files", "link", Action.UPDATE, (change,)),)
    assert made.daemon == ()
    turned = plan(
        one(SLEEP, runbooks={"directories": ["/", "/tmp"]}), one(SLEEP, runbooks={"directories": ["/tmp", "/"]})
    )
    assert [entry.node for entry in turned.changed] == ["root/links/runbook-files"], (
        "a later one replaces an earlier one's"
    )


def test_other_limits_of_the_watch_are_an_update_in_place_and_named_as_they_are_written() -> None:
    made = plan(one(SLEEP), one(SLEEP, watch={"for": "5s", "box": {"disk_percent": 50}}))
    changes = (Change("watch.for", 60.0, 5.0), Change("watch.box.disk_percent", 90.0, 50.0))
    assert made.changed == (Entry("root/runtimes/usage-watch", "runtime", Action.UPDATE, changes),)
    assert made.daemon == ()


def test_beside_the_live_ones_a_setting_of_the_same_section_still_needs_a_restart() -> None:
    more = {"directories": ["/"], "files": {"roots": ["/tmp"]}}
    made = plan(one(SLEEP), one(SLEEP, runbooks=more))
    assert [change.key for change in made.daemon] == ["runbooks.files.roots"]
    assert settled(nodes(one(SLEEP)), nodes(one(SLEEP, runbooks=more))).runbooks.files.roots == ()


def test_the_documentation_says_of_every_setting_whether_it_needs_a_restart() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reload.md").read_text(encoding="utf-8")
    listed = text.partition("What needs a restart of the daemon: ")[2].partition("\n\n")[0]
    said = (*re.findall(r"`([a-z_.]+)`", listed), *LIVE, *AT_ONCE, "version", "services", "groups")
    keys = list(settings_below(SystemConfig))
    for key in keys:
        assert len([one for one in said if f"{key}.".startswith(f"{one}.")]) == 1, (key, "once")
    for one in said:
        assert any(f"{key}.".startswith(f"{one}.") for key in keys), (one, "is no setting")


def settings_below(model: type[BaseModel]) -> Iterator[str]:
    """Every setting, dotted."""
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{key}.{one}" for one in settings_below(inner))
        else:
            yield key


def test_scaling_is_a_plan_with_another_number() -> None:
    three, two, none = (one(SLEEP | {"replicas": count}) for count in (3, 2, 0))
    assert actions(plan(two, three)) == {"a.3": Action.CREATE}
    assert actions(plan(three, two)) == {"a.3": Action.REMOVE}
    gone = plan(three, none).changed
    assert [(entry.node, entry.action, entry.is_idle) for entry in gone] == [
        ("a", Action.REMOVE, True),
        ("a.3", Action.REMOVE, False),
        ("a.2", Action.REMOVE, False),
    ]
    assert actions(plan(none, two)) == {"a": Action.CREATE, "a.2": Action.CREATE}


@given(files())
@settings(max_examples=30, deadline=None)
def test_the_plan_of_no_edit_is_empty(data: dict[str, Any]) -> None:
    assert plan(data, data).is_empty


@given(files(), files())
@settings(max_examples=80, deadline=None)
def test_a_plan_leads_to_what_is_wanted_and_then_is_empty(before: dict[str, Any], after: dict[str, Any]) -> None:
    running, wanted = nodes(before), nodes(after)
    made = make_plan(running, wanted)
    reached = result_of(made, running, wanted)
    assert reached == wanted
    assert start_order(reached) == start_order(wanted)
    assert make_plan(reached, wanted).is_empty
    _untouched_are_equal(made, running, wanted)


def _untouched_are_equal(made: Plan, running: SystemConfig, wanted: SystemConfig) -> None:
    for entry in made.entries:
        if entry.kind == "service" and entry.action is Action.UNCHANGED:
            assert running.services[entry.node] == wanted.services[entry.node]
