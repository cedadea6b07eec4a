"""Replicas: one service of the file as several nodes of the tree. Pure.

``worker`` with ``replicas: 3`` becomes ``worker``, ``worker.2`` and ``worker.3``, directly behind each other in its
group. Each gets ``SELFHEAL_REPLICA`` and has ``{replica}`` replaced by its number in its command, environment, ports,
volumes and health check; ``{8080+replica}`` is 8081 for the first. With 0 replicas the node stays, and nothing runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from config.models import MAX_REPLICAS, HealthCheckConfig, ServiceConfig, SystemConfig

VARIABLE: Final = "SELFHEAL_REPLICA"
_PLACE: Final = re.compile(r"\{(?:(\d+)\+)?replica\}")


@dataclass(frozen=True, slots=True)
class Expanded:
    """``config`` with one service a node; ``families``: for each service of the file its nodes, first to last.

    ``ignored``: why a remembered scale could not be used, by service.
    """

    config: SystemConfig
    families: Mapping[str, tuple[str, ...]]
    ignored: Mapping[str, str] = field(default_factory=dict)


def replica_name(name: str, number: int) -> str:
    return name if number == 1 else f"{name}.{number}"


def expanded(config: SystemConfig, scales: Mapping[str, int] | None = None) -> Expanded:
    """One service a node. ``scales``: remembered numbers of replicas, which win over the file's."""
    ignored: dict[str, str] = {}
    families: dict[str, tuple[str, ...]] = {}
    services: dict[str, ServiceConfig] = {}
    for name, service in config.services.items():
        count = service.replicas
        wanted = (scales or {}).get(name, count)
        problem = scale_problem(config, name, wanted) if wanted != count else None
        if problem is None:
            count = wanted
        else:
            ignored[name] = problem
        families[name] = tuple(replica_name(name, number) for number in range(1, max(1, count) + 1))
        for number, node in enumerate(families[name], 1):
            services[node] = _replica(service, number, is_idle=count == 0)
    groups = {
        name: group.model_copy(
            update={"services": tuple(node for one in group.services for node in families.get(one, (one,)))}
        )
        for name, group in config.groups.items()
    }
    return Expanded(config.model_copy(update={"services": services, "groups": groups}), families, ignored)


def scale_problem(config: SystemConfig, name: str, count: int) -> str | None:
    """Why the service cannot have so many replicas, or None."""
    service = config.services[name]
    if not 0 <= count <= MAX_REPLICAS:
        return f"{count} is not between 0 and {MAX_REPLICAS}"
    if count <= 1:
        return None
    if service.container is not None or service.compose is not None:
        return "an attached container is one container: it cannot have replicas"
    for port in service.ports:
        if ":" in port and not _PLACE.search(port):
            return f"port {port!r} is published for one replica only; write {{replica}} into it"
    check = service.health_check
    asked = (check.http or check.tcp) if check is not None and service.runtime == "process" else None
    if asked is not None and not _PLACE.search(asked):
        return f"all would be asked at {asked!r}; write {{replica}} into its port"
    taken = {*config.services, *config.groups, *config.bridges}
    for number in range(2, count + 1):
        if replica_name(name, number) in taken:
            return f"the name {replica_name(name, number)!r} of a replica is taken"
    return None


def _replica(service: ServiceConfig, number: int, *, is_idle: bool) -> ServiceConfig:
    check = service.health_check
    is_attached = service.container is not None or service.compose is not None
    environment = {name: _filled(value, number) for name, value in service.environment.items()}
    changes: dict[str, Any] = {
        "command": _all_filled(service.command, number),
        "environment": environment if is_attached else {VARIABLE: str(number), **environment},
        "ports": _all_filled(service.ports, number),
        "volumes": _all_filled(service.volumes, number),
        "health_check": None if check is None else _check(check, number),
        "replicas": 0 if is_idle else 1,
    }
    return service.model_copy(update=changes)


def _check(check: HealthCheckConfig, number: int) -> HealthCheckConfig:
    changes: dict[str, Any] = {
        "http": None if check.http is None else _filled(check.http, number),
        "tcp": None if check.tcp is None else _filled(check.tcp, number),
        "exec": None if check.exec is None else _all_filled(check.exec, number),
    }
    return check.model_copy(update=changes)


def _all_filled(texts: tuple[str, ...], number: int) -> tuple[str, ...]:
    return tuple(_filled(text, number) for text in texts)


def _filled(text: str, number: int) -> str:
    return _PLACE.sub(lambda match: str(int(match[1] or 0) + number), text)
