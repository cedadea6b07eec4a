"""A runbook's step that is a command to a bridge endpoint: real journal, real actors, real link, a real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from runbooks import engine_asks
from runbooks.calls.bridges import MAX_ID_CHARS, request_of
from runbooks.engine_words import Answer, Try
from runbooks.model import Call, CallType
from runbooks.ports import BridgeRequest, PortError, Ports
from runbooks.steps import make_call, make_check
from tests.bridge.desk import Endpoint, endpoint, once_done
from tests.links.guarded import add_client
from tests.recovery.place import Place, recovering
from tests.recovery.test_alert_to_outcome import crash_execution
from tests.runbooks.files import GOOD, problems
from tests.support.eventually import eventually

DONE = {
    "call": {"type": "bridge_done", "with": {"endpoint": "mql4"}, "timeout": "2s"},
    "within": "20s",
    "every": "200ms",
}
RUNBOOK: dict[str, Any] = {
    "schema_version": 2,
    "id": "mql4_work",
    "version": "1.0.0",
    "name": "Work",
    "description": "For tests",
    "match": {"field": "/type", "op": "eq", "value": "bridge_mql4_failure"},
    "priority": 90,
    "parameters": {
        "number": {"type": "integer", "from": "/labels/n", "default": 1},
        "takes_s": {"type": "integer", "from": "/labels/takes_s", "default": 0},
    },
    "target": "bridge:mql4",
    "actions": [
        {
            "id": "work",
            "name": "Have it work",
            "action_type": "bridge_command",
            "effect": "mutating",
            "irreversible_reason": "what is done is done",
            "parameters": {
                "endpoint": "mql4",
                "command": "work",
                "parameters": {"n": "{number}", "takes_s": "{takes_s}"},
            },
            "timeout": "20s",
            "retry": {"attempts": 3, "delay": "100ms"},
            "probe": DONE,
            "verify": DONE,
        }
    ],
    "success_criteria": [{"call": {"type": "command_ok", "argv": ["true"]}}],
}


def write_runbook(folder: Path, **action: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (one,) = RUNBOOK["actions"]
    (folder / "work.json").write_text(json.dumps(RUNBOOK | {"actions": [one | action]}))
    return folder


@contextmanager
def working(folder: Path, **action: Any) -> Iterator[tuple[Place, Endpoint, GuardianClient]]:
    runbooks = write_runbook(folder / "runbooks", **action)
    with (
        recovering(folder / "state", runbooks=(runbooks,)) as place,
        endpoint(str(folder / "state"), folder / "endpoint") as mql4,
        GuardianClient(place.address) as guardian,
    ):
        yield place, mql4, guardian


def failure(**labels: Any) -> Alert:
    return Alert(type="bridge_mql4_failure", labels=labels)


def test_a_step_has_the_endpoint_work_once(tmp_path: Path) -> None:
    with working(tmp_path) as (_, mql4, guardian):
        ack = guardian.send(failure(n=7))
        assert ack.execution_id is not None
        outcome = guardian.wait(ack.execution_id, 30)
        assert outcome.is_recovered, outcome
        assert mql4.done() == ["7"]


def test_an_execution_cut_off_in_the_middle_asks_and_does_nothing_twice(tmp_path: Path) -> None:
    with working(tmp_path) as (place, mql4, guardian):
        ack = guardian.send(failure(n=7, takes_s=1000))
        once_done(mql4, "7")
        crash_execution(place)
        mql4.let_go()
        assert ack.execution_id is not None
        assert guardian.wait(ack.execution_id, 40).is_recovered
        assert mql4.done() == ["7"]


def test_an_endpoint_killed_in_the_middle_ends_in_unknown_and_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_asks, "PROBE_PATIENCE_S", 0.5)
    quick = DONE | {"within": "0s"}
    with working(tmp_path, timeout="3s", probe=quick, verify=quick) as (_, mql4, guardian):
        ack = guardian.send(failure(n=7, takes_s=1000))
        once_done(mql4, "7")
        mql4.kill_and_start()
        assert ack.execution_id is not None
        outcome = guardian.wait(ack.execution_id, 40)
        assert (outcome.status, "may have been done" in outcome.detail) == ("unknown", True)
        assert mql4.done() == ["7"]


def test_what_the_endpoint_refuses_fails_after_its_attempts(tmp_path: Path) -> None:
    nothing = {"endpoint": "mql4", "command": "play"}
    with working(tmp_path, parameters=nothing) as (place, mql4, guardian):
        eventually(lambda: getattr(place.recovery.sessions.session("mql4"), "commands", None) is not None)
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        outcome = guardian.wait(ack.execution_id, 40)
        assert (outcome.status, "has no command 'play'" in outcome.detail) == ("failed", True)
        assert mql4.done() == []


def test_only_a_key_that_may_have_commands_speaks_for_an_endpoint(tmp_path: Path) -> None:
    """And to look whether it may is nobody's offence."""
    with recovering(tmp_path) as place:
        add_client(tmp_path, "guardian-1")
        add_client(tmp_path, "bridge-1", "bridge")
        eventually(lambda: place.recovery.sessions.may_answer("bridge-1"))
        assert not place.recovery.sessions.may_answer("guardian-1")
        with GuardianClient(place.address) as guardian:
            assert "denied" not in {one.event for one in guardian.events(0).events}


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["work", "w" * 64, "w" * 63 + "v"])
def test_a_request_is_named_by_its_attempt_and_names_the_earlier_ones(step: str) -> None:
    one, three = request_of("x-0123456789abcdef", Try(step, 1)), request_of("x-0123456789abcdef", Try(step, 3))
    assert one.instead_of == ()
    assert three.instead_of == (one.id, request_of("x-0123456789abcdef", Try(step, 2)).id)
    assert three.id not in three.instead_of
    assert len(three.id) <= MAX_ID_CHARS
    assert request_of("x-0123456789abcdef", Try(step + ".undo", 1)).id != one.id


def test_a_daemon_without_bridges_says_so(tmp_path: Path) -> None:
    class Nothing:
        def __getattr__(self, name: str) -> Any:
            raise PortError(name)

    nothing: Any = Nothing()
    ports = Ports(nothing, nothing, nothing, nothing)
    done = make_call(
        Call(CallType.BRIDGE_COMMAND, {"endpoint": "a", "command": "b"}), None, ports, "x-1", Try("work", 1)
    )
    assert (done.ok, done.error) == (False, "there are no bridges here; nothing was sent")
    look = make_check(Call(CallType.BRIDGE_DONE, {"endpoint": "a"}), None, ports, "x-1", Try("work", 1))
    assert look.answer is Answer.UNKNOWN
    assert make_check(Call(CallType.BRIDGE_DONE, {"endpoint": "a"}), None, ports, "x-1").answer is Answer.UNKNOWN
    assert BridgeRequest("a").instead_of == ()


def test_the_border_knows_the_words() -> None:
    assert problems(RUNBOOK) == {}
    (action,) = RUNBOOK["actions"]
    for change, pointer, text in (
        ({"parameters": {"endpoint": "mql4"}}, "/actions/0", "bridge_command needs command"),
        ({"parameters": action["parameters"] | {"parameters": []}}, "/actions/0", "parameters cannot be []"),
        ({"probe": None}, "/actions/0", "needs probe"),
    ):
        found = problems(RUNBOOK | {"actions": [action | change]})
        assert text in found[pointer], found
    assert "about an action" in problems(GOOD | {"preconditions": [DONE]})["/preconditions/0/call"]
