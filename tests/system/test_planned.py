"""The tree that is drawn of a file is the tree that comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.system.running import daemon, write_config

SLEEPER = {"command": ["sleep", "1000"]}


def nodes(node: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    yield node["path"], node["kind"], node.get("strategy")
    for child in node.get("children", []):
        yield from nodes(child)


def test_the_planned_tree_is_the_daemons(tmp_path: Path) -> None:
    services = {"lone": SLEEPER, "a": SLEEPER, "b": {**SLEEPER, "replicas": 2}}
    config = write_config(
        tmp_path,
        services,
        groups={"g": {"strategy": "rest_for_one", "services": ["a", "b"]}},
        bridges={"terminal": {"kind": "zeromq"}},
    )
    with daemon(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        real = selfheal.json("tree")["root"]
        planned = selfheal.json("tree", "--config", str(config))["root"]
    assert list(nodes(planned)) == list(nodes(real))
