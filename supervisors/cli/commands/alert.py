"""``selfheal alert send``: one ZeroMQ alert, as any Guardian sends it."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisors.cli.outside import Outside, command, seconds_of


@command
def send(
    outside: Outside,
    type_: Annotated[str | None, typer.Option("--type", help="What is wrong, e.g. service_failure.")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Which service it is about.")] = None,
    severity: Annotated[str | None, typer.Option("--severity", help="low, medium, high (default), critical.")] = None,
    message: Annotated[str | None, typer.Option("--message", help="For people.")] = None,
    fields: Annotated[list[str] | None, typer.Option("--field", metavar="K=V", help="More facts.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="The alert as a JSON file; '-' is standard input.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the recovery.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait.")] = "60s",
) -> None:
    """Send an alert; prints what was decided. With --wait: 0 recovered, 1 failed, 3 nothing was recovered."""
    from supervisors.cli.alerting import send_alert  # noqa: PLC0415  slow to import

    said = {"type": type_, "service": service, "severity": severity, "message": message}
    send_alert(outside, file, said, fields or (), limit_s=seconds_of(timeout), wait=wait)


COMMANDS = {"send": send}
