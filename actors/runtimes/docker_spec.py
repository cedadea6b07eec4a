"""From a ``LaunchSpec`` to the words of the Docker engine: name, labels, hash, arguments of ``create``. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from actors.runtimes.base import ContainerSpec, LaunchError, LaunchSpec
from actors.runtimes.settings import ProcessSettings

LABEL_INSTANCE: Final = "selfheal.instance"
LABEL_SERVICE: Final = "selfheal.service"
LABEL_SPEC_HASH: Final = "selfheal.spec_hash"
LABEL_RUN: Final = "selfheal.run"
LABEL_VARIABLES: Final = "selfheal.variables_hash"
"""Of the values read from environment files and secrets: a container made from older ones is made anew at its next
start, but adopted while it runs."""
COMPOSE_PROJECT: Final = "com.docker.compose.project"
COMPOSE_SERVICE: Final = "com.docker.compose.service"
COMPOSE_NUMBER: Final = "com.docker.compose.container-number"
COMPOSE_ONEOFF: Final = "com.docker.compose.oneoff"
_PORT: Final = re.compile(
    r"^(?:(?:(?P<ip>\d+(?:\.\d+){3}|\[[0-9a-fA-F:]+\]):)?(?P<host>\d*):)?(?P<inside>\d+)(?P<proto>/(?:tcp|udp))?$"
)


@dataclass(frozen=True, slots=True)
class ContainerIdentity:
    """One run of one container: a restart of the same container has another ``started_at`` (the engine's text)."""

    container_id: str
    started_at: str


def container_of(spec: LaunchSpec) -> ContainerSpec:
    if spec.container is None:
        raise LaunchError(f"service {spec.service!r} has no image, container or compose service", permanent=True)
    return spec.container


def container_name(service: str) -> str:
    return f"selfheal-{service}"


def is_attached(spec: LaunchSpec) -> bool:
    """Whether the container is somebody else's: started and stopped by us, never created or removed."""
    return container_of(spec).image is None


def owner_labels(instance: str, service: str) -> dict[str, str]:
    """What makes a container ours."""
    return {LABEL_INSTANCE: instance, LABEL_SERVICE: service}


def is_ours(labels: Mapping[str, str] | None, instance: str, service: str) -> bool:
    return all((labels or {}).get(name) == value for name, value in owner_labels(instance, service).items())


def spec_hash(spec: LaunchSpec) -> str:
    """Equal for two specs that make the same container. Run numbers, names of log files and the like do not count."""
    container = container_of(spec)
    facts = {
        "image": container.image,
        "command": list(spec.command),
        "working_dir": str(spec.working_dir) if spec.working_dir else None,
        "environment": dict(spec.environment),
        "ports": list(container.ports),
        "volumes": list(container.volumes),
        "network": container.network,
        "memory_bytes": spec.memory_bytes,
        "log": [spec.log_max_bytes, spec.log_backups],
    }
    if spec.settings != ProcessSettings():
        facts["settings"] = asdict(spec.settings)
    if spec.sources:
        facts["sources"] = repr(spec.sources)
    return _short_hash(facts)


def variables_hash(spec: LaunchSpec, variables: Mapping[str, str]) -> str | None:
    """Of what was read for this launch; None when nothing is read from files."""
    return _short_hash({"service": spec.service, "variables": dict(variables)}) if spec.sources else None


def _short_hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def create_arguments(
    spec: LaunchSpec, run: int, instance: str, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Keyword arguments of ``client.containers.create``.

    ``restart_policy`` is no: two supervisors would fight. ``init``: a main process that ignores SIGTERM as PID 1 does.

    Args:
    variables: the environment with what was read from files and secrets; without it the spec's own.

    Raises:
        LaunchError: a port that cannot be read.
    """
    container = container_of(spec)
    values = spec.environment if variables is None else variables
    labels = {**owner_labels(instance, spec.service), LABEL_SPEC_HASH: spec_hash(spec), LABEL_RUN: str(run)}
    if (read := variables_hash(spec, values)) is not None:
        labels[LABEL_VARIABLES] = read
    arguments: dict[str, Any] = {
        "image": container.image,
        "name": container_name(spec.service),
        "labels": labels,
        "environment": {**values, "SELFHEAL_SERVICE": spec.service},
        "restart_policy": {"Name": "no"},
        "init": True,
        "detach": True,
        "ports": parse_ports(spec.service, container.ports),
        "volumes": list(container.volumes),
        "log_config": {
            "Type": "json-file",
            "Config": {"max-size": str(spec.log_max_bytes), "max-file": str(spec.log_backups + 1)},
        },
    }
    optional = {
        "command": list(spec.command) or None,
        "working_dir": str(spec.working_dir) if spec.working_dir else None,
        "mem_limit": spec.memory_bytes,
        "network": container.network,
        **_setting_arguments(spec.settings),
    }
    return {**arguments, **{name: value for name, value in optional.items() if value is not None}}


def _setting_arguments(settings: ProcessSettings) -> dict[str, Any]:
    """Users and groups are those of the image; the engine looks them up."""
    user = settings.user
    return {
        "user": user if user is None or settings.group is None else f"{user}:{settings.group}",
        "group_add": None if settings.groups is None else list(settings.groups),
        "ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in settings.limits] or None,
    }


def parse_ports(service: str, ports: tuple[str, ...]) -> dict[str, Any]:
    """``[IP:][HOST:]INSIDE[/tcp|/udp]``; without an IP only this machine can reach the port.

    Raises:
        LaunchError: a text of another shape.
    """
    parsed: dict[str, Any] = {}
    for port in ports:
        match = _PORT.match(port)
        if match is None:
            raise LaunchError(
                f"service {service!r}: port {port!r} cannot be read: write 127.0.0.1:6379:6379 or 6379:6379",
                permanent=True,
            )
        inside = match["inside"] + (match["proto"] or "/tcp")
        ip = (match["ip"] or "127.0.0.1").strip("[]")
        bound = (ip, int(match["host"])) if match["host"] else (ip,)
        parsed[inside] = [*parsed.get(inside, []), bound]
    return {inside: bounds[0] if len(bounds) == 1 else bounds for inside, bounds in parsed.items()}


def identity_from(inspected: Mapping[str, Any]) -> ContainerIdentity:
    return ContainerIdentity(str(inspected["Id"]), str(inspected["State"]["StartedAt"]))


def unix_time(engine_time: str) -> float:
    """Unix seconds of the engine's RFC 3339 text (nanoseconds, ``Z``); 0 for its "never" of the year 1."""
    head, _, fraction = engine_time.rstrip("Z").partition(".")
    seconds = datetime.fromisoformat(head + "+00:00").timestamp()
    return max(0.0, seconds + float(f"0.{fraction}" if fraction else 0.0))
