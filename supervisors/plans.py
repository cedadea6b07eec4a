"""What an edit of the file means for the running tree, node by node. Pure: nothing is read, started or asked here.

Two configurations with one service a node (``config.replicas``) are compared. What makes the process another process is
a restart, what only rules it is changed in place. Values of the environment are never shown: they may be secrets.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from config.models import GroupConfig, ServiceConfig, SystemConfig
from config.private import HIDDEN, is_private, veiled
from supervisors.tree import unit_order


class Action(enum.Enum):
    CREATE = "create"
    UPDATE = "update_in_place"
    RESTART = "restart"
    REMOVE = "remove"
    UNCHANGED = "unchanged"


AT_ONCE: Final = frozenset({"recovery.enabled", "recovery.on_switch_off"})
"""What of the daemon's own settings counts as soon as the file is applied."""

_JOURNAL: Final = ("root/journal", "journal")
_OPERATOR: Final = ("root/links/operator", "link")
LIVE: Final[Mapping[str, tuple[str, str]]] = {
    "recovery.max_concurrent": ("root/links/alerts", "link"),
    "links.operator.tokens": _OPERATOR,
    "links.alertmanager": _OPERATOR,
    "journal.keep": _JOURNAL,
    "journal.max_alerts": _JOURNAL,
    "journal.keep_ids": _JOURNAL,
    "journal.max_ids": _JOURNAL,
    "runbooks.directories": ("root/links/runbook-files", "link"),
    "watch": ("root/runtimes/usage-watch", "runtime"),
}
"""What of the daemon's own settings is changed in place, each with the node that obeys it (its path) and its kind. All
other settings need a restart of the daemon.
"""


class Need(enum.Enum):
    """What the change of a key asks for."""

    RESTART = "restart"
    IN_PLACE = "in_place"


SERVICE_KEYS: Final[Mapping[str, Need]] = {
    "description": Need.IN_PLACE,
    "runtime": Need.RESTART,
    "command": Need.RESTART,
    "working_dir": Need.RESTART,
    "environment": Need.RESTART,
    "restart_policy": Need.IN_PLACE,
    "backoff": Need.IN_PLACE,
    "max_restarts": Need.IN_PLACE,
    "within": Need.IN_PLACE,
    "on_exhausted": Need.IN_PLACE,
    "dependencies": Need.IN_PLACE,
    "health_check": Need.IN_PLACE,
    "graceful_shutdown_timeout": Need.IN_PLACE,
    "required_resources": Need.IN_PLACE,
    "image": Need.RESTART,
    "container": Need.RESTART,
    "compose": Need.RESTART,
    "ports": Need.RESTART,
    "volumes": Need.RESTART,
    "network": Need.RESTART,
    "on_shutdown": Need.IN_PLACE,
    "replicas": Need.IN_PLACE,
    "log": Need.IN_PLACE,
    "limits": Need.RESTART,
    "nice": Need.RESTART,
    "umask": Need.RESTART,
    "user": Need.RESTART,
    "group": Need.RESTART,
    "groups": Need.RESTART,
    "environment_files": Need.RESTART,
    "secrets": Need.RESTART,
}
"""Every key of a service, so that none is forgotten (a test compares with the model). An unknown one restarts."""

_NEVER_SHOWN: Final = frozenset({"environment", "secrets"})


@dataclass(frozen=True, slots=True)
class Change:
    """One key, dotted, with its values as JSON can hold them; None: it was not there."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens to one node. ``kind`` is service, group, services (their order), or that of one of our own nodes
    with a setting that is ``LIVE``.
    """

    node: str
    kind: str
    action: Action
    changes: tuple[Change, ...] = ()
    moves_to: str | None = None
    """The path part of its new supervisor, when it is another one: it is let go there and taken on here."""
    is_idle: bool = False
    """Scaled to 0: the node is there, and nothing runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``entries``: our own nodes, the others in their new start order, then what goes, newest first. ``daemon``: what
    needs a restart.
    """

    entries: tuple[Entry, ...]
    daemon: tuple[Change, ...] = ()

    @property
    def changed(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.action is not Action.UNCHANGED)

    @property
    def is_empty(self) -> bool:
        return not self.changed and not self.daemon

    @property
    def own(self) -> tuple[Entry, ...]:
        """Our own nodes that obey another setting from now on."""
        return tuple(entry for entry in self.entries if (entry.node, entry.kind) in LIVE.values())

    def only(self, nodes: frozenset[str]) -> Plan:
        """The part of the plan that is about these services."""
        return Plan(tuple(one for one in self.entries if one.kind == "service" and one.node in nodes))


def make_plan(running: SystemConfig, wanted: SystemConfig) -> Plan:
    """From the configuration that runs to the one that is wanted."""
    kept = (*_own(running, wanted), *_groups(running, wanted), *_order(running, wanted), *_services(running, wanted))
    gone = tuple(
        Entry(name, "service", Action.REMOVE) for name in reversed(start_order(running)) if name not in wanted.services
    )
    groups_gone = tuple(Entry(name, "group", Action.REMOVE) for name in running.groups if name not in wanted.groups)
    return Plan((*kept, *gone, *groups_gone), tuple(_daemon_changes(running, wanted)))


def at_once(running: SystemConfig, wanted: SystemConfig) -> list[Change]:
    """What of the daemon's own settings changes with the file, and counts at once."""
    changes = _model_changes("recovery.", running.recovery, wanted.recovery)
    return [change for change in changes if change.key in AT_ONCE]


def start_order(config: SystemConfig) -> tuple[str, ...]:
    """All services in start order."""
    groups = config.groups
    return tuple(name for unit in unit_order(config) for name in (groups[unit].services if unit in groups else (unit,)))


def group_of(config: SystemConfig, name: str) -> str | None:
    return next((group for group, one in config.groups.items() if name in one.services), None)


# -- the parts of a plan ----------------------------------------------------------------------------------------------


def _services(running: SystemConfig, wanted: SystemConfig) -> Iterator[Entry]:
    for name in start_order(wanted):
        new, old = wanted.services[name], running.services.get(name)
        if old is None:
            yield Entry(name, "service", Action.CREATE, is_idle=new.replicas == 0)
        else:
            yield _service(name, old, new, (group_of(running, name), group_of(wanted, name)))


def _service(name: str, old: ServiceConfig, new: ServiceConfig, homes: tuple[str | None, str | None]) -> Entry:
    changes = tuple(_changes(old, new))
    moves = homes[0] != homes[1]
    if moves:
        changes = (*changes, Change("in_group", *homes))
    moves_to = (homes[1] or "services") if moves else None
    if old.replicas == 0 or new.replicas == 0:
        action = _idle_action(old, new, has_changes=bool(changes))
    elif any(_need(change.key, new) is Need.RESTART for change in changes):
        action = Action.RESTART
    else:
        action = Action.UPDATE if changes else Action.UNCHANGED
    return Entry(name, "service", action, changes, moves_to, is_idle=new.replicas == 0)


def _idle_action(old: ServiceConfig, new: ServiceConfig, *, has_changes: bool) -> Action:
    """Scaled to 0 its run goes, scaled up from it one comes; the node stays."""
    if old.replicas != new.replicas:
        return Action.REMOVE if new.replicas == 0 else Action.CREATE
    return Action.UPDATE if has_changes else Action.UNCHANGED


def _need(key: str, new: ServiceConfig) -> Need:
    top = key.partition(".")[0]
    if top == "in_group":
        return Need.IN_PLACE
    if top == "log" and new.runtime == "docker":  # the engine takes a container's log limits at its creation only
        return Need.RESTART
    return SERVICE_KEYS.get(top, Need.RESTART)


def _groups(running: SystemConfig, wanted: SystemConfig) -> Iterator[Entry]:
    for name, new in wanted.groups.items():
        old = running.groups.get(name)
        if old is None:
            yield Entry(name, "group", Action.CREATE)
            continue
        changes = tuple(_group_changes(old, new))
        yield Entry(name, "group", Action.UPDATE if changes else Action.UNCHANGED, changes)


def _group_changes(old: GroupConfig, new: GroupConfig) -> Iterator[Change]:
    if _common(old.services, new.services) != _common(new.services, old.services):
        yield Change("order", list(old.services), list(new.services))
    yield from (change for change in _model_changes("", old, new) if change.key != "services")


def _order(running: SystemConfig, wanted: SystemConfig) -> Iterator[Entry]:
    old, new = unit_order(running), unit_order(wanted)
    if _common(old, new) != _common(new, old):
        yield Entry("services", "services", Action.UPDATE, (Change("order", list(old), list(new)),))


def _common(names: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in others]


def _own(running: SystemConfig, wanted: SystemConfig) -> Iterator[Entry]:
    """Our own nodes of which a setting changes."""
    by_node: dict[tuple[str, str], tuple[Change, ...]] = {}
    for change in _model_changes("", running, wanted):
        for key, node in LIVE.items():
            if _is_of(change.key, key):
                by_node[node] = (*by_node.get(node, ()), change)
    for (name, kind), changes in by_node.items():
        yield Entry(name, kind, Action.UPDATE, changes)


def _is_of(key: str, setting: str) -> bool:
    return key == setting or key.startswith(f"{setting}.")


def _daemon_changes(running: SystemConfig, wanted: SystemConfig) -> Iterator[Change]:
    for change in _model_changes("", running, wanted):
        is_node = change.key.partition(".")[0] in ("services", "groups")
        if not is_node and change.key not in AT_ONCE and not any(_is_of(change.key, setting) for setting in LIVE):
            yield change


def _changes(old: ServiceConfig, new: ServiceConfig) -> Iterator[Change]:
    for change in _model_changes("", old, new):
        is_shown = change.key.partition(".")[0] not in _NEVER_SHOWN
        yield change if is_shown else Change(change.key, _veiled(change.old), _veiled(change.new))


def _veiled(value: Any) -> str | None:
    return None if value is None else HIDDEN


def _model_changes(prefix: str, old: BaseModel, new: BaseModel) -> Iterator[Change]:
    for key, field in type(new).model_fields.items():
        if getattr(old, key) != getattr(new, key):
            yield from _value_changes(f"{prefix}{field.alias or key}", getattr(old, key), getattr(new, key))


def _value_changes(key: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        yield from _model_changes(f"{key}.", old, new)
    elif isinstance(old, dict) and isinstance(new, dict):
        for inner in dict.fromkeys([*old, *new]):
            if old.get(inner) != new.get(inner):
                yield from _value_changes(f"{key}.{inner}", old.get(inner), new.get(inner))
    else:
        plain = _octal if key == "umask" else _veiled if is_private(key.split(".")) else _plain
        yield Change(key, plain(old), plain(new))


def _octal(value: int | None) -> str | None:
    return None if value is None else f"{value:03o}"


def _plain(value: Any) -> Any:
    return veiled(_json(value))


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
