"""All commands put together, and every error turned into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from supervisors.cli.commands import (
    alert,
    approval,
    audit,
    daemon,
    events,
    keys,
    looking,
    recovery,
    reload,
    runbook,
    services,
    silence,
    tree,
)
from supervisors.cli.exits import FAILED, WELL, WRONG_USAGE, Quit, code_of
from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA, ManagerError
from supervisors.version import package_version

EXIT_CODES: Final = (
    "Exit codes: 0 well, 1 failed, 2 wrong usage or bad file, 3 something is down or nothing was recovered, "
    "4 no daemon answers, 5 timed out."
)


def make_app() -> typer.Typer:
    app = top("One daemon owns the tree of services, restarts what crashes and answers alerts with runbooks.")
    app.command("run")(daemon.run)
    app.command("stop")(daemon.stop)
    app.command("tree")(tree.tree)
    app.command("plan")(reload.plan)
    app.command("apply")(reload.apply)
    app.command("alerts")(recovery.alerts)
    app.command("executions")(recovery.executions)
    app.command("approvals")(approval.approvals)
    app.command("approve")(approval.approve)
    app.command("reject")(approval.reject)
    app.command("events")(events.events)
    app.command("logs")(looking.logs)
    app.command("why")(looking.why)
    app.command("wait")(looking.wait)
    app.add_typer(
        _with(group("Show, start, stop, restart, scale, pause and resume services."), services.COMMANDS),
        name="services",
    )
    app.add_typer(_with(group("Alerts to the daemon, as any Guardian sends them."), alert.COMMANDS), name="alert")
    app.add_typer(
        _with(
            group("Whether alerts start runbooks; latched targets."),
            recovery.COMMANDS,
        ),
        name="recovery",
    )
    app.add_typer(_with(group("Alerts that start nothing for a while."), silence.COMMANDS), name="silence")
    app.add_typer(_with(group("Who may speak to the daemon over its links."), keys.COMMANDS), name="keys")
    app.add_typer(_with(group("The record of what was decided and done."), audit.COMMANDS), name="audit")
    app.add_typer(_with(group("The runbooks that answer alerts."), runbook.COMMANDS), name="runbook")
    return app


def top(text: str) -> typer.Typer:
    made = typer.Typer(
        help=text,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        invoke_without_command=True,
    )

    @made.callback(help=text)
    @command
    def _options(
        outside: Outside,
        version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
    ) -> None:
        """The options that may stand before the subcommand, and what needs none."""
        if version:
            found = package_version()
            if outside.as_json:
                print_json({"schema": SCHEMA, "version": found})
            else:
                say(f"selfheal {found}")
            raise Quit(WELL)
        if outside.subcommand is None:
            raise Quit(WRONG_USAGE, "Missing command; see 'selfheal --help'")

    return made


def group(text: str) -> typer.Typer:
    made = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None, add_completion=False)

    @made.callback(help=text)
    @command
    def _options(outside: Outside) -> None:
        """Only takes the options that may stand before the subcommand."""

    return made


def _with(made: typer.Typer, commands: dict[str, Any]) -> typer.Typer:
    for name, function in commands.items():
        made.command(name)(function)
    return made


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        result = typer.main.get_command(make_app()).main(list(arguments), prog_name="selfheal", standalone_mode=False)
        sys.stdout.flush()
    except Quit as quit_:
        return _said(quit_.text, quit_.code)
    except ManagerError as error:
        return _said(str(error), code_of(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        return FAILED
    except Exception as error:
        return _usage(error)
    return result if isinstance(result, int) else WELL


def _said(text: str | None, code: int) -> int:
    if text is not None:
        complain(f"selfheal: {text}")
    return code


def _usage(error: Any) -> int:
    """A wrong command line, as the parser tells it. Everything else is a fault of ours and is raised on."""
    if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "selfheal"
    text = " ".join(error.format_message().split()).rstrip(".")
    return _said(f"{text}; see '{path} --help'", int(error.exit_code))
