"""Whether the parts of a file fit together."""

from __future__ import annotations

from typing import Any

import pytest

from runbooks.engine_words import Answer
from runbooks.model import CallType, FieldTest, Mode, Op
from runbooks.steps import make_check
from tests.runbooks.files import COMMAND, GOOD, changed, problems, runbook

APPROVAL = {"timeout": "15m"}
FINAL = {
    **COMMAND,
    "effect": "irreversible",
    "irreversible_reason": "it cannot be taken back",
    "probe": {"call": {"type": "command_ok", "argv": ["true"]}},
    "verify": {"call": {"type": "command_ok", "argv": ["true"]}},
}
TELL = {**FINAL, "id": "tell", "action_type": "notify", "parameters": {"message": "hello"}, "command": ...}
NEW = ["echo", "{new}"]


def step(more: dict[str, Any]) -> dict[str, Any]:
    made = {**COMMAND, **more}
    return {key: value for key, value in made.items() if value is not ...}


def steps(*given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**changed("/actions", list(map(step, given))), **more}


@pytest.mark.parametrize(
    ("raw", "pointer", "text"),
    [
        (steps({"id": "a1", "dependencies": ["nobody"]}), "/actions/0/dependencies/0", "there is no step 'nobody'"),
        (steps({"id": "a1", "dependencies": ["a1"]}), "/actions/0/dependencies/0", "a1 -> a1"),
        (
            steps({"id": "a1", "dependencies": ["b1"]}, {"id": "b1", "dependencies": ["a1"]}),
            "/actions/1/dependencies/0",
            "depends on itself: a1 -> b1 -> a1",
        ),
        (steps({"id": "a1", "dependencies": ["b1"]}, {"id": "b1"}), "/actions/0/dependencies/0", "move it up"),
        (steps({"id": "a1", "command": NEW, "outputs": {"new": "/x"}}), "/actions/0", "comes from step 'a1'"),
        (steps({"id": "a1", "command": NEW}, {"id": "b1", "outputs": {"new": "/x"}}), "/actions/0", "step 'b1'"),
        (
            steps({"id": "a1", "outputs": {"new": "/x"}, "on_failure": "continue"}, {"id": "b1", "command": NEW}),
            "/actions/1",
            "need not have been done by then",
        ),
        (
            steps(
                {"id": "a1", "outputs": {"new": "/x"}, "when": {"field": "/alert/type", "op": "exists"}},
                {"id": "b1", "command": NEW},
            ),
            "/actions/1",
            "need not have been done by then",
        ),
        (
            steps(
                {"id": "a1", "outputs": {"new": "/x"}, "when": {"field": "/alert/type", "op": "exists"}},
                {"id": "b1", "command": NEW, "dependencies": ["a1"]},
            ),
            "/actions/1",
            "need not have been done by then",
        ),
        (
            steps(
                {"id": "a1", "outputs": {"new": "/x"}, "on_failure": "continue"},
                {"id": "b1", "command": NEW, "when": {"field": "/outputs/new", "op": "absent"}},
            ),
            "/actions/1",
            "need not have been done by then",
        ),
        (steps({"id": "a1", "outputs": {"service": "/x"}}), "/actions/0/outputs/service", "a parameter's name"),
        (
            steps({"id": "a1", "outputs": {"new": "/x"}}, {"id": "b1", "outputs": {"new": "/x"}}),
            "/actions/1/outputs/new",
            "made by step 'a1' already",
        ),
        (steps({"id": "a1", "when": {"field": "/type", "op": "exists"}}), "/actions/0/when", "when looks at /alert"),
        (
            steps({"id": "a1", "when": {"not": {"field": "/parameters/nope", "op": "exists"}}}),
            "/actions/0/when",
            "is no parameter",
        ),
        (
            steps({"id": "a1", "when": {"any": [{"field": "/outputs/later", "op": "exists"}]}}),
            "/actions/0/when",
            "no output of an earlier step",
        ),
        (steps({"id": "a1", "requires_confirmation": True}), "/actions/0", "needs an approval"),
        (steps(FINAL), "/actions/0", "cannot be taken back: the runbook needs an approval"),
        (
            steps(FINAL, approval={**APPROVAL, "required_when": "risk>=high"}),
            "/actions/0/risk_level",
            "only asked for at risk>=high",
        ),
        (
            changed("/actions/0/rollback/call/with/service", "other"),
            "/actions/0/rollback/call",
            "is about the service 'other'; this action is about '{service}'",
        ),
        (
            steps({"id": "a1", "command": [{"secret": "TOKEN"}]}),
            "/actions/0/command/0",
            "valid string",
        ),
        (
            changed("/success_criteria/0/call", {"type": "tcp_connect", "with": {"port": 1, "host": {"secret": "H"}}}),
            "/success_criteria/0/call",
            "no secret may stand in host",
        ),
        (
            steps({"id": "a1", "action_type": "api_call", "command": ..., "parameters": {
                "url": "http://127.0.0.1/", "headers": {"Authorization": {"secret": "{service}"}}}}),
            "/actions/0",
            "a secret's name holds no placeholder",
        ),
        (steps({"id": "a1", "command": ["{service}", "x"]}), "/actions/0", "would choose the program"),
        (changed("/limits", {"min_healthy": "101%"}), "/limits/min_healthy", "pattern"),
        *(
            (
                steps({"id": "a1", "action_type": "api_call", "command": ..., "parameters": {"url": url}}),
                "/actions/0",
                "url",
            )
            for url in ("http://svc-{service}:80/x", "http://10.0.0.1{service}/x", "http://h:8{service}/", "https://h{service}?x")
        ),
        (steps({"id": "a1", "command": ["/opt/{service}"]}), "/actions/0", "would choose the program"),
        (steps({"id": "a1", "parameters": {"run_as": "{service}"}}), "/actions/0", "would choose the user"),
        (changed("/parameters/service/enum", ["ok", "not ok!"]), "/parameters/service/enum", "is no service"),
        (changed("/match", {"field": "/a", "op": "absent", "value": 1}), "/match", "absent takes no value"),
        ({**GOOD, "auto_execute": False, "mode": "auto"}, "", "auto_execute false means mode observe"),
        ({**GOOD, "requires_approval": True}, "", "requires_approval needs approval"),
        ({**GOOD, "requires_approval": False, "approval": APPROVAL}, "", "there is an approval"),
        (
            changed("/success_criteria/0/call", {"type": "time_passed"}),
            "/success_criteria/0/call/type",
            "should be",
        ),
        (
            steps({"id": "w1", "action_type": "wait", "effect": "none", "command": ..., "parameters": {"for": "2h"}}),
            "/actions/0/parameters/for",
            "not shorter than max_execution_time",
        ),
        (
            steps({"id": "w1", "action_type": "wait", "effect": "none", "command": ..., "parameters": {}}),
            "/actions/0",
            "wait needs parameters.for",
        ),
        (
            steps({"id": "n1", "action_type": "network_operation", "effect": "none", "command": ...,
                   "parameters": {"operation": "service_ready", "service": "a"}}),
            "/actions/0",
            "needs parameters.operation: dns_resolves, http_ok, ping, tcp_connect",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_where_it_is(raw: dict[str, Any], pointer: str, text: str) -> None:
    found = problems(raw)
    assert pointer in found, found
    assert text in found[pointer]


@pytest.mark.parametrize(
    "raw",
    [
        steps({"id": "a1", "outputs": {"new": "/x"}}, {"id": "b1", "command": NEW}),
        steps(
            {"id": "a1", "outputs": {"new": "/x"}, "on_failure": "continue"},
            {"id": "b1", "command": NEW, "dependencies": ["a1"]},
        ),
        steps(
            {"id": "a1", "outputs": {"new": "/x"}, "when": {"field": "/alert/type", "op": "exists"}},
            {
                "id": "b1",
                "command": NEW,
                "when": {"all": [{"field": "/outputs/new", "op": "gt", "value": 1}]},
            },
        ),
        steps(
            {"id": "a1", "outputs": {"new": "/x"}},
            {"id": "b1", "when": {"field": "/outputs/new", "op": "gt", "value": 3}},
        ),
        steps(FINAL, approval=APPROVAL),
        steps({**FINAL, "requires_confirmation": True}, approval=APPROVAL),
        steps({**FINAL, "risk_level": "high"}, approval={**APPROVAL, "required_when": "risk>=high"}),
        steps({**TELL, "probe": {"call": {"type": "notified"}}, "verify": {"call": {"type": "notified"}}}),
        {**GOOD, "requires_approval": True, "approval": APPROVAL},
    ],
)
def test_what_fits_is_taken(raw: dict[str, Any]) -> None:
    assert problems(raw) == {}


def test_outputs_reach_the_success_criteria_when_their_step_must_have_been_done() -> None:
    criterion = {"call": {"type": "command_ok", "argv": ["test", "{new}"]}}
    raw = steps({"id": "a1", "outputs": {"new": "/x"}}, success_criteria=[criterion])
    assert problems(raw) == {}
    skipped = steps({"id": "a1", "outputs": {"new": "/x"}, "on_failure": "continue"}, success_criteria=[criterion])
    assert "need not have been done" in problems(skipped)["/success_criteria/0/call"]


def test_the_designed_schemas_other_words_are_understood() -> None:
    made = runbook(
        {
            **changed(
                "/match",
                {
                    "all": [
                        {"field": "/a", "op": "regex", "value": "x"},
                        {"field": "/b", "op": "absent"},
                        {"field": "/c", "op": "exists"},
                    ]
                },
            ),
            "auto_execute": False,
            "actions": [
                {
                    "id": "look",
                    "name": "Look",
                    "action_type": "network_operation",
                    "effect": "none",
                    "timeout": 5,
                    "parameters": {"operation": "tcp_connect", "port": 1},
                },
                {"id": "rest", "name": "Rest", "action_type": "wait", "effect": "none", "parameters": {"for": "3s"}},
            ],
        }
    )
    assert getattr(made.match, "parts") == (  # noqa: B009  it is a union
        FieldTest("/a", Op.MATCHES, "x"),
        FieldTest("/b", Op.EXISTS, False),
        FieldTest("/c", Op.EXISTS, True),
    )
    assert made.mode is Mode.OBSERVE
    look, rest = (action.verify for action in made.actions)
    assert look is not None
    assert (look.call.type, look.call.arguments, look.within_s) == (CallType.TCP_CONNECT, {"port": 1}, 5)
    assert rest is not None
    assert (rest.call.type, rest.hold_for_s) == (CallType.TIME_PASSED, 3)


def test_a_wait_says_yes_and_is_seen_to_hold() -> None:
    """The engine's ``hold_for`` is the waiting; the look itself is nothing."""
    made = runbook(
        steps({"id": "w1", "action_type": "wait", "effect": "none", "command": ..., "parameters": {"for": "3s"}})
    )
    verify = made.actions[0].verify
    assert verify is not None
    ports: Any = None
    assert make_check(verify.call, None, ports, "x").answer is Answer.YES


def test_a_circle_is_found_however_long_it_is() -> None:
    names = [f"s{number}" for number in range(200)]
    ring = [{"id": name, "dependencies": [names[number - 1]]} for number, name in enumerate(names)]
    assert all("depends on itself" in text for text in problems(steps(*ring)).values())
    assert problems(steps({"id": "s0"}, *[{**one, "dependencies": ["s0"]} for one in ring[1:]])) == {}
