"""Exactly OTP: what Erlang's own supervisor was seen to do, done by ours with real threads.

Every scenario of ``tests/conformance/scenarios`` is one test. They run side by side, each in a tree of its own, because
most of their time is waiting until nothing happens any more.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from actors.kernel import SupervisedActor
from tests.conformance.__main__ import main
from tests.conformance.adapter import Adapter
from tests.conformance.runner import QUIET_S, Differed, like, run, skipped_for

FOLDER = Path(__file__).parent / "conformance" / "scenarios"
SCENARIOS: dict[str, dict[str, Any]] = {
    scenario["id"]: scenario
    for path in sorted(FOLDER.glob("*.json"))
    for scenario in json.loads(path.read_text(encoding="utf-8"))["scenarios"]
}
SIDE_BY_SIDE = 8
LIMIT_S = 50.0
Outcomes = dict[str, Future[None]]


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> Iterator[None]:
    """The actors crash on purpose; what they log about it is not of interest here."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, quiet_logs: None) -> Iterator[Outcomes]:
    """All scenarios that were selected, already running."""
    items: list[Any] = list(request.session.items)
    selected = [item.callspec.params["id_"] for item in items if getattr(item, "function", None) is test_as_otp]
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="scenario") as pool:
        yield {id_: pool.submit(run, SCENARIOS[id_]) for id_ in selected}


@pytest.mark.parametrize("id_", SCENARIOS)
def test_as_otp(id_: str, outcomes: Outcomes) -> None:
    try:
        outcomes[id_].result(LIMIT_S)
    except Differed as differed:
        scenario = SCENARIOS[id_]
        pytest.fail(f"{scenario['title']}: {differed}\n{scenario['outcome']} ({scenario['source']})", pytrace=False)


def test_the_scenarios_are_there_and_were_checked_against_otp() -> None:
    assert len(SCENARIOS) >= 200
    assert all(scenario["verified"] == "otp25" for scenario in SCENARIOS.values())
    assert not [id_ for id_, scenario in SCENARIOS.items() if skipped_for(scenario)]


# -- the measuring itself --------------------------------------------------------------------------------------------

ONE: dict[str, Any] = {
    "id": "ONE",
    "tags": [],
    "supervisor": {"intensity": 1, "children": [{"id": "a"}, {"id": "b"}]},
    "start": {"log": ["start a ok", "start b ok"]},
    "steps": [
        {
            "op": "exit",
            "child": "a",
            "reason": "boom",
            "expect": {
                "log": ["down a boom", "start a ok"],
                "log_unordered": ["start a ok", "down a boom"],
                "children": [["a", "running", 2], ["b", "running", 1]],
                "children_unordered": [["b", "running", 1], ["a", "running", 2]],
                "children_of": {"root": [["a", "running", 2], ["b", "running", 1]]},
                "counts": {"specs": 2, "active": 2, "supervisors": 0, "workers": 2},
                "supervisor": "alive",
                "attempts": {"a": 2},
                "live": {"a": 1},
                "elapsed_ms": [0, 20000],
            },
        }
    ],
}
WRONG = {
    "log": ["down a boom"],
    "log_unordered": ["down a boom"],
    "children": [["a", "running", 1], ["b", "running", 1]],
    "children_unordered": [["b", "running", 1]],
    "children_of": {"root": []},
    "counts": {"specs": 2, "active": 1, "supervisors": 0, "workers": 2},
    "supervisor": "down:shutdown",
    "attempts": {"a": 1},
    "live": {"a": 2},
    "elapsed_ms": [19000, 20000],
    "no_such_expectation": True,
}


@pytest.mark.parametrize("key", WRONG)
def test_a_falsified_expectation_fails(key: str) -> None:
    scenario = copy.deepcopy(ONE)
    run(scenario)
    scenario["steps"][0]["expect"][key] = WRONG[key]
    with pytest.raises(Differed, match=key):
        run(scenario)


class SlowThreads(Adapter):
    """A loaded machine: at one place threads get no time for longer than ``QUIET_S``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, is_after: bool) -> None:
        super().__init__()
        method = getattr(owner, name)

        def run_slowly(actor: Any, *args: Any) -> Any:
            """Other scenarios run beside this one."""
            is_mine = actor.context.system is self.system
            if is_mine and not is_after:
                threading.Event().wait(2 * QUIET_S)
            done = method(actor, *args)
            if is_mine and is_after:
                threading.Event().wait(2 * QUIET_S)
            return done

        monkeypatch.setattr(owner, name, run_slowly)


@pytest.mark.parametrize(
    ("name", "is_after"),
    [("on_receive", False), ("_end", True)],
    ids=["with a message in hand", "before it tells its end"],
)
def test_it_is_not_quiet_while_a_thread_gets_no_time(
    monkeypatch: pytest.MonkeyPatch, name: str, is_after: bool
) -> None:
    run(SCENARIOS["MORE-205"], SlowThreads(monkeypatch, SupervisedActor, name, is_after=is_after))


def test_it_is_not_quiet_before_a_supervisor_is_told() -> None:
    adapter = Adapter()

    def observe(path: str, message: object) -> None:
        adapter.diary.observe(path, message)
        threading.Event().wait(2 * QUIET_S)

    adapter.system = replace(adapter.system, observer=observe)
    run(SCENARIOS["MORE-205"], adapter)


@pytest.mark.parametrize(
    ("returned", "wanted", "fits"),
    [
        ("ok", "ok", True),
        ("ok", "ignore", False),
        (["ok", 1], ["ok", 2], False),
        (["ok", 1], ["ok"], False),
        (["error", "already_started"], ["error", "already_present"], False),
        (["error", "failed_to_start_child", "b", "boom"], ["error", "failed_to_start_child", "b", "boom"], True),
        (["error", "failed_to_start_child", "b", "boom"], ["error", "failed_to_start_child", "b"], True),
        (["error", "failed_to_start_child", "b", "boom"], ["error", "failed_to_start_child", "c", "boom"], False),
        (["error", "failed_to_start_child", "b", "boom"], ["error", "shutdown", "failed_to_start_child", "b"], True),
        (["error", "invalid_period"], ["error", "supervisor_data", "invalid_period", 0], True),
        (["error", "invalid_period"], ["error", "supervisor_data", "invalid_intensity", -1], False),
        (["error", "boom"], ["error", "EXIT", "boom"], True),
        (["raised", "noproc"], ["error", "noproc"], False),
    ],
)
def test_an_error_may_leave_out_its_inside_but_nothing_else(returned: Any, wanted: Any, fits: bool) -> None:
    assert (like(returned, wanted) == wanted) is fits


def test_the_command_counts_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = copy.deepcopy(ONE) | {"id": "TWO", "start": {"supervisor": "not_started"}}
    left_out = copy.deepcopy(ONE) | {"id": "THREE", "tags": ["forced_kill"]}
    file = tmp_path / "scenarios.json"
    file.write_text(json.dumps({"scenarios": [ONE, broken, left_out]}), encoding="utf-8")
    assert main([str(file)]) == 1
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first == "ONE passed"
    assert second == "TWO failed: Differed: start: supervisor: expected not_started, got alive"
    assert third.startswith("THREE skipped: forced_kill (")
    assert last == "1 passed, 1 failed, 1 skipped"
    file.write_text(json.dumps({"scenarios": [ONE]}), encoding="utf-8")
    assert main([str(file)]) == 0
