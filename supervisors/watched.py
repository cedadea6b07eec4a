"""Nodes that stand for a thread, a server or another process, and what they look after once a second.

Built by ``app``; the looks run on the monitors' own threads.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.board import NodeKind
from actors.docker_watcher import DockerWatcher
from actors.exit_watcher import ExitWatcher
from actors.monitor import CHECK_S, MonitorActor, Watched
from actors.runtimes.kept import KeeperNursery
from actors.spec import ChildSpec
from config import SystemConfig
from supervisors.log_keeper import LogKeeper
from supervisors.notify import Notifier
from supervisors.pulse import Pulse
from supervisors.self_alerts import SelfAlerts

Trouble = Callable[[], str | None]
Told = Callable[[str, Trouble], Trouble]
"""Makes what tells a trouble into what tells it and alerts it once."""


def monitor(name: str, kind: NodeKind, watched: Watched) -> ChildSpec:
    return ChildSpec(id=name, start=MonitorActor, args=(kind, watched), shutdown=10.0)


def watched_exits(watcher: ExitWatcher, look: Trouble) -> Watched:
    """It ends with the process, not with the node: runs live on over a restart."""

    def begin() -> None:
        watcher.ensure_running()

    return Watched(begin, lambda: watcher.is_running, nothing, trouble=look)


def watched_logs(keeper: LogKeeper) -> Watched:
    return Watched(keeper.start, lambda: keeper.is_alive, keeper.close, trouble=lambda: keeper.trouble)


def watched_usage(alerts: SelfAlerts) -> Watched:
    return Watched(nothing, lambda: True, nothing, trouble=alerts.look)


def watched_engine(watcher: DockerWatcher) -> Watched:
    """It ends with the process, not with the node."""

    def begin() -> None:
        watcher.ensure_running()

    return Watched(begin, lambda: watcher.is_running, nothing, trouble=lambda: watcher.trouble)


def watched_systemd(pulse: Pulse, notifier: Notifier, status: Callable[[], str]) -> Watched:
    """Tells systemd how things are, and that the daemon is well for as long as its supervisors answer."""

    def look() -> str | None:
        notifier.status(status())
        if pulse.look():
            notifier.watchdog()
        return pulse.trouble or notifier.trouble

    every_s = CHECK_S if notifier.watchdog_s is None else min(CHECK_S, notifier.watchdog_s / 2)
    return Watched(nothing, lambda: True, nothing, trouble=look, every_s=every_s)


def supervisor_paths(config: SystemConfig) -> tuple[str, ...]:
    """All supervisors of the tree: if one of them hangs, the daemon is not well."""
    upper_ones = ("runtimes", "services", "bridges", "runbooks", "links")
    return ("root", *(f"root/{one}" for one in upper_ones), *(f"root/services/{group}" for group in config.groups))


def watched_keeper(nursery: KeeperNursery, pulse: Pulse, told: Told) -> Watched:
    """A lost keeper is a fault of ours: the node crashes and has a new one. Where none can be had it says so.

    The keeper hears that the daemon is well only for as long as the supervisors answer.
    """
    trouble = told("keeper", lambda: nursery.trouble)

    def look() -> str | None:
        if pulse.look():
            nursery.beat()
        return trouble() or pulse.trouble

    return Watched(
        nursery.ensure,
        lambda: nursery.is_alive or nursery.is_unavailable,
        nothing,
        lambda: None if nursery.pid is None else f"pid {nursery.pid}",
        look,
    )


def nothing() -> None:
    """What a node does not end with."""
