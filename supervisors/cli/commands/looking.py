"""``selfheal logs``, ``why`` and ``wait``: looking at one node."""

from __future__ import annotations

import threading
import time
from typing import Annotated

import typer

from actors.board import NodeState
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.outside import AbsoluteOption, Outside, command, seconds_of
from supervisors.cli.terminal import print_json, say, table
from supervisors.manager import SCHEMA, Transition
from supervisors.phrases import age, local_time, status
from supervisors.tree_json import unix_seconds


@command
def logs(
    outside: Outside,
    service: Annotated[str, typer.Argument(help="Whose output.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many lines back.")] = 50,
) -> None:
    """The last lines of a service's output."""
    with outside.manager() as manager:
        if not follow:
            found = manager.log_tail(service, lines)
            if outside.as_json:
                print_json({"schema": SCHEMA, "service": service, "lines": found})
            else:
                say(*found)
            return
        try:
            for line in manager.log_follow(service, lines, closed=threading.Event()):
                if outside.as_json:
                    print_json({"line": line})
                else:
                    say(line)
        except KeyboardInterrupt:
            return


@command
def why(
    outside: Outside,
    node: Annotated[str, typer.Argument(help="A service, a group or any other node.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many.")] = 20,
    absolute: AbsoluteOption = False,
) -> None:
    """What happened to a node and why, newest first."""
    with outside.manager() as manager:
        found = manager.why(node, limit)
    if outside.as_json:
        print_json({"schema": SCHEMA, "transitions": found})
    elif found:
        now = time.time()
        say(table(("WHEN", "EVENT", "WHAT"), [_row(one, now, absolute) for one in found]))
    else:
        say(f"nothing is recorded of {node} yet")


@command
def wait(
    outside: Outside,
    node: Annotated[str, typer.Argument(help="A service or any other node.")],
    state: Annotated[str, typer.Option("--for", metavar="STATE", help="The state to wait for.")] = "ready",
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long, e.g. 30s.")] = "30s",
) -> None:
    """Wait until a node is in a state. Exit code 5 when it is not in time."""
    states = [one.value for one in NodeState]
    if state not in states:
        raise Quit(WRONG_USAGE, f"--for {state!r} is not one of {', '.join(states)}")
    limit_s = seconds_of(timeout)
    with outside.manager() as manager:
        reached = manager.wait_for(node, state, timeout_s=limit_s)
    if outside.as_json:
        print_json({"schema": SCHEMA, "node": reached})
    else:
        say(f"{reached['name']} {status(reached, time.time()) or reached['state']}")


def _row(one: Transition, now: float, absolute: bool) -> tuple[str, str, str]:
    when = local_time(one["at"]) if absolute else f"{age(now - unix_seconds(one['at']))} ago"
    return when, one["event"], one["text"]
