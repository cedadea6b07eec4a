"""The tree a file would give, without a daemon: ``selfheal tree --config FILE``. Pure.

Under systemd the daemon has one node more, `root/runtimes/systemd`.
"""

from __future__ import annotations

from actors.keeper.kernel import CAN_KEEP
from config import SystemConfig
from supervisors.manager import SCHEMA, Node, Tree
from supervisors.tree import unit_order
from supervisors.tree_json import rfc3339


def planned_tree(config: SystemConfig, at: float) -> Tree:
    """The planned tree in the shape of ``selfheal tree --json``; nothing of it runs. ``at`` is Unix seconds."""
    services = [_unit(unit, config) for unit in unit_order(config)]
    bridges = [
        _node(f"root/bridges/{name}", "bridge", endpoint=one.address or str(one.directory or ""), runtime="actor")
        for name, one in config.bridges.items()
    ]
    links = [
        _node(f"root/links/{name}", "link", endpoint=address or "unix socket only")
        for name, address in _link_addresses(config)
        if name == "operator" or address is not None
    ]
    desks = [_node(f"root/links/{name}", "link") for name in ("alerts", "approvals", "plain-alerts", "runbook-files")]
    watchers = ["exit-watcher", "log-keeper", "usage-watch", *(["keeper"] if CAN_KEEP else [])]
    if any(service.runtime == "docker" for service in config.services.values()):
        watchers.append("docker-watcher")
    children = [
        _node("root/journal", "journal"),
        _supervisor("root/runtimes", "one_for_one", [_node(f"root/runtimes/{name}", "runtime") for name in watchers]),
        _supervisor("root/services", "one_for_one", services),
        _supervisor("root/bridges", "one_for_one", bridges),
        _supervisor("root/runbooks", "simple_one_for_one", []),
        _supervisor("root/links", "one_for_one", [*desks, *links]),
    ]
    return Tree(schema=SCHEMA, at=rfc3339(at), root=_supervisor("root", "rest_for_one", children))


def _link_addresses(config: SystemConfig) -> tuple[tuple[str, str | None], ...]:
    links = config.links
    return (
        ("guardian", links.guardian.address),
        ("bridge", links.bridge.address),
        ("events", links.events_address),
        ("operator", links.operator.address),
    )


def _unit(unit: str, config: SystemConfig) -> Node:
    group = config.groups.get(unit)
    if group is None:
        return _service(f"root/services/{unit}", unit, config)
    path = f"root/services/{unit}"
    node = _supervisor(path, group.strategy, [_service(f"{path}/{name}", name, config) for name in group.services])
    node["intensity"], node["period_s"] = group.intensity.restarts, group.intensity.period
    return node


def _service(path: str, name: str, config: SystemConfig) -> Node:
    service = config.services[name]
    waits = f"after {', '.join(service.dependencies)}" if service.dependencies else ""
    return _node(path, "service", runtime=service.runtime, detail=waits)


def _supervisor(path: str, strategy: str, children: list[Node]) -> Node:
    node = _node(path, "supervisor", strategy=strategy)
    node["children"] = children
    return node


def _node(path: str, kind: str, *, strategy: str = "", runtime: str = "", endpoint: str = "", detail: str = "") -> Node:
    node = Node(
        name=path.rsplit("/", 1)[-1],
        path=path,
        kind=kind,
        state="stopped",
        incarnation=0,
        restarts=0,
        restarts_in_window=0,
        wanted=False,
        children=[],
    )
    if strategy:
        node["strategy"] = strategy
    if runtime:
        node["runtime"] = runtime
    if endpoint:
        node["endpoint"] = endpoint
    if detail:
        node["detail"] = detail
    return node
