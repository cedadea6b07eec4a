"""What the daemon watches of itself, its services and its box, and how it says so. Pure words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from config.models import ResourcesConfig, WatchConfig
from supervisors.decisions.thresholds import Limit

PREFIX: Final = "selfheal"
DAEMON: Final = "selfheal"
"""The service name of alerts about the daemon."""
SERVICE_SCOPE, BOX_SCOPE, DAEMON_SCOPE = "service", "box", "daemon"
HIGH_CPU, MEMORY, DISK, CRASH_LOOP = "high_cpu_usage", "memory_exhaustion", "disk_space_low", "crash_loop"
TYPES: Final = frozenset({HIGH_CPU, MEMORY, DISK, CRASH_LOOP})
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about. ``name``: the service, or of a disk where it is mounted; "" for the box."""

    type: str
    scope: str
    name: str = ""

    @property
    def fingerprint(self) -> str:
        return f"{PREFIX}/{self.type}/{self.scope}/{self.name}"

    @classmethod
    def of(cls, fingerprint: str) -> Subject | None:
        """None for one that is not ours."""
        prefix, *parts = fingerprint.split("/", 3)
        if prefix != PREFIX or len(parts) != 3 or parts[0] not in TYPES:
            return None
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, and its limit. ``value``: None when nobody can tell; ``said`` is for people."""

    value: float | None
    limit: Limit
    said: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)


def alert_of(subject: Subject, figure: Figure) -> dict[str, Any]:
    """The fields of the alert."""
    service = {SERVICE_SCOPE: subject.name, DAEMON_SCOPE: DAEMON}.get(subject.scope)
    labels: dict[str, Any] = {"scope": subject.scope, **figure.labels}
    return {
        "type": subject.type,
        "service": service,
        "severity": "high",
        "message": figure.said,
        "labels": labels,
    }


def limit_of(most: float, watch: WatchConfig) -> Limit:
    """The limit of one figure: well again is ``clear`` percent of it."""
    return Limit(most, most * watch.clear / 100, watch.for_, watch.clear_for)


def cpu_limit(resources: ResourcesConfig | None, watch: WatchConfig) -> float | None:
    """Percent of one core a service may use: what it states itself, else what is said for all."""
    own = None if resources is None else resources.cpu_percent
    return watch.service.cpu_percent if own is None else own


def memory_limit(resources: ResourcesConfig | None, watch: WatchConfig) -> int | None:
    """MiB a service may use, likewise."""
    own = None if resources is None else resources.memory_mb
    return watch.service.memory_mb if own is None else own


def disk_limit(resources: ResourcesConfig | None) -> int | None:
    """MiB the files of a service may take: only what it states itself."""
    return None if resources is None else resources.disk_mb


def cpu_figure(of: str, percent: float | None, most: float, watch: WatchConfig, **labels: Any) -> Figure:
    """``of``: what the percentage is of ("one core", "all cores")."""
    said = f"CPU {0.0 if percent is None else percent:.0f} % of {of} for {watch.for_:g} s; the limit is {most:g} %"
    shown = {} if percent is None else {"value": round(percent, 1)}
    return Figure(percent, limit_of(most, watch), said, {**shown, "limit": most, "unit": "percent", **labels})


def memory_figure(used: int | None, most_mb: int, watch: WatchConfig) -> Figure:
    """``used``: resident bytes."""
    mib = None if used is None else round(used / MIB, 1)
    said = f"memory {0.0 if mib is None else mib:.0f} MiB for {watch.for_:g} s; the limit is {most_mb} MiB"
    shown = {} if mib is None else {"value": mib}
    labels = {**shown, "limit": most_mb, "unit": "MiB", "limit_memory_mb": most_mb}
    return Figure(mib, limit_of(most_mb, watch), said, labels)


def disk_figure(used: int, most_mb: int, watch: WatchConfig, path: str) -> Figure:
    """``used``: bytes on disk; ``path``: where most of them may lie."""
    mib = round(used / MIB, 1)
    said = f"its files take {mib:.0f} MiB for {watch.for_:g} s; the limit is {most_mb} MiB"
    return Figure(mib, limit_of(most_mb, watch), said, {"value": mib, "limit": most_mb, "unit": "MiB", "path": path})


def share_figure(what: str, percent: float, most: float, watch: WatchConfig, **labels: Any) -> Figure:
    """How full the memory, or a disk, of the box is."""
    said = f"{what} {percent:.0f} % full for {watch.for_:g} s; the limit is {most:g} %"
    return Figure(percent, limit_of(most, watch), said, {"value": percent, "limit": most, "unit": "percent", **labels})


def crash_loop_figure(is_well: bool, said: str, watch: WatchConfig, labels: Mapping[str, Any]) -> Figure:
    """Begins when a supervisor says so; over when the service has been ready for a while."""
    return Figure(0.0 if is_well else 1.0, Limit(0.5, 0.5, 0.0, watch.clear_for), said, labels)
