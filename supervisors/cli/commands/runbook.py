"""``selfheal runbook``: the files that answer alerts. Needs no daemon but for a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from supervisors.cli.outside import Outside, command, seconds_of
from supervisors.cli.terminal import print_json, say, table

Named = Annotated[list[str] | None, typer.Argument(metavar="FILE|DIR|ID...", show_default=False)]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Use the runbook directories of this file.")
]

SHOWN: Final = ("match", "for", "preconditions", "approval", "limits", "dedup", "escalate")
"""Of a runbook, as its file has it."""


@command
def list_(outside: Outside, config: Config = None) -> None:
    """The runbooks the running daemon uses, and the files it refused. Without a daemon, or with --config: those of the
    files. Exit code 3 when a file is refused.
    """
    from supervisors.cli.listing import list_runbooks  # noqa: PLC0415  slow to import

    list_runbooks(outside, config)


@command
def show(outside: Outside, runbook: Annotated[str, typer.Argument(metavar="ID")], config: Config = None) -> None:
    """One runbook: what it answers and what it does."""
    from supervisors.cli.libraries import runbook_of  # noqa: PLC0415  slow to import

    found, library = runbook_of(config, runbook)
    if outside.as_json:
        print_json(json.loads(found.source))
        return
    say(f"{found.id} {found.version}: {found.name}\n{found.description}\n")
    raw = json.loads(found.source)
    facts = {"file": library.files[found.id], "mode": found.mode.value if found.enabled else "off (disabled)"}
    facts |= {key: json.dumps(raw[key]) for key in SHOWN if raw.get(key)} | {"target": found.target}
    say(*(f"{key:13} {text}" for key, text in facts.items()), "")
    say(table(("STEP", "DOES", "EFFECT", "UNDONE BY"), list(map(_step, found.actions))))
    report = library.reports.get(found.id, ())
    if report:
        say("\nread from version 1:", *(f"  {one.pointer or '/'}: {one.text}" for one in report))


@command
def lint(
    outside: Outside,
    named: Named = None,
    config: Config = None,
    strict: Annotated[bool, typer.Option("--strict", help="A warning counts as an error.")] = False,
    alerts: Annotated[
        Path | None, typer.Option("--alerts", metavar="FILE", help="Recorded alerts (a journal, or JSON lines).")
    ] = None,
) -> None:
    """Check runbook files, or all the daemon would use; every problem is told. Exit code 1 when there is an error."""
    from supervisors.cli.linting import lint_files  # noqa: PLC0415  slow to import

    lint_files(outside, named or (), config, alerts, strict=strict)


@command
def try_(
    outside: Outside,
    named: Named = None,
    config: Config = None,
) -> None:
    """Run the tests that stand in runbook files: the real decision and engine, with the file's fakes as the world."""
    from supervisors.cli.rehearsing import rehearse_files  # noqa: PLC0415  slow to import

    rehearse_files(outside, named or (), config)


@command
def replay(
    outside: Outside,
    alerts: Annotated[Path, typer.Argument(metavar="ALERTS", help="A journal, or JSON lines; '-' is standard input.")],
    runbooks: Annotated[Path, typer.Option("--runbooks", metavar="DIR", help="Runbooks to compare with.")],
    config: Config = None,
    takes: Annotated[str, typer.Option("--takes", metavar="DURATION", help="How long a run is taken to last.")] = "30s",
    all_: Annotated[bool, typer.Option("--all", help="Every alert that is decided otherwise, not only some.")] = False,
) -> None:
    """Decide recorded alerts again, with the present runbooks and with those of DIR; prints what differs."""
    from supervisors.cli.replaying import replay_files  # noqa: PLC0415  slow to import

    replay_files(outside, alerts, runbooks, config, run_s=seconds_of(takes, "--takes"), everything=all_)


@command
def explain(
    outside: Outside,
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="A recorded alert's id, a JSON file, or '-'.")],
    config: Config = None,
) -> None:
    """For every runbook, whether the alert fits it, and which comparison failed with which value."""
    from supervisors.cli.explaining import explain_alert  # noqa: PLC0415  slow to import

    explain_alert(outside, alert, config)


@command
def graph(
    outside: Outside,
    named: Named = None,
    config: Config = None,
    dot: Annotated[bool, typer.Option("--dot", help="For Graphviz.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="For Mermaid.")] = False,
) -> None:
    """What leads to what: alert types, runbooks, their steps, escalations."""
    from supervisors.cli.drawing import draw_graph  # noqa: PLC0415  slow to import

    draw_graph(outside, named or (), config, dot=dot, mermaid=mermaid)


@command
def run(
    outside: Outside,
    runbook: Annotated[str, typer.Argument(metavar="ID")],
    values: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter.")] = None,
    why: Annotated[str, typer.Option("--why", help="For the record.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and look at its preconditions.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the run.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait.")] = "60s",
    config: Config = None,
) -> None:
    """Ask the daemon to run a runbook: all limits hold, and approval where it is asked for."""
    from supervisors.cli import running  # noqa: PLC0415  slow to import

    if dry_run:
        running.dry_run(outside, runbook, values or (), config)
    else:
        running.run_runbook(outside, runbook, values or (), why, wait_s=seconds_of(timeout) if wait else None)


COMMANDS = {
    "list": list_,
    "show": show,
    "lint": lint,
    "test": try_,
    "graph": graph,
    "explain": explain,
    "replay": replay,
    "run": run,
}


def _step(action: Any) -> tuple[str, ...]:
    does = action.call.type.value if action.call else "wait"
    return action.id, does, action.effect.value, action.rollback.call.type.value if action.rollback else "-"
