"""``selfheal plan`` and ``selfheal apply``: what the edited file changes, and changing only that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from supervisors.cli.exits import FAILED, Quit
from supervisors.cli.outside import ByOption, Outside, command, seconds_of
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import Applied, NodeEdit
from supervisors.phrases import clean

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Another file than the daemon's own.", show_default=False)
]
_SIGNS: Final = {"create": "+", "update_in_place": "~", "restart": "!", "remove": "-", "unchanged": " "}
_WORDS: Final = {"update_in_place": "update in place"}


@command
def plan(outside: Outside, config: ConfigOption = None) -> None:
    """What the edited file would change in the running tree, node by node. Changes nothing."""
    with outside.manager() as manager:
        shown = manager.plan(_full(config))
    if outside.as_json:
        print_json(shown)
        return
    _warn(shown.get("warnings", ()))
    changed = [one for one in shown["nodes"] if one["action"] != "unchanged"]
    _say_edits(changed, shown["daemon"], shown["notes"])
    words = _counted(shown["nodes"])
    say(f"plan {shown['plan']}: {words or 'nothing there'}" if not shown["empty"] else "nothing to change")


@command
def apply(
    outside: Outside,
    config: ConfigOption = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="ID", help="Only if the plan is still this one.", show_default=False)
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long to wait for readiness.")] = (
        "60s"
    ),
    by: ByOption = None,
) -> None:
    """Change the running tree to what the file says, and touch nothing else. A file with a problem changes nothing."""
    with outside.manager() as manager:
        made = manager.apply(_full(config), by=by or outside.by, plan=plan, timeout_s=seconds_of(timeout))
    show_applied(outside, made)


def show_applied(outside: Outside, made: Applied) -> None:
    """Print what was changed; ends the command with 1 when a node failed."""
    if outside.as_json:
        print_json(made)
    else:
        _warn(made.get("warnings", ()))
        _say_edits(made["nodes"], made["daemon"], made["notes"])
        done = [one for one in made["nodes"] if one.get("ok") is not False]
        if done:
            say(f"done: {_counted(done)}")
        if not made["nodes"]:
            say("no service changed" if made["notes"] else "nothing changed")
    failed = [one for one in made["nodes"] if one.get("ok") is False]
    for one in failed:
        complain(f"selfheal: {one['node']}: {clean(one.get('error', 'failed'))}")
    if failed:
        raise Quit(FAILED)


def _counted(edits: Sequence[NodeEdit]) -> str:
    count = Counter(one["action"] for one in edits)
    return ", ".join(f"{count[action]} {_WORDS.get(action, action)}" for action in _SIGNS if count[action])


def plan_lines(edits: Sequence[NodeEdit]) -> list[str]:
    """One line a node, and one a changed key."""
    width = max((len(one["node"]) for one in edits), default=0)
    lines = []
    for one in edits:
        kind = "" if one["kind"] == "service" else f" ({one['kind']})"
        failed = "  failed" if one.get("ok") is False else ""
        action = _WORDS.get(one["action"], one["action"])
        lines.append(f"{_SIGNS[one['action']]} {one['node']:<{width}}  {action}{kind}{failed}")
        lines += [f"    {_change(change)}" for change in one["changes"]]
    return lines


def _say_edits(edits: Sequence[NodeEdit], daemon: Sequence[dict[str, Any]], notes: Sequence[str]) -> None:
    for line in plan_lines(edits):
        say(line)
    for change in daemon:
        say(f"* {_change(change)}: needs a restart of the daemon")
    for note in notes:
        say(f"note: {clean(note)}")


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        complain(f"warning: {clean(line)}")


def _change(change: dict[str, Any]) -> str:
    return clean(f"{change['key']}: {_value(change['old'])} -> {_value(change['new'])}")


def _value(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _full(config: str | None) -> str | None:
    return None if config is None else str(Path(config).absolute())
