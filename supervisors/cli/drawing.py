"""What ``selfheal runbook graph`` does."""

from __future__ import annotations

from collections.abc import Sequence

from runbooks import graph
from supervisors.cli.exits import FAILED, WRONG_USAGE, Quit
from supervisors.cli.libraries import asked_by_name
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA


def draw_graph(outside: Outside, named: Sequence[str], config: str | None, *, dot: bool, mermaid: bool) -> None:
    """Raises Quit: two forms are asked for at once, or a file cannot be used (the others are drawn all the same)."""
    if dot + mermaid + outside.as_json > 1:
        raise Quit(WRONG_USAGE, "--dot, --mermaid and --json are one of three")
    asked = asked_by_name(config, named)
    for problem in asked.problems:
        complain(problem)
    runbooks = asked.library.runbooks if not named else tuple(one.runbook for one in asked.reads)
    if outside.as_json:
        found = [{"from": one.start, "to": one.end, "label": one.label} for one in graph.edges(runbooks)]
        print_json({"schema": SCHEMA, "edges": found})
    elif dot:
        say(graph.dot(runbooks))
    else:
        say(graph.mermaid(runbooks) if mermaid else graph.text(runbooks))
    if asked.problems:
        raise Quit(FAILED)
