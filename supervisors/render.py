"""The tree as text: one line a node, fixed columns, details only for the unhealthy. Pure: the width, the time and
whether colour is wanted are parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from supervisors.columns import Row, draw, fit, lines
from supervisors.manager import Node, Tree
from supervisors.phrases import clean, identity, reasons, restarts, size, status, strategy
from supervisors.tree_json import find, walk
from supervisors.wellness import is_bad

GLYPHS: Final = {
    "ready": "●",
    "up": "◐",
    "starting": "◐",
    "degraded": "◐",
    "stopping": "◐",
    "waiting": "○",
    "paused": "○",
    "stopped": "○",
    "crash_loop": "✖",
    "failed": "✖",
    "unknown": "?",
}
_NOT_RUNNING: Final = frozenset({"stopped", "waiting", "paused", "crash_loop", "failed"})
"""Usage measured a moment ago says nothing of these."""
DRAWN: Final = "".join(GLYPHS.values()) + "├└─│↺…"
"""What an encoding must have for the tree to be drawn in full."""
_ASCII: Final = str.maketrans(
    {
        "●": "*",
        "◐": "~",
        "○": "o",
        "✖": "X",
        "├": "|",
        "└": "`",
        "─": "-",
        "│": "|",
        "–": "-",  # noqa: RUF001  the dash is meant
        "×": "x",  # noqa: RUF001  so is the sign
        "…": "~",
        "↺": "R",
    }
)


def render_tree(
    tree: Tree,
    *,
    now: float,
    width: int | None = None,
    colour: bool = False,
    ascii_only: bool = False,
    only_bad: bool = False,
    depth: int | None = None,
    node: str | None = None,
    planned: bool = False,
) -> str:
    """The tree as lines without a last line end.

    Args:
        now: Unix seconds, for ages.
        width: cells of the terminal; None never shortens a line (a pipe, a file).
        only_bad: unhealthy nodes and the way to them.
        depth: levels below the first line; deeper nodes are counted, not drawn.
        node: a name or path to draw alone with what is below it.
        planned: nothing of it runs: no states, only what is written.

    Raises:
        UnknownNode: there is no such node.
    """
    top = find(tree["root"], node) if node is not None else tree["root"]
    if only_bad and not planned and not any(is_bad(one) for one in walk(top)):
        return "nothing is down: every wanted node is ready"
    rows = list(_rows(top, now, only_bad=only_bad and not planned, depth=depth))
    if planned:
        rows = [replace(row, status=clean(row.plan)) for row in rows]
    return _drawn(rows, width, colour, ascii_only)


def render_services(
    nodes: Sequence[Node], *, now: float, width: int | None = None, colour: bool = False, ascii_only: bool = False
) -> str:
    """Services one below the other, in the columns of the tree."""
    return _drawn([_row(node, now, "", "", hidden=0) for node in nodes], width, colour, ascii_only)


def _drawn(rows: Sequence[Row], width: int | None, colour: bool, ascii_only: bool) -> str:
    text = "\n".join(draw(line, width, colour) for line in lines(rows, fit(rows, width)))
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text


# -- rows -------------------------------------------------------------------------------------------------------------


def _rows(
    node: Node, now: float, *, only_bad: bool, depth: int | None, branch: str = "", below: str = ""
) -> Iterable[Row]:
    children = [one for one in node.get("children", []) if not only_bad or any(is_bad(each) for each in walk(one))]
    is_cut = depth is not None and depth <= 0
    yield _row(node, now, branch, below + ("│ " if children and not is_cut else "  "), hidden=len(children) * is_cut)
    if is_cut:
        return
    deeper = None if depth is None else depth - 1
    for child in children:
        is_last = child is children[-1]
        yield from _rows(
            child,
            now,
            only_bad=only_bad,
            depth=deeper,
            branch=below + ("└─" if is_last else "├─"),
            below=below + ("  " if is_last else "│ "),
        )


def _row(node: Node, now: float, branch: str, under: str, *, hidden: int) -> Row:
    is_supervisor = node["kind"] == "supervisor"
    is_running = node["state"] not in _NOT_RUNNING
    return Row(
        branch=branch,
        under=under,
        glyph=_glyph(node),
        name=clean(node["name"]) + (f" (+{hidden})" if hidden else ""),
        runtime="" if is_supervisor else node.get("runtime", ""),
        identity="" if is_supervisor else identity(node),
        strategy=strategy(node) if is_supervisor else "",
        status=_rollup(node, now) if is_supervisor else status(node, now),
        cpu=f"{node['cpu_percent']:.1f}%" if "cpu_percent" in node and is_running else "",
        memory=size(node["memory_bytes"]) if "memory_bytes" in node and is_running else "",
        restarts=restarts(node, now),
        is_bad=is_bad(node),
        reasons=reasons(node, now),
        plan=node.get("detail", ""),
    )


def _glyph(node: Node) -> str:
    """A ready supervisor with something bad below it is not drawn as well."""
    if node["kind"] == "supervisor" and node["state"] == "ready" and any(is_bad(one) for one in walk(node)):
        return GLYPHS["degraded"]
    return GLYPHS.get(node["state"], "?")


def _rollup(node: Node, now: float) -> str:
    """A supervisor's state; of one that is ready how many of its services and bridges are, when not all are."""
    own = status(node, now)
    if node["state"] != "ready":
        return own
    leaves = [one for one in walk(node) if one["kind"] in ("service", "bridge") and one["wanted"]]
    bad = sum(is_bad(one) for one in leaves)
    parts = [own, f"{len(leaves) - bad} of {len(leaves)} ready" if bad else ""]
    return ", ".join(part for part in parts if part)
