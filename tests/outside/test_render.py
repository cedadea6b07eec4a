"""The drawn tree, compared with what a person should see; and the JSON it is drawn from."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from rich.cells import cell_len

from actors.board import LastExit, NodeKind, NodeState, NodeStatus
from supervisors.manager import Node, Tree, UnknownNode
from supervisors.phrases import age, clean, size
from supervisors.render import GLYPHS, render_services, render_tree
from supervisors.tree_json import find, rfc3339, services_json, tree_json, unix_seconds, walk
from supervisors.wellness import daemon_status, is_well
from tests.outside.fake_manager import GROUP, NOW, snapshot

K, S = NodeKind, NodeState


def changed(**paths: dict[str, Any]) -> Tree:
    """The well tree with fields of some nodes changed; ``web`` is short for its path."""
    nodes = snapshot()
    short = {path.rsplit("/", 1)[-1]: path for path in nodes}
    for name, fields in paths.items():
        nodes[short[name]] = replace(nodes[short[name]], **fields)
    return tree_json(nodes, NOW)


def in_trouble() -> Tree:
    nodes = snapshot()
    nodes |= {
        f"{GROUP}/ingest": replace(
            nodes[f"{GROUP}/ingest"], state=S.CRASH_LOOP, pid=None, ready_since=None, cpu_percent=None,
            memory_bytes=None, restarts=6, restarts_in_window=6, next_try_at=NOW + 48,
            last_exit=LastExit("OOM", NOW - 12, code=137, log_tail=("java.lang.OutOfMemoryError", " ")),
        ),
        f"{GROUP}/engine": NodeStatus(
            f"{GROUP}/engine", K.SERVICE, S.WAITING, runtime="docker", detail="waiting for ingest"
        ),
        "root/services/web": replace(
            nodes["root/services/web"], state=S.STARTING, ready_since=None, restarts=1,
            container_id="9f3c0123456789abcdef", runtime="docker", detail="http /ready: 503",
            last_exit=LastExit("exit 1", NOW - 40, code=1, log_tail=("boom",)),
        ),
        "root/services/api": replace(
            nodes["root/services/web"], path="root/services/api", state=S.STOPPED, wanted=False, pid=None,
            ready_since=None, cpu_percent=None, memory_bytes=None,
        ),
    }  # fmt: skip
    return tree_json(nodes, NOW)


WELL = """\
● root          rest_for_one 5/60s             up 2h 0m
├─● journal     actor                          ready 2h 0m
├─● services    one_for_one 5/60s
│ ├─● pipeline  rest_for_one 3/30s
│ │ ├─● ingest  process  pid 101               ready 12m    0.8%  120M
│ │ └─● engine  process  pid 102               ready 12m    0.8%  120M  ↺1 (40s ago: signal SIGKILL)
│ └─● web       process  pid 103               ready 12m    0.8%  120M
└─● links       one_for_one
  └─● guardian  actor    tcp://127.0.0.1:5570  ready"""

TROUBLE = """\
◐ root          rest_for_one 5/60s             up 2h 0m, 0 of 3 ready
├─● journal     actor                          ready 2h 0m
├─◐ services    one_for_one 5/60s              0 of 3 ready
│ ├─◐ pipeline  rest_for_one 3/30s             0 of 2 ready
│ │ ├─✖ ingest  process  –                     CRASH_LOOP OOM ×6, next try in 48s              ↺6 (12s ago)
│ │ │     └ last output: java.lang.OutOfMemoryError
│ │ └─○ engine  docker   –                     waiting for ingest
│ ├─◐ web       docker   9f3c01234567          starting (http /ready: 503)  0.8%  120M  ↺1 (40s ago)
│ │     ├ last exit: exit 1, 40s ago
│ │     └ last output: boom
│ └─○ api       process  –                     stopped by hand
└─● links       one_for_one
  └─● guardian  actor    tcp://127.0.0.1:5570  ready"""  # noqa: RUF001  the signs are meant

NARROW = """\
~ root          rest_for_one 5/60s    up 2h 0m, 0 of 3 ready
|-* journal                           ready 2h 0m
|-~ services    one_for_one 5/60s     0 of 3 ready
| |-~ pipeline  rest_for_one 3/30s    0 of 2 ready
| | |-X ingest  -                     CRASH_LOOP OOM x6, next t~
| | |     ` last output: java.lang.OutOfMemoryError
| | `-o engine  -                     waiting for ingest
| |-~ web       9f3c01234567          starting (http /ready: 50~
| |     | last exit: exit 1, 40s ago
| |     ` last output: boom
| `-o api       -                     stopped by hand
`-* links       one_for_one
  `-* guardian  tcp://127.0.0.1:5570  ready"""


def test_a_tree_that_is_well() -> None:
    assert render_tree(tree_json(snapshot(), NOW), now=NOW) == WELL


def test_trouble_says_what_and_why() -> None:
    assert render_tree(in_trouble(), now=NOW) == TROUBLE


def test_a_narrow_terminal_without_the_letters() -> None:
    drawn = render_tree(in_trouble(), now=NOW, width=64, ascii_only=True)
    assert drawn == NARROW
    assert drawn.isascii()


@pytest.mark.parametrize("width", [1, 10, 25, 40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    drawn = render_tree(in_trouble(), now=NOW, width=width)
    assert max(cell_len(line) for line in drawn.split("\n")) <= width
    assert len(drawn.split("\n")) == len(TROUBLE.split("\n"))


def test_the_pid_stays_on_eighty_columns() -> None:
    drawn = render_tree(tree_json(snapshot(), NOW), now=NOW, width=80)
    assert all(f"pid {pid}" in drawn for pid in (101, 102, 103))


def test_colour_only_adds_codes() -> None:
    coloured = render_tree(in_trouble(), now=NOW, colour=True)
    assert "\x1b[1;31m✖\x1b[0m" in coloured
    assert clean(coloured.replace("\n", "|")) == TROUBLE.replace("\n", "|")


def test_only_what_is_bad_and_the_way_to_it() -> None:
    drawn = render_tree(in_trouble(), now=NOW, only_bad=True)
    names = [line.split()[-1] for line in drawn.split("\n")]
    assert "guardian" not in drawn
    assert "journal" not in drawn
    assert "by hand" not in drawn
    assert "ingest" in drawn, names
    assert render_tree(tree_json(snapshot(), NOW), now=NOW, only_bad=True).startswith("nothing is down")


def test_one_node_and_its_depth() -> None:
    drawn = render_tree(in_trouble(), now=NOW, node="pipeline")
    assert [line.split()[1] for line in drawn.split("\n") if "last" not in line] == ["pipeline", "ingest", "engine"]
    assert drawn == render_tree(in_trouble(), now=NOW, node=GROUP)
    cut = render_tree(in_trouble(), now=NOW, depth=1)
    assert "services (+3)" in cut
    assert "pipeline" not in cut
    with pytest.raises(UnknownNode, match="did you mean 'pipeline'"):
        render_tree(in_trouble(), now=NOW, node="pipelin")


def test_output_of_services_cannot_drive_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x1b[31mred\r\n\x9b31mx\u202ey\u200bz"
    shown = changed(web={"state": S.WAITING, "detail": evil, "last_exit": LastExit(evil, NOW, log_tail=(evil,))})
    drawn = render_tree(shown, now=NOW)
    assert not [char for char in drawn if char != "\n" and not char.isprintable()]
    assert "red" in drawn


def test_every_state_has_a_glyph_and_a_phrase() -> None:
    assert {state.value for state in NodeState} == set(GLYPHS)
    for state in NodeState:
        line = render_tree(changed(web={"state": state}), now=NOW, node="web")
        words = "up" if state is S.UP else state.value
        assert words in line.lower(), line


def test_a_wide_name_keeps_the_columns() -> None:
    drawn = render_tree(changed(web={"detail": "日本語"}), now=NOW)
    assert "日本語" in drawn
    assert cell_len(render_tree(changed(web={"detail": "日本語" * 30}), now=NOW, width=60, node="web")) <= 60


def test_runbooks_tell_their_step() -> None:
    nodes = snapshot()
    nodes["root/runbooks"] = NodeStatus("root/runbooks", K.SUPERVISOR, S.READY, children=("e-1",))
    nodes["root/runbooks/e-1"] = NodeStatus(
        "root/runbooks/e-1", K.RUNBOOK, S.UP, runtime="actor", detail='step 3/5 "restart"', since=NOW - 11
    )
    nodes["root"] = replace(nodes["root"], children=(*nodes["root"].children, "runbooks"))
    drawn = render_tree(tree_json(nodes, NOW), now=NOW)
    assert 'step 3/5 "restart" 11s' in drawn
    assert is_well(tree_json(nodes, NOW)), "a runbook that runs is nothing bad"


def test_services_alone() -> None:
    drawn = render_services(services_json(snapshot()), now=NOW).split("\n")
    assert drawn[0] == "● ingest  process  pid 101  ready 12m  0.8%  120M"
    assert len(drawn) == 3


def test_a_long_note_does_not_push_the_columns_behind_it() -> None:
    nodes = snapshot()
    path = f"{GROUP}/engine"
    nodes[path] = replace(nodes[path], detail="scaled to 3 by cli:ann 2h ago: month end", cpu_percent=1.5)
    drawn = render_services(services_json(nodes), now=NOW).split("\n")
    assert len({line.index("%") for line in drawn}) == 1, drawn
    assert drawn[1].endswith("  scaled to 3 by cli:ann 2h ago: month end")


def test_a_path_that_is_none_is_answered_with_one_that_is_near() -> None:
    root = tree_json(snapshot(), NOW)["root"]
    with pytest.raises(UnknownNode, match="did you mean 'root/services/web'"):
        find(root, "root/services/we")


def test_what_does_not_run_uses_nothing_and_counts_nothing() -> None:
    assert "120M" not in render_tree(changed(web={"state": S.STOPPED, "pid": None}), now=NOW, node="web")
    ending = changed(pipeline={"state": S.STOPPED}, ingest={"state": S.WAITING}, engine={"state": S.STOPPED})
    assert "stopped" in render_tree(ending, now=NOW, node="pipeline").split("\n")[0]
    assert "of 2" not in render_tree(ending, now=NOW, node="pipeline")


def test_an_old_restart_is_not_explained_any_more() -> None:
    drawn = render_tree(changed(engine={"last_exit": LastExit("signal SIGKILL", NOW - 7200)}), now=NOW, node="engine")
    assert "↺1 (2h 0m ago)" in drawn


# -- well or not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields", "well", "status"),
    [
        ("web", {}, True, "healthy"),
        ("web", {"state": S.DEGRADED}, False, "degraded"),
        ("web", {"state": S.UP}, False, "degraded"),
        ("web", {"state": S.UNKNOWN}, False, "degraded"),
        ("web", {"state": S.FAILED}, False, "degraded"),
        ("web", {"state": S.WAITING}, False, "degraded"),
        ("web", {"state": S.STOPPED, "wanted": False}, True, "healthy"),
        ("web", {"state": S.STOPPED}, True, "healthy"),
        ("web", {"state": S.CRASH_LOOP, "wanted": False}, True, "healthy"),
        ("pipeline", {"state": S.STOPPED}, False, "degraded"),
        ("journal", {"state": S.DEGRADED}, False, "unhealthy"),
        ("guardian", {"state": S.FAILED}, False, "unhealthy"),
        ("root", {"state": S.STARTING}, False, "unhealthy"),
    ],
)
def test_what_is_well(name: str, fields: dict[str, Any], well: bool, status: str) -> None:
    tree = changed(**{name: fields})
    assert (is_well(tree), daemon_status(tree)) == (well, status)


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_a_node_in_json() -> None:
    node = find(in_trouble()["root"], "ingest")
    assert node == {
        "name": "ingest", "path": f"{GROUP}/ingest", "kind": "service", "state": "crash_loop", "incarnation": 1,
        "restarts": 6, "restarts_in_window": 6, "wanted": True, "runtime": "process", "health": "healthy",
        "since": rfc3339(NOW - 720), "next_try_at": rfc3339(NOW + 48), "children": [],
        "last_exit": {"cause": "OOM", "code": 137, "at": rfc3339(NOW - 12),
                      "log_tail": ["java.lang.OutOfMemoryError", " "]},
    }  # fmt: skip


def test_children_are_in_the_supervisors_order_and_nobody_is_lost() -> None:
    nodes = snapshot()
    nodes["root/services"] = replace(nodes["root/services"], children=("web", "ghost", "pipeline"))
    nodes["root/services/added"] = NodeStatus("root/services/added", K.SERVICE, S.STARTING)
    services = find(tree_json(nodes, NOW)["root"], "root/services")
    assert [one["name"] for one in services["children"]] == ["web", "ghost", "pipeline", "added"]
    assert services["children"][1]["state"] == "unknown"


def test_a_board_that_is_still_empty() -> None:
    tree = tree_json({}, NOW)
    assert (tree["root"]["name"], tree["root"]["state"]) == ("root", "unknown")
    assert not is_well(tree)


def test_times_are_rfc_3339_and_come_back() -> None:
    assert rfc3339(1_700_000_000.123) == "2023-11-14T22:13:20.123Z"
    assert unix_seconds(rfc3339(NOW + 0.25)) == NOW + 0.25


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (1e18, "9999-12-30T00:00:00.000Z"),
        (math.inf, "9999-12-30T00:00:00.000Z"),
        pytest.param(10**400, "9999-12-30T00:00:00.000Z", id="huge"),
        (-1e300, "0001-01-02T00:00:00.000Z"),
        (-math.inf, "0001-01-02T00:00:00.000Z"),
        (math.nan, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_that_is_none_does_not_hide_the_tree(at: float, text: str) -> None:
    nodes = snapshot()
    path = "root/services/web"
    nodes[path] = replace(nodes[path], since=at, next_try_at=at, last_exit=LastExit("exit 1", at))
    web = find(tree_json(nodes, NOW)["root"], path)
    assert (web["since"], web["next_try_at"], web["last_exit"]["at"]) == (text, text, text)
    datetime.fromisoformat(text).astimezone(timezone(timedelta(hours=23)))
    datetime.fromisoformat(text).astimezone(timezone(timedelta(hours=-23)))


def test_walking_is_parents_first() -> None:
    names = [one["name"] for one in walk(tree_json(snapshot(), NOW)["root"])]
    assert names == ["root", "journal", "services", "pipeline", "ingest", "engine", "web", "links", "guardian"]


def test_the_nearest_of_a_name_is_found() -> None:
    nodes = snapshot()
    nodes["root/services/pipeline/journal"] = NodeStatus("root/services/pipeline/journal", K.SERVICE, S.READY)
    found: Node = find(tree_json(nodes, NOW)["root"], "journal")
    assert found["path"] == "root/journal"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (59.9, "59s"), (60, "1m"), (3600, "1h 0m"), (86399, "23h 59m"), (273600, "3d 4h")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_sizes() -> None:
    assert [size(1024), size(120 << 20), size(1288490189)] == ["1K", "120M", "1.2G"]


@pytest.mark.parametrize("state", ["stopped", "paused"])
def test_a_persons_wish_is_shown_with_who_when_and_why(state: str) -> None:
    wish = {"state": state, "by": "alice", "at": rfc3339(NOW - 3 * 3600), "why": "the exchange\nis closed"}
    tree = changed(web={"state": NodeState(state), "wanted": False, "extra": {"desired": wish}, "pid": None})
    assert f"{state} by alice 3h 0m ago: the exchange is closed" in render_tree(tree, now=NOW)
    assert is_well(tree)
    (web,) = [node for node in walk(tree["root"]) if node["name"] == "web"]
    assert web["desired"] == wish


def test_a_persons_wish_is_shown_while_nobody_knows_the_state() -> None:
    wish = {"state": "paused", "by": "alice", "at": rfc3339(NOW - 60), "why": "the exchange is closed"}
    tree = changed(web={"state": S.UNKNOWN, "detail": "no engine", "wanted": False, "extra": {"desired": wish}})
    assert "(no engine); paused by alice 1m ago: the exchange is closed" in render_tree(tree, now=NOW)
