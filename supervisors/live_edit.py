"""Carries out a plan on the running tree, node by node, and keeps the catalog equal to what is really there.

Runs on one ordinary thread at a time (the reloader's lock); asks supervisors by their calls and never touches an actor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from actors.board import NodeState
from actors.context import ActorSystem
from actors.ledger import Ledger
from actors.live_runs import LiveRuns
from actors.refs import ActorRef
from actors.runtimes.base import LaunchError, Runtime, StopFailed
from actors.spec import ChildSpec, ChildType
from config.models import ServiceConfig, SystemConfig
from supervisors.catalog import Catalog
from supervisors.decisions.edits import HELD
from supervisors.decisions.model import Ask, Child, Refused
from supervisors.layouts import arranged, with_group, with_service, without_group, without_service
from supervisors.leftovers import Cleaner, Leftover
from supervisors.library import call
from supervisors.manager import CommandFailed, ManagerError, TimedOut
from supervisors.plans import Action, Entry, Plan, group_of
from supervisors.steering import CALL_MARGIN_S, SETTLED_BAD
from supervisors.supervisor import CallRequest
from supervisors.tree import (
    TreeParts,
    group_spec,
    held_nodes,
    homes,
    service_spec,
    services_spec,
    unit_order,
    waits_for_ready,
)

SERVICES: Final = "root/services"
LOOK_S: Final = 0.05
CALL_S: Final = 30.0
THERE: Final = frozenset({"already_started", "already_present"})
GONE: Final = frozenset({"not_found"})
Failures = dict[tuple[str, str], str]
"""What failed, and why, by kind and node: a group that goes and a service that comes may have one name."""


@dataclass
class LiveEdit:
    """Args:
    parts: what new nodes are given, with whom a person stopped by now.
    prepare: makes what the wanted configuration needs beside its nodes (a runtime not used so far).
    """

    system: ActorSystem
    catalog: Catalog
    ledger: Ledger
    live: LiveRuns
    runtimes: Mapping[str, Runtime]
    cleaner: Cleaner
    parts: Callable[[], TreeParts]
    prepare: Callable[[SystemConfig], None] = lambda _config: None
    errors: Failures = field(default_factory=dict)
    halted: set[str] = field(default_factory=set)
    """Services that are down for their restart, and already where and what they are to be."""

    def carry_out(self, plan: Plan, wanted: SystemConfig, timeout_s: float) -> Failures:
        """One step failing does not hold up the others. Returns what failed, by kind and node."""
        self.errors, self.halted = {}, set()
        deadline = time.monotonic() + timeout_s
        services = [entry for entry in plan.changed if entry.kind == "service"]
        groups = [entry for entry in plan.changed if entry.kind == "group"]
        self.prepare(wanted)
        try:
            for entry in services:
                if entry.action is Action.REMOVE:
                    self._try(entry, self._remove, entry)
            for entry in groups:
                if entry.action is Action.CREATE:
                    self._try(entry, self._create_group, entry.node, wanted)
            placed = self._free_names(services, groups, wanted)
            for entry in services:
                if self._stays_as_it_is(entry) and entry not in placed:
                    self._try(entry, self._place, entry.node, wanted)
            begun = self._begin_all(services, wanted, deadline)
        finally:
            self._arrange_all(groups, wanted)
        for entry in begun:
            if not self._has_failed(entry):
                self._try(entry, self._settle, entry.node, deadline)
        return self.errors

    def _stays_as_it_is(self, entry: Entry) -> bool:
        """It runs on, or rests on, under its new plan."""
        is_at_rest = entry.action is Action.REMOVE and entry.is_idle and not self._has_failed(entry)
        return entry.action is Action.UPDATE or is_at_rest

    def _free_names(self, services: list[Entry], groups: list[Entry], wanted: SystemConfig) -> list[Entry]:
        """A group whose name a service takes over goes before that one comes, and before it its members: there is one
        child of a name. A member that is to be restarted waits in its new place for its turn. Returns who was moved.
        """
        taken = [entry for entry in groups if entry.action is Action.REMOVE and entry.node in wanted.services]
        inside = {name for entry in taken for name in self.catalog.config.groups[entry.node].services}
        placed = []
        for entry in services:
            if entry.node not in inside:
                continue
            if self._stays_as_it_is(entry):
                self._try(entry, self._place, entry.node, wanted)
                placed.append(entry)
            elif entry.action in (Action.RESTART, Action.CREATE):
                self._try(entry, self._stop_and_place, entry.node, wanted)
        for entry in taken:
            self._try(entry, self._remove_group, entry.node)
        return placed

    def _begin_all(self, services: list[Entry], wanted: SystemConfig, deadline: float) -> list[Entry]:
        """Restarts and creations in start order; in a group that waits for readiness one waits for the one before."""
        begun = []
        for entry in services:
            if entry.action not in (Action.RESTART, Action.CREATE):
                continue
            self._try(entry, self._begin, entry, wanted)
            if self._has_failed(entry) or self._is_held(entry.node, wanted):
                continue
            begun.append(entry)
            if waits_for_ready(entry.node, wanted):
                self._try(entry, self._settle, entry.node, deadline)
        return [entry for entry in begun if not self._has_failed(entry)]

    def _has_failed(self, entry: Entry) -> bool:
        return (entry.kind, entry.node) in self.errors

    def _try(self, whose: Entry | tuple[str, str], step: Callable[..., None], *what: Any) -> None:
        try:
            step(*what)
        except (ManagerError, StopFailed, LaunchError, TimeoutError) as error:
            self._failed(*((whose.kind, whose.node) if isinstance(whose, Entry) else whose), str(error))

    def _failed(self, kind: str, node: str, text: str) -> None:
        self.errors.setdefault((kind, node), text)
        structlog.get_logger().error("reload: a step failed", node=node, kind=kind, error=text)

    # -- steps ------------------------------------------------------------------------------------------------------

    def _remove(self, entry: Entry) -> None:
        name, old = entry.node, self.catalog.config.services[entry.node]
        if entry.is_idle:
            self._call(self._home(name), CallRequest(Ask.HOLD, name), self._stop_limit_s(name))
            return  # its node stays, and has its place when the groups are there
        if old.container is not None or old.compose is not None:  # it was never ours to stop
            self._call(self._home(name), CallRequest(Ask.TAKE_OUT, name), self._stop_limit_s(name), well=GONE)
        else:
            self._call(self._home(name), CallRequest(Ask.HOLD, name), self._stop_limit_s(name), well=GONE)
            self._call(self._home(name), CallRequest(Ask.DELETE, name), well=GONE)
        self.catalog.become(without_service(self.catalog.config, name))
        self._clear(name, old)
        self.ledger.retire(name)

    def _clear(self, name: str, old: ServiceConfig) -> None:
        """Whatever of it is still there (a stopped container). What cannot be cleared now is tried again."""
        if old.runtime == "docker" and old.image is None:
            return
        try:
            self.runtimes[old.runtime].clear(name, old.graceful_shutdown_timeout)
        except (StopFailed, LaunchError):
            self.cleaner.add(Leftover(name, old.runtime, old.graceful_shutdown_timeout, is_configured=False))
            raise

    def _create_group(self, name: str, wanted: SystemConfig) -> None:
        config = with_group(self.catalog.config, wanted, name)
        self._put(SERVICES, group_spec(name, config, self.parts()))
        self.catalog.become(config)

    def _begin(self, entry: Entry, wanted: SystemConfig) -> None:
        """Start it as it is wanted: for the first time, or anew."""
        name = entry.node
        self.cleaner.spare(name)
        if name not in self.catalog.config.services:
            home = self._new_home(name, wanted)
            luggage = (HELD,) if self._is_held(name, wanted) else ()
            self._put(home, service_spec(name, wanted, self.parts()), luggage)
            self._take_into_force(name, wanted)
            return
        try:
            if name not in self.halted:
                self._stop_and_place(name, wanted)
        finally:  # whatever goes wrong meanwhile: a restart does not end as a stop
            if name in self.halted and not self._is_held(name, wanted):
                self._call(self._home(name), CallRequest(Ask.RESTART, name), well=GONE)

    def _stop_and_place(self, name: str, wanted: SystemConfig) -> None:
        old = self.catalog.config.services[name]
        self._call(self._home(name), CallRequest(Ask.HOLD, name), self._stop_limit_s(name))
        self.halted.add(name)
        if old.image is not None and wanted.services[name].image is None:
            self._clear(name, old)
        self._place(name, wanted)

    def _place(self, name: str, wanted: SystemConfig) -> None:
        """The wanted plan for a node that is there, under the wanted supervisor; its run goes on."""
        home = self._home(name)
        if home != self._new_home(name, wanted):
            self._move(name, wanted)
            return
        self._call(home, CallRequest(Ask.REPLACE, spec=service_spec(name, wanted, self.parts())))
        self.catalog.become(with_service(self.catalog.config, wanted, name))

    def _move(self, name: str, wanted: SystemConfig) -> None:
        """To another supervisor; back to its own when that one does not take it."""
        old_home, new_home, parts = self._home(name), self._new_home(name, wanted), self.parts()
        old_spec = service_spec(name, self.catalog.config, parts)
        record = self._call(old_home, CallRequest(Ask.TAKE_OUT, name), self._stop_limit_s(name), well=GONE)
        held = (HELD,) if self._is_held(name, wanted) else ()
        luggage = (record,) if isinstance(record, Child) else held
        try:
            self._put(new_home, service_spec(name, wanted, parts), luggage)
        except ManagerError:
            there = self._children(new_home)
            if there is not None and there.get(name) != ChildType.WORKER.value:
                self._put(old_home, old_spec, luggage)
            else:  # it is there all the same, or comes there when that supervisor answers again
                self.catalog.become(with_service(self.catalog.config, wanted, name))
            raise
        self._take_into_force(name, wanted)

    def _put(self, home: str, spec: ChildSpec, luggage: tuple[Any, ...] = ()) -> None:
        """Raises CommandFailed also when there is another kind of node of that name."""
        if self._call(home, CallRequest(Ask.INSERT, spec=spec, args=luggage), well=THERE) not in THERE:
            return
        there: ChildSpec = self._call(home, CallRequest(Ask.GET_SPEC, spec.id))
        if there.type is not spec.type:
            what = "group" if there.type is ChildType.SUPERVISOR else "service"
            raise CommandFailed(f"{spec.id}: the {what} of that name is still there")
        self._call(home, CallRequest(Ask.REPLACE, spec=spec))  # an earlier insertion was answered too late

    def _take_into_force(self, name: str, wanted: SystemConfig) -> None:
        """It is there: in the configuration, and in its place."""
        self.catalog.become(with_service(self.catalog.config, wanted, name))
        group = group_of(wanted, name)
        order = wanted.groups[group].services if group is not None else unit_order(wanted)
        self._call(self._home(name), CallRequest(Ask.ARRANGE, args=order))

    def _new_home(self, name: str, wanted: SystemConfig) -> str:
        """Raises CommandFailed: there is no such group. What has its name may be no supervisor, and never answer."""
        group = group_of(wanted, name)
        if group is not None and group not in self.catalog.config.groups:
            raise CommandFailed(f"{name}: its group {group} is not there")
        return homes(wanted)[name]

    # -- order, and what supervisors are started anew with ----------------------------------------------------------

    def _arrange_all(self, groups: list[Entry], wanted: SystemConfig) -> None:
        for entry in groups:
            if (
                entry.action is Action.REMOVE
                and entry.node in self.catalog.config.groups
                and not self._has_failed(entry)
            ):
                self._try(entry, self._remove_group, entry.node)
        self._take_stock()
        config = arranged(self.catalog.config, wanted)
        self.catalog.become(config)
        for name, group in config.groups.items():
            self._try(("group", name), self._arrange, name, group.services, config)
        self._try(("services", "services"), self._arrange_services, config)

    def _remove_group(self, name: str) -> None:
        left = self.catalog.config.groups[name].services
        if left:
            raise CommandFailed(f"group {name} still has {', '.join(left)}")
        self._call(SERVICES, CallRequest(Ask.TERMINATE, name), well=GONE)
        self._call(SERVICES, CallRequest(Ask.DELETE, name), well=GONE)
        self.catalog.become(without_group(self.catalog.config, name))

    def _take_stock(self) -> None:
        """What its supervisor does not have is not in force, whatever became of it: the next plan makes it anew."""
        units = self._children(SERVICES)
        if units is None:
            return
        for group in [name for name in self.catalog.config.groups if units.get(name) != ChildType.SUPERVISOR.value]:
            self._lose(f"{SERVICES}/{group}", self.catalog.config.groups[group].services)
            self.catalog.become(without_group(self.catalog.config, group))
            self._failed("group", group, f"{group}: {SERVICES} has no such group any more")
        for home in dict.fromkeys(self.catalog.homes.values()):
            there = units if home == SERVICES else self._children(home)
            known = [name for name, its in self.catalog.homes.items() if its == home]
            if there is not None:
                self._lose(home, [name for name in known if there.get(name) != ChildType.WORKER.value])

    def _lose(self, home: str, names: Sequence[str]) -> None:
        for name in names:
            self.catalog.become(without_service(self.catalog.config, name))
            self._failed("service", name, f"{name}: {home} has no such service any more")

    def _children(self, home: str) -> dict[str, str] | None:
        """What a supervisor has, worker or supervisor by name. None: it does not say (whatever else it is asked fails
        too, and that is told).
        """
        try:
            return {child.id: child.type for child in self._call(home, CallRequest(Ask.WHICH))}
        except ManagerError:
            return None

    def _arrange(self, name: str, members: tuple[str, ...], config: SystemConfig) -> None:
        spec, parts = group_spec(name, config, self.parts()), self.parts()
        home = f"{SERVICES}/{name}"
        flags = self._call(SERVICES, CallRequest(Ask.GET_SPEC, name)).args[0]
        if flags.strategy is not spec.args[0].strategy:
            for member in members:  # the strategy says whether the next waits for it
                self._call(home, CallRequest(Ask.REPLACE, spec=service_spec(member, config, parts)))
        self._call(home, CallRequest(Ask.ARRANGE, spec=spec.args[0], args=members))
        self._call(SERVICES, CallRequest(Ask.REPLACE, spec=spec))

    def _arrange_services(self, config: SystemConfig) -> None:
        self._call(SERVICES, CallRequest(Ask.ARRANGE, args=unit_order(config)))
        self._call("root", CallRequest(Ask.REPLACE, spec=services_spec(config, self.parts())))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _settle(self, name: str, deadline: float) -> None:
        """Wait until it is ready, or ended as its policy allows. Raises CommandFailed, TimedOut."""
        pause, path = threading.Event(), f"{self._home(name)}/{name}"
        while True:
            status = self.system.board.get(path)
            state = status.state if status is not None else NodeState.WAITING
            if state in (NodeState.READY, NodeState.DEGRADED):
                return
            if state in SETTLED_BAD and status is not None:
                last = status.last_exit.cause if status.last_exit is not None else "for no known reason"
                raise CommandFailed(f"{name}: {state.value}: {status.detail or last}")
            if state is NodeState.STOPPED and self._is_down(name):
                return
            if time.monotonic() >= deadline:
                detail = f" ({status.detail})" if status is not None and status.detail else ""
                raise TimedOut(f"{name}: not ready in time: {state.value}{detail}")
            pause.wait(LOOK_S)

    def _is_down(self, name: str) -> bool:
        """Its supervisor does not mean to start it again."""
        children = self._call(self._home(name), CallRequest(Ask.WHICH))
        return any(child.id == name and child.state == "stopped" for child in children)

    def _is_held(self, name: str, wanted: SystemConfig) -> bool:
        return name in held_nodes(wanted, self.parts())

    def _home(self, name: str) -> str:
        return self.catalog.homes[name]

    def _stop_limit_s(self, name: str) -> float:
        return self.catalog.stop_limits_s[name] + CALL_MARGIN_S

    def _call(
        self, home: str, request: CallRequest, timeout_s: float | None = None, *, well: frozenset[str] = frozenset()
    ) -> Any:
        """The answer; a refusal in ``well`` is one too. A supervisor in the middle of a group restart answers after it.

        Raises:
            CommandFailed, TimedOut.
        """
        if timeout_s is None:
            timeout_s = CALL_S + max(self.catalog.stop_limits_s.values(), default=0.0)
        ref = self.system.whereis(home)
        what = f"{request.ask.value} {getattr(request.spec, 'id', None) or request.id or ''}".strip()
        if not isinstance(ref, ActorRef):
            raise CommandFailed(f"{what}: the supervisor {home} is not up")
        try:
            result = call(ref, request, timeout_s)
        except TimeoutError as late:
            raise TimedOut(f"{what}: {home} did not answer within {timeout_s:g} s") from late
        if isinstance(result, Refused) and result.kind in well:
            return result.kind
        if isinstance(result, Refused):
            detail = f": {result.detail}" if result.detail else ""
            raise CommandFailed(f"{what}: refused by {home}: {result.kind}{detail}")
        return result.value
