"""``selfheal silence``: alerts that start nothing for a while. They are recorded and told all the same."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from supervisors.cli.outside import Outside, command, seconds_of
from supervisors.cli.terminal import print_json, say, table
from supervisors.manager import SCHEMA
from supervisors.phrases import age, clean
from supervisors.tree_json import unix_seconds

MOST_S = 366 * 86400.0


@command
def add(
    outside: Outside,
    matchers: Annotated[
        list[str],
        typer.Argument(
            metavar="MATCHERS", help="All must fit: service=NAME, severity!=low, message=~REGEX, labels.n>=5."
        ),
    ],
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, e.g. 2h.")],
    why: Annotated[str, typer.Option("--why", help="Why, for the record.")] = "",
) -> None:
    """No recovery for alerts that all MATCHERS fit."""
    from supervisors.cli.silencing import check_matchers  # noqa: PLC0415  slow to import

    check_matchers(matchers)
    with outside.manager() as manager:
        _print(outside, [manager.add_silence(matchers, seconds_of(for_, "--for", MOST_S), by=outside.by, why=why)])


@command
def list_(
    outside: Outside, everything: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False
) -> None:
    """The silences, newest first."""
    with outside.manager() as manager:
        found = manager.silences()
    _print(outside, [one for one in found if everything or one["state"] == "active"])


@command
def expire(
    outside: Outside,
    silence_id: Annotated[str, typer.Argument(metavar="ID")],
    why: Annotated[str, typer.Option("--why", help="Why, for the record.")] = "",
) -> None:
    """End a silence now."""
    with outside.manager() as manager:
        _print(outside, [manager.end_silence(silence_id, by=outside.by, why=why)])


COMMANDS = {"add": add, "list": list_, "expire": expire}


def _print(outside: Outside, silences: Sequence[Mapping[str, Any]]) -> None:
    if outside.as_json:
        print_json({"schema": SCHEMA, "silences": silences})
        return
    rows = [
        (one["id"], _state(one), clean(" ".join(one["matchers"])), clean(one["by"]), clean(one["why"]) or "-")
        for one in silences
    ]
    say(table(("ID", "STATE", "MATCHERS", "BY", "WHY"), rows))


def _state(one: Mapping[str, Any]) -> str:
    if one["state"] == "active":
        return f"for another {age(unix_seconds(one['ends_at']) - time.time())}"
    return str(one["state"])
