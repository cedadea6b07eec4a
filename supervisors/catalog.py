"""What runs now, as one live object: the configuration really in force, and what follows from it.

Any thread reads; only the reloader changes it, one at a time. A reader sees the whole of one moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from config.models import SystemConfig
from supervisors.plans import start_order
from supervisors.tree import STOP_MARGIN_S, homes

K = TypeVar("K")
V = TypeVar("V")
FIRST: Final = ".1"


class LiveView(Mapping[K, V]):
    """A mapping that is looked up anew at every use."""

    def __init__(self, now: Callable[[], Mapping[K, V]]) -> None:
        self._now = now

    def __getitem__(self, key: K) -> V:
        return self._now()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __contains__(self, key: object) -> bool:
        return key in self._now()


@dataclass(frozen=True, slots=True)
class Moment:
    """``config`` has one service a node; ``source`` is the file as read; ``families``: each service's nodes."""

    source: SystemConfig
    config: SystemConfig
    families: Mapping[str, tuple[str, ...]]
    homes: Mapping[str, str]
    order: tuple[str, ...]
    stop_limits_s: Mapping[str, float]


def moment(source: SystemConfig, config: SystemConfig, families: Mapping[str, tuple[str, ...]]) -> Moment:
    limits_s = {name: one.graceful_shutdown_timeout + STOP_MARGIN_S for name, one in config.services.items()}
    return Moment(source, config, families, homes(config), start_order(config), limits_s)


class Catalog:
    """Args: ``on_change`` is told of every new configuration, on the changing thread."""

    def __init__(self, first: Moment, on_change: Callable[[SystemConfig], None] = lambda _config: None) -> None:
        self._now = first
        self._lock = threading.Lock()
        self._on_change = on_change
        self.homes: Mapping[str, str] = LiveView(lambda: self._now.homes)
        self.stop_limits_s: Mapping[str, float] = LiveView(lambda: self._now.stop_limits_s)

    @property
    def now(self) -> Moment:
        return self._now

    @property
    def config(self) -> SystemConfig:
        return self._now.config

    @property
    def order(self) -> tuple[str, ...]:
        return self._now.order

    def become(self, config: SystemConfig) -> None:
        """The configuration in force is this from now on."""
        with self._lock:
            self._now = moment(self._now.source, config, self._now.families)
        self._on_change(config)

    def read(self, source: SystemConfig, families: Mapping[str, tuple[str, ...]]) -> None:
        """Another file, or another scale, is what the running nodes come from."""
        with self._lock:
            self._now = moment(source, self._now.config, families)

    def replicas(self) -> dict[str, int]:
        """How many replicas each service of the file has."""
        now = self._now
        return {
            name: 0 if self.is_idle(name) else sum(node in now.config.services for node in nodes)
            for name, nodes in now.families.items()
        }

    def family(self, name: str) -> tuple[str, ...]:
        """The nodes a command for this name is about, first to last: all replicas of a service, or one node.

        ``worker`` names all replicas, ``worker.1`` the first alone.
        """
        now = self._now
        if name in now.families:
            return tuple(node for node in now.families[name] if node in now.config.services)
        base = name.removesuffix(FIRST)
        return (base,) if base != name and base in now.families else (name,)

    def is_idle(self, name: str) -> bool:
        """Scaled to 0."""
        service = self._now.config.services.get(name)
        return service is not None and service.replicas == 0
