"""A supervisor's report in one sentence, for ``selfheal why`` and the log. Pure."""

from __future__ import annotations

from actors.spec import ExitKind
from supervisors.decisions.model import Report, ReportKind


def said(report: Report) -> str:
    """What happened to the child, and why."""
    reason = str(report.reason).removeprefix("shutdown:") if report.reason is not None else ""
    match report.kind:
        case ReportKind.RESTARTING if report.delay_s:
            return f"restarting in {report.delay_s:.1f} s after {reason}"
        case ReportKind.RESTARTING:
            is_with_others = report.reason is not None and report.reason.kind is ExitKind.SHUTDOWN
            return f"restarting {reason}" if is_with_others else f"restarting after {reason}"
        case ReportKind.PARKED:
            wait = f"; next try in {report.delay_s:.0f} s" if report.delay_s else ""
            return f"crash loop: {reason}{wait}"
        case ReportKind.EXITED:
            return f"ended: {reason}"
        case ReportKind.START_FAILED:
            return f"could not start: {reason}"
        case ReportKind.KILLED:
            return "did not stop in time and was killed"
        case ReportKind.GAVE_UP:
            return f"its supervisor gave up after {reason}"
        case ReportKind.STOPPED:
            return f"stopped: {reason}" if reason not in ("", "shutdown") else "stopped"
        case ReportKind.STARTED:
            return "started"
        case ReportKind.READY:
            return "ready"
