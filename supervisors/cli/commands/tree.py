"""``selfheal tree``: draw the tree, or keep drawing it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from supervisors.cli.commands.recovery import status_line
from supervisors.cli.exits import SOMETHING_DOWN, WRONG_USAGE, Quit
from supervisors.cli.live import Screen
from supervisors.cli.outside import Outside, command
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA, DaemonUnreachable, Node, Tree
from supervisors.render import render_tree
from supervisors.tree_json import find, walk
from supervisors.wellness import is_bad

REDRAW_S = 1.0
_RESTLESS: Final = frozenset({"at", "cpu_percent", "memory_bytes"})


@command
def tree(
    outside: Outside,
    node: Annotated[str | None, typer.Argument(help="Only this node and what is below it.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Redraw every second until Ctrl-C; with --json one line a change.")
    ] = False,
    only_bad: Annotated[bool, typer.Option("--only-bad", help="Only what is down, and the way to it.")] = False,
    depth: Annotated[int | None, typer.Option("--depth", min=0, help="Levels to draw.")] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="The tree this file would give; no daemon.")
    ] = None,
) -> None:
    """Draw the tree. Exit code 0 when every wanted node is ready, 3 when something is down."""
    if config is not None:
        if watch:
            raise Quit(WRONG_USAGE, "--watch needs a daemon; leave out --config")
        _show(outside, _planned(config), node, only_bad, depth, planned=True)
        return
    if watch:
        watched = _watch_json if outside.as_json else _watch
        watched(outside, node, only_bad, depth)
        return
    with outside.manager() as manager:
        seen = manager.tree()
        recovery = manager.recovery_status() if only_bad and not outside.as_json else None
    _show(outside, seen, node, only_bad, depth)
    if recovery is not None and not recovery["enabled"]:
        say(f"{status_line(recovery)}: alerts start nothing")
    if any(is_bad(one) for one in walk(_chosen(seen, node))):
        raise Quit(SOMETHING_DOWN)


def _chosen(seen: Tree, node: str | None) -> Node:
    return seen["root"] if node is None else find(seen["root"], node)


def _show(
    outside: Outside, seen: Tree, node: str | None, only_bad: bool, depth: int | None, *, planned: bool = False
) -> None:
    if outside.as_json:
        root = _pruned(_chosen(seen, node), only_bad, depth)
        print_json({**seen, "root": root})
        return
    say(_drawn(outside, seen, node, only_bad, depth, planned=planned))


def _drawn(
    outside: Outside, seen: Tree, node: str | None, only_bad: bool, depth: int | None, *, planned: bool = False
) -> str:
    terminal = outside.terminal
    return render_tree(
        seen,
        now=time.time(),
        width=terminal.width,
        colour=terminal.colour,
        ascii_only=terminal.ascii_only,
        only_bad=only_bad,
        depth=depth,
        node=node,
        planned=planned,
    )


def _pruned(node: Node, only_bad: bool, depth: int | None) -> Node:
    """The same choice for JSON as for the drawing. The node asked for always stays."""
    children: list[Node] = []
    if depth is None or depth > 0:
        deeper = None if depth is None else depth - 1
        kept = [one for one in node.get("children", []) if not only_bad or any(is_bad(each) for each in walk(one))]
        children = [_pruned(one, only_bad, deeper) for one in kept]
    return cast("Node", {**node, "children": children})


def _planned(config: str) -> Tree:
    from config import ConfigError, load_config  # noqa: PLC0415  slow to import
    from config.cautions import cautions  # noqa: PLC0415  likewise
    from config.replicas import expanded  # noqa: PLC0415  likewise
    from supervisors.planned import planned_tree  # noqa: PLC0415  likewise

    try:
        found = load_config(Path(config), os.environ)
    except ConfigError as error:
        complain(error)
        raise Quit(WRONG_USAGE) from None
    for line in cautions(found, os.environ):
        complain(f"{config}: warning: {line}")
    return planned_tree(expanded(found).config, time.time())


def _watch(outside: Outside, node: str | None, only_bad: bool, depth: int | None) -> None:
    """Draw until Ctrl-C. A daemon that goes away is told, and found again when it is back."""
    pause = threading.Event()
    _look(outside)  # nothing to watch is an error; what goes away later is not
    with Screen(outside.terminal) as screen:
        try:
            while True:
                try:
                    seen: Any = _look(outside)
                    screen.show(_drawn(outside, seen, node, only_bad, depth))
                except DaemonUnreachable as error:
                    screen.show(str(error))
                pause.wait(REDRAW_S)
        except KeyboardInterrupt:
            return


def _watch_json(outside: Outside, node: str | None, only_bad: bool, depth: int | None) -> None:
    """One document a line, the first at once, then one for every change but those of use and time. An ``error`` says
    that the daemon went away; it is found again when it is back.
    """
    pause = threading.Event()
    last: Any = None
    _look(outside)
    try:
        while True:
            try:
                seen = _look(outside)
                told: dict[str, Any] = {**seen, "root": _pruned(_chosen(seen, node), only_bad, depth)}
            except DaemonUnreachable as error:
                told = {"schema": SCHEMA, "error": str(error)}
            known = without_use(told)
            if known != last:
                print_json(told)
                last = known
            pause.wait(REDRAW_S)
    except KeyboardInterrupt:
        return


def without_use(value: Any) -> Any:
    """Without what changes all the time: use, the moment, the last beat of a bridge that is well."""
    if isinstance(value, dict):
        beats = {"detail"} if value.get("kind") == "bridge" and value.get("state") == "ready" else set[str]()
        return {key: without_use(one) for key, one in value.items() if key not in _RESTLESS | beats}
    return [without_use(one) for one in value] if isinstance(value, list) else value


def _look(outside: Outside) -> Tree:
    with outside.manager() as manager:
        return manager.tree()
