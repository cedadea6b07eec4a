"""What ``why`` says of a supervisor's report."""

from __future__ import annotations

import pytest

from actors.spec import SHUTDOWN, ExitKind, ExitReason, Origin
from supervisors.decisions.model import Report, ReportKind
from supervisors.report_words import said

CRASH = ExitReason.crashed("signal SIGKILL", origin=Origin.WORLD)
LEFT_ALONE = ExitReason(ExitKind.SHUTDOWN, "exit 1", Origin.WORLD)


@pytest.mark.parametrize(
    ("kind", "reason", "delay_s", "text"),
    [
        (ReportKind.EXITED, CRASH, None, f"ended: {CRASH}"),
        (ReportKind.EXITED, LEFT_ALONE, None, "ended: exit 1"),
        (ReportKind.STOPPED, SHUTDOWN, None, "stopped"),
        (ReportKind.STOPPED, None, None, "stopped"),
        (ReportKind.RESTARTING, CRASH, 0.0, f"restarting after {CRASH}"),
        (ReportKind.RESTARTING, CRASH, 1.5, f"restarting in 1.5 s after {CRASH}"),
        (ReportKind.RESTARTING, ExitReason(ExitKind.SHUTDOWN, "with a"), None, "restarting with a"),
    ],
)
def test_a_report_in_a_sentence(kind: ReportKind, reason: ExitReason | None, delay_s: float | None, text: str) -> None:
    assert said(Report(kind, "a", 1, reason, delay_s)) == text
