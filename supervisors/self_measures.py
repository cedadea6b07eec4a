"""How much CPU, memory and disk the services, the box and the daemon use, each with its limit. Blocking: I/O pool."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from actors.clock import Clock
from actors.runtimes.base import Usage
from actors.service_logs import log_path
from config.models import ServiceConfig, SystemConfig
from supervisors.disk_use import DiskUse
from supervisors.self_words import (
    BOX_SCOPE,
    DAEMON,
    DAEMON_SCOPE,
    DISK,
    HIGH_CPU,
    MEMORY,
    SERVICE_SCOPE,
    Figure,
    Subject,
    cpu_figure,
    cpu_limit,
    disk_figure,
    disk_limit,
    memory_figure,
    memory_limit,
    share_figure,
)

Measured = dict[Subject, Figure]
_STILL: Final = Usage(0.0, 0)


@dataclass(frozen=True)
class Sources:
    """Where figures come from.

    Args:
        config: what is in force now.
        is_down: whether a service has no run now, and is not about to be taken on.
        usage: CPU and memory by service; one that is not down and not in it could not be measured.
        state_dir: a disk that is always watched.
    """

    config: Callable[[], SystemConfig]
    is_down: Callable[[str], bool]
    usage: Callable[[], Mapping[str, Usage]]
    state_dir: Path
    clock: Clock


@dataclass
class Measures:
    """``measure`` on one thread at a time. CPU figures are of the time since the last call; the first has none."""

    sources: Sources
    _box: tuple[float, float] | None = None
    _own: tuple[float, float] | None = None
    _seen: frozenset[str] = frozenset()
    _disk: DiskUse = field(init=False)
    _process: psutil.Process = field(default_factory=psutil.Process)

    def __post_init__(self) -> None:
        self._disk = DiskUse(self.sources.clock)

    def measure(self) -> Measured:
        """Everything that has a limit."""
        config = self.sources.config()
        usage = self._usage(config)
        found = {**self._services(config, usage), **self._of_box(config, usage), **self._daemon(config)}
        self._seen = frozenset(usage)
        return found

    def _usage(self, config: SystemConfig) -> Mapping[str, Usage]:
        watch = config.watch
        has_limits = any(
            cpu_limit(one.required_resources, watch) or memory_limit(one.required_resources, watch)
            for one in config.services.values()
        )
        return self.sources.usage() if has_limits or watch.box.cpu_percent or watch.box.memory_percent else {}

    def _services(self, config: SystemConfig, usage: Mapping[str, Usage]) -> Measured:
        found: Measured = {}
        self._disk.forget_all_but(config.services)
        for name, service in config.services.items():
            disk = disk_limit(service.required_resources)
            if disk is not None:
                taken = self._disk.of(name, self._places(name, service))  # not looked for until a walk is due
                main = next(self._places(name, service))
                found[Subject(DISK, SERVICE_SCOPE, name)] = disk_figure(taken, disk, config.watch, str(main))
            used = usage.get(name, _STILL if self.sources.is_down(name) else None)
            cpu = cpu_limit(service.required_resources, config.watch)
            memory = memory_limit(service.required_resources, config.watch)
            if cpu is not None:
                is_first = name in usage and name not in self._seen  # no share of time is known of it yet
                percent = None if used is None or is_first else used.cpu_percent
                found[Subject(HIGH_CPU, SERVICE_SCOPE, name)] = cpu_figure(
                    "one core", percent, cpu, config.watch, limit_cpu_percent=cpu
                )
            if memory is not None:
                size = None if used is None else used.memory_bytes
                found[Subject(MEMORY, SERVICE_SCOPE, name)] = memory_figure(size, memory, config.watch)
        return found

    def _places(self, name: str, service: ServiceConfig) -> Iterator[Path]:
        """Where the files of a service lie, as far as this machine's folders are its own."""
        if service.working_dir is not None and service.runtime == "process":
            yield service.working_dir
        log = log_path(self.sources.state_dir, name)
        yield log
        yield from log.parent.glob(f"{glob.escape(log.name)}.*")

    def _of_box(self, config: SystemConfig, usage: Mapping[str, Usage]) -> Measured:
        watch, found = config.watch, Measured()
        if watch.box.cpu_percent is not None:
            labels = _first(usage, lambda one: one.cpu_percent)
            figure = cpu_figure("all cores", self._box_percent(), watch.box.cpu_percent, watch, **labels)
            found[Subject(HIGH_CPU, BOX_SCOPE)] = figure
        if watch.box.memory_percent is not None:
            percent = psutil.virtual_memory().percent
            labels = _first(usage, lambda one: one.memory_bytes)
            found[Subject(MEMORY, BOX_SCOPE)] = share_figure(
                "memory", percent, watch.box.memory_percent, watch, **labels
            )
        if watch.box.disk_percent is not None:
            roots = config.runbooks.cleanup.roots
            for place, percent in disks(self._paths(config)).items():
                labels = {"path": place, **_cleanup_root(place, roots)}
                figure = share_figure(f"disk {place}", percent, watch.box.disk_percent, watch, **labels)
                found[Subject(DISK, BOX_SCOPE, place)] = figure
        return found

    def _paths(self, config: SystemConfig) -> Iterator[Path]:
        yield self.sources.state_dir
        yield from config.watch.paths
        yield from (one.working_dir for one in config.services.values() if one.working_dir is not None)

    def _daemon(self, config: SystemConfig) -> Measured:
        watch, found = config.watch, Measured()
        with self._process.oneshot():
            times, rss = self._process.cpu_times(), self._process.memory_info().rss
        if watch.daemon.cpu_percent is not None:
            before, self._own = self._own, (self.sources.clock.now(), times.user + times.system)
            percent = _rate(before, self._own)
            figure = cpu_figure("one core", percent, watch.daemon.cpu_percent, watch)
            found[Subject(HIGH_CPU, DAEMON_SCOPE, DAEMON)] = figure
        if watch.daemon.memory_mb is not None:
            found[Subject(MEMORY, DAEMON_SCOPE, DAEMON)] = memory_figure(rss, watch.daemon.memory_mb, watch)
        return found

    def _box_percent(self) -> float | None:
        """Not psutil's own ``cpu_percent``: that one remembers per thread, and pool threads change."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # in user already
        before, self._box = self._box, (total, total - idle)
        return _rate(before, self._box)


def _rate(before: tuple[float, float] | None, now: tuple[float, float]) -> float | None:
    """Percent by which the second figure grew of what the first grew."""
    if before is None or now[0] <= before[0]:
        return None
    return max(0.0, 100 * (now[1] - before[1]) / (now[0] - before[0]))


def _first(usage: Mapping[str, Usage], by: Callable[[Usage], float]) -> dict[str, str]:
    """Which service of ours uses most."""
    used = {name: by(one) for name, one in usage.items() if by(one) > 0}
    return {"most_by": max(used, key=lambda name: used[name])} if used else {}


def _cleanup_root(place: str, roots: Iterable[Path]) -> dict[str, str]:
    """The first folder on this file system in which runbooks may put old files aside."""
    for root in roots:
        with suppress(OSError):  # it is not there
            if root.is_dir() and mount_point(root) == place:
                return {"cleanup_root": str(root)}
    return {}


def disks(paths: Iterable[Path]) -> dict[str, float]:
    """How full (percent) the file systems of these places are, each once, by where it is mounted."""
    found: dict[int, tuple[str, float]] = {}
    for path in paths:
        try:
            device = path.stat().st_dev
            if device not in found:
                found[device] = (mount_point(path), psutil.disk_usage(str(path)).percent)
        except OSError:
            continue  # it is not there (yet), or may not be looked at
    return dict(found.values())


def mount_point(path: Path) -> str:
    place = path.resolve()
    while not os.path.ismount(place):
        place = place.parent
    return str(place)
