"""What ``selfheal runbook graph`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runbooks import graph
from supervisors.cli.exits import WRONG_USAGE, Quit
from supervisors.cli.libraries import asked_for
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA


def draw_graph(outside: Outside, files: Sequence[Path], config: str | None, *, dot: bool, mermaid: bool) -> None:
    """Raises Quit when two forms are asked for at once."""
    if dot + mermaid + outside.as_json > 1:
        raise Quit(WRONG_USAGE, "--dot, --mermaid and --json are one of three")
    asked = asked_for(config, files)
    for problem in asked.problems:
        complain(problem)
    runbooks = asked.library.runbooks if not files else tuple(one.runbook for one in asked.reads)
    if outside.as_json:
        found = [{"from": one.start, "to": one.end, "label": one.label} for one in graph.edges(runbooks)]
        print_json({"schema": SCHEMA, "edges": found})
    elif dot:
        say(graph.dot(runbooks))
    else:
        say(graph.mermaid(runbooks) if mermaid else graph.text(runbooks))
