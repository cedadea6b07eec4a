"""Whether a tree is well, and how the daemon itself is. Pure."""

from __future__ import annotations

from typing import Final

from supervisors.manager import Node, Tree
from supervisors.tree_json import walk

FOUNDATIONS: Final = frozenset({"journal", "runtimes", "links"})
"""Children of the root without which the daemon does not do its own work."""


def is_bad(node: Node) -> bool:
    """Whether this node itself is wanted and not ready.

    Not bad are: what a person stopped; runbooks, which come and go; a service that ended in order and that its policy
    leaves alone (a supervisor puts ``waiting`` in place of ``stopped`` as soon as it means to start it again).
    """
    if not node["wanted"] or node["kind"] == "runbook" or node["state"] == "ready":
        return False
    return not (node["kind"] == "service" and node["state"] == "stopped")


def is_well(tree: Tree) -> bool:
    """Every wanted node is ready: the exit code 0 of ``selfheal tree``."""
    return not any(is_bad(node) for node in walk(tree["root"]))


def daemon_status(tree: Tree) -> str:
    """``healthy``; ``degraded`` when a service or bridge is down; ``unhealthy`` when the daemon's own parts are."""
    root = tree["root"]
    own = [root, *(child for child in root.get("children", []) if child["name"] in FOUNDATIONS)]
    if is_bad(root) or any(is_bad(node) for part in own[1:] for node in walk(part)):
        return "unhealthy"
    return "healthy" if is_well(tree) else "degraded"
