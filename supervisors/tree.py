"""From a validated file to a tree of child specs. Pure: nothing is started, opened or asked here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actors.service import ServiceActor, ServiceParts
from actors.spec import Backoff, ChildSpec, OnExhausted, Pacing, Restart, WaitFor
from config.models import GroupConfig, ServiceConfig, SystemConfig
from supervisors.decisions.model import Strategy
from supervisors.library import Supervisor
from supervisors.service_plans import service_plan

ROOT_INTENSITY, ROOT_PERIOD_S = 5, 60.0
"""Faults of our own code in any one supervisor above the groups: more than this ends the daemon (OTP escalation)."""
STOP_MARGIN_S = 5.0
"""A service's own grace is kept by its runtime; the supervisor waits this much longer before it kills the rest."""


@dataclass(frozen=True, slots=True)
class TreeParts:
    """What the nodes of the tree are given at birth; ``app`` makes it.

    Args:
        before: children of the root in front of ``services`` (journal, runtimes), in start order.
        after: children of the root behind ``bridges`` (runbooks, links).
        bridges: the endpoint specs.
        held: services that a person stopped: not started at boot.
    """

    services: ServiceParts
    log_directory: Path
    before: tuple[ChildSpec, ...] = ()
    bridges: tuple[ChildSpec, ...] = ()
    after: tuple[ChildSpec, ...] = ()
    held: frozenset[str] = field(default_factory=frozenset)


def build_tree(config: SystemConfig, parts: TreeParts) -> ChildSpec:
    """The root's child spec: everything the daemon supervises, in start order."""
    children = (
        *parts.before,
        services_spec(config, parts),
        upper("bridges", parts.bridges),
        *parts.after,
    )
    return Supervisor.spec(
        "root",
        strategy=Strategy.REST_FOR_ONE,
        intensity=ROOT_INTENSITY,
        period_s=ROOT_PERIOD_S,
        children=children,
    )


def upper(name: str, children: Sequence[ChildSpec]) -> ChildSpec:
    """A one_for_one supervisor of our own nodes."""
    return Supervisor.spec(
        name, strategy=Strategy.ONE_FOR_ONE, intensity=ROOT_INTENSITY, period_s=ROOT_PERIOD_S, children=children
    )


def homes(config: SystemConfig) -> dict[str, str]:
    """For each service the path of its supervisor."""
    of_group = {name: f"root/services/{group}" for group, one in config.groups.items() for name in one.services}
    return {name: of_group.get(name, "root/services") for name in config.services}


def services_spec(config: SystemConfig, parts: TreeParts) -> ChildSpec:
    """The supervisor of all groups and lone services."""
    children = [
        group_spec(unit, config, parts) if unit in config.groups else service_spec(unit, config, parts)
        for unit in unit_order(config)
    ]
    return Supervisor.spec(
        "services",
        strategy=Strategy.ONE_FOR_ONE,
        intensity=ROOT_INTENSITY,
        period_s=ROOT_PERIOD_S,
        children=children,
        held=held_nodes(config, parts) & frozenset(config.services),
    )


def held_nodes(config: SystemConfig, parts: TreeParts) -> frozenset[str]:
    """Whom nothing starts by itself: what a person stopped, and what is scaled to 0."""
    return parts.held | {name for name, service in config.services.items() if service.replicas == 0}


def group_spec(name: str, config: SystemConfig, parts: TreeParts) -> ChildSpec:
    """The supervisor of one group."""
    group: GroupConfig = config.groups[name]
    strategy = Strategy(group.strategy)
    return Supervisor.spec(
        name,
        strategy=strategy,
        intensity=group.intensity.restarts,
        period_s=group.intensity.period,
        children=[service_spec(service, config, parts) for service in group.services],
        held=held_nodes(config, parts) & frozenset(group.services),
    )


def waits_for_ready(name: str, config: SystemConfig) -> bool:
    """Whether the next of its group starts only when this one is ready."""
    home = next((group for group in config.groups.values() if name in group.services), None)
    return home is not None and Strategy(home.strategy).is_group


def service_spec(name: str, config: SystemConfig, parts: TreeParts) -> ChildSpec:
    """One service, in its group if it has one."""
    service = config.services[name]
    gate = WaitFor.READY if waits_for_ready(name, config) else WaitFor.STARTED
    return ChildSpec(
        id=name,
        start=ServiceActor,
        args=(service_plan(name, service, parts.log_directory), parts.services),
        restart=Restart.TRANSIENT,
        shutdown=service.graceful_shutdown_timeout + STOP_MARGIN_S,
        wait_for=gate,
        pacing=pacing(service),
    )


def pacing(service: ServiceConfig) -> Pacing:
    backoff = service.backoff
    return Pacing(
        Backoff(
            first_s=backoff.first,
            initial_s=backoff.initial,
            factor=backoff.factor,
            max_s=backoff.max,
            jitter=backoff.jitter,
            reset_after_s=backoff.reset_after,
        ),
        max_restarts=service.max_restarts,
        within_s=service.within,
        on_exhausted=OnExhausted(service.on_exhausted),
    )


def unit_order(config: SystemConfig) -> tuple[str, ...]:
    """Groups and lone services in start order: dependencies first, else as in the file; so stops go newest first."""
    unit_of = {service: group for group, one in config.groups.items() for service in one.services}
    unit_of |= {service: service for service in config.services if service not in unit_of}
    units = list(dict.fromkeys(unit_of[service] for service in config.services))
    needs = {
        unit: {unit_of[other] for service in _members(unit, config) for other in config.services[service].dependencies}
        - {unit}
        for unit in units
    }
    return _sorted_by_need(units, needs)


def _members(unit: str, config: SystemConfig) -> Iterable[str]:
    group = config.groups.get(unit)
    return group.services if group is not None else (unit,)


def _sorted_by_need(units: Sequence[str], needs: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Stable: among those whose needs are met, the first of the file. Units that need each other (through different
    members) keep the file's order: the services themselves wait for what they depend on.
    """
    ordered: list[str] = []
    left = list(units)
    while left:
        free = next((unit for unit in left if needs[unit] <= set(ordered)), left[0])
        left.remove(free)
        ordered.append(free)
    return tuple(ordered)
