"""The one line for systemd, and the exit code of a chosen service: pure."""

from __future__ import annotations

from typing import Any

import pytest

from actors.board import NodeKind, NodeState, NodeStatus
from actors.runtimes.base import ExitStatus
from actors.service_fsm import Exit, LaunchRefused, RestartPolicy, Rules, RunEnded, RunState, ServiceRun, step
from supervisors.decisions.model import Report, ReportKind
from supervisors.exit_with import NEVER_STARTED, NOBODY_KNOWS, code_at_end
from supervisors.status_line import status_line


def service(name: str, state: NodeState, **more: Any) -> NodeStatus:
    return NodeStatus(f"root/services/{name}", NodeKind.SERVICE, state, **more)


def test_the_line_counts_what_is_wanted_and_names_the_rest_worst_first() -> None:
    nodes = [
        NodeStatus("root", NodeKind.SUPERVISOR, NodeState.READY),
        service("a", NodeState.READY),
        service("b", NodeState.STARTING),
        service("c", NodeState.CRASH_LOOP),
        service("by-hand", NodeState.STOPPED, wanted=False),
        service("done", NodeState.STOPPED),
    ]
    assert status_line(nodes) == "1 of 3 ready; crash_loop: c; starting: b"


def test_a_long_line_is_cut_with_a_count() -> None:
    assert status_line(service(f"s{n}", NodeState.WAITING) for n in range(8)) == (
        "0 of 8 ready; waiting: s0, s1, s2, s3, s4 and 3 more"
    )


def ended(policy: RestartPolicy, event: RunEnded | LaunchRefused, kind: ReportKind = ReportKind.EXITED) -> int | None:
    """What the report of this end, made by the real state machine, means."""
    state = RunState.READY if isinstance(event, RunEnded) else RunState.LAUNCHING
    _, effects = step(ServiceRun(Rules(policy), state=state), event)
    (reason,) = [effect.reason for effect in effects if isinstance(effect, Exit)]
    return code_at_end(Report(kind, "a", 1, reason))


@pytest.mark.parametrize(
    ("policy", "status", "code"),
    [
        (RestartPolicy.NEVER, ExitStatus("exit 0", code=0), 0),
        (RestartPolicy.NEVER, ExitStatus("exit 3", code=3), 3),
        (RestartPolicy.NEVER, ExitStatus("signal SIGTERM", signal=15), 143),
        (RestartPolicy.NEVER, ExitStatus("unknown"), NOBODY_KNOWS),
        (RestartPolicy.ON_FAILURE, ExitStatus("exit 0", code=0), 0),
        (RestartPolicy.ON_FAILURE, ExitStatus("exit 3", code=3), None),
        (RestartPolicy.ALWAYS, ExitStatus("exit 0", code=0), None),
        (RestartPolicy.UNLESS_STOPPED, ExitStatus("docker stop", code=137, stopped_by_hand=True), 137),
    ],
)
def test_the_code_is_the_services_when_its_policy_leaves_it(
    policy: RestartPolicy, status: ExitStatus, code: int | None
) -> None:
    assert ended(policy, RunEnded(status)) == code


def test_a_parked_service_has_ended_for_good() -> None:
    assert ended(RestartPolicy.ALWAYS, RunEnded(ExitStatus("exit 9", code=9)), ReportKind.PARKED) == 9


def test_what_cannot_be_started_has_a_code_too() -> None:
    assert ended(RestartPolicy.NEVER, LaunchRefused("no such program")) == NEVER_STARTED


def test_a_stop_by_hand_is_no_end() -> None:
    assert ended(RestartPolicy.NEVER, RunEnded(ExitStatus("exit 0", code=0)), ReportKind.STOPPED) is None
