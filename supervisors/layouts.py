"""The configuration of what really runs, edit by edit: what a plan's steps make of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

from config.models import GroupConfig, ServiceConfig, SystemConfig
from supervisors.plans import LIVE, Action, Plan, group_of

M = TypeVar("M", bound=BaseModel)


def settled(config: SystemConfig, wanted: SystemConfig) -> SystemConfig:
    """With the settings of our own nodes as they are wanted (``plans.LIVE``)."""
    for key in LIVE:
        config = _taken_over(config, wanted, key.split("."))
    return config


def with_service(config: SystemConfig, wanted: SystemConfig, name: str) -> SystemConfig:
    """With this service as it is wanted, in the group it is wanted in."""
    home = group_of(wanted, name)
    groups = _without(config, name, but=home)
    if home is not None:
        group = groups.get(home) or wanted.groups[home].model_copy(update={"services": ()})
        if name not in group.services:
            group = group.model_copy(update={"services": (*group.services, name)})
        groups[home] = group
    return _made(config, {**config.services, name: wanted.services[name]}, groups)


def without_service(config: SystemConfig, name: str) -> SystemConfig:
    services = {other: service for other, service in config.services.items() if other != name}
    return _made(config, services, _without(config, name, but=None))


def arranged(config: SystemConfig, wanted: SystemConfig) -> SystemConfig:
    """In the wanted order, with the wanted flags of groups; what should be gone and is not stands behind."""
    services = {name: config.services[name] for name in _sorted(tuple(config.services), tuple(wanted.services))}
    groups = {}
    for name in _sorted(tuple(config.groups), tuple(wanted.groups)):
        have, want = config.groups[name], wanted.groups.get(name)
        if want is not None:
            members = _sorted(have.services, want.services)
            groups[name] = want.model_copy(update={"services": tuple(members)})
        else:
            groups[name] = have
    return _made(config, services, groups)


def result_of(plan: Plan, running: SystemConfig, wanted: SystemConfig) -> SystemConfig:
    """What runs when every step of the plan went well."""
    config = settled(running, wanted)
    for entry in plan.changed:
        if entry.kind == "group" and entry.action is Action.CREATE:
            config = with_group(config, wanted, entry.node)
        if entry.kind != "service":
            continue
        is_gone = entry.action is Action.REMOVE and not entry.is_idle
        config = without_service(config, entry.node) if is_gone else with_service(config, wanted, entry.node)
    for entry in plan.changed:
        if entry.kind == "group" and entry.action is Action.REMOVE:
            config = without_group(config, entry.node)
    return arranged(config, wanted)


def with_group(config: SystemConfig, wanted: SystemConfig, name: str) -> SystemConfig:
    """With the group, still empty."""
    if name in config.groups:
        return config
    empty = wanted.groups[name].model_copy(update={"services": ()})
    return _made(config, dict(config.services), {**config.groups, name: empty})


def without_group(config: SystemConfig, name: str) -> SystemConfig:
    """Without the group, which is empty."""
    groups = {other: one for other, one in config.groups.items() if other != name}
    return _made(config, dict(config.services), groups)


def _taken_over(mine: M, other: M, key: Sequence[str]) -> M:
    """With the other's value of this key."""
    first, *rest = key
    value = getattr(other, first)
    return mine.model_copy(update={first: _taken_over(getattr(mine, first), value, rest) if rest else value})


def _without(config: SystemConfig, name: str, *, but: str | None) -> dict[str, GroupConfig]:
    return {
        group: one
        if group == but or name not in one.services
        else one.model_copy(update={"services": tuple(other for other in one.services if other != name)})
        for group, one in config.groups.items()
    }


def _sorted(have: tuple[str, ...], want: tuple[str, ...]) -> list[str]:
    return [*(name for name in want if name in have), *(name for name in have if name not in want)]


def _made(config: SystemConfig, services: dict[str, ServiceConfig], groups: dict[str, GroupConfig]) -> SystemConfig:
    return config.model_copy(update={"services": services, "groups": groups})
