"""The composition root: the only place that builds everything, and the last that lets go of it.

Runs on the main thread. Everything below is handed in from here, nothing is found by itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from actors.board import NodeKind, NodeState, NodeStatus
from actors.bridge_endpoint import BridgeEndpointActor, EndpointPast
from actors.chain.place import say_to_syslog
from actors.clock import SystemClock
from actors.context import ActorSystem
from actors.exit_watcher import ExitWatcher
from actors.failpoints import DAEMON_VARIABLE, reached, register
from actors.former import end_former, is_former
from actors.journal.room import RoomLimits
from actors.keeper.client import Hello
from actors.keeper.kernel import CAN_KEEP, become_subreaper
from actors.ledger import Ledger
from actors.live_runs import LiveRuns
from actors.log_rotation import own_limits
from actors.monitor import Watched
from actors.refs import ActorRef
from actors.runbook import StopPolicy
from actors.runtimes.base import Runtime
from actors.runtimes.cgroups import open_cgroups
from actors.runtimes.kept import KeeperNursery
from actors.runtimes.launching import Spawner
from actors.runtimes.process import ProcessRuntime
from actors.service import ServiceParts
from actors.service_logs import log_path
from actors.service_shown import remembered
from actors.spec import ChildSpec, Pacing
from actors.strays import Strays
from bridge_link.errors import LinkError
from config import SystemConfig
from config.replicas import expanded
from supervisors.action_ports import Outside, actions_plan
from supervisors.alertmanager_link import TokenFile, alertmanager_plan, first_of, tokens_of
from supervisors.api.alertmanager import Door
from supervisors.api.app import create_app
from supervisors.api.server import ApiServer, OperatorUnavailable
from supervisors.catalog import Catalog, moment
from supervisors.daemon import Daemon, View, on_terminal
from supervisors.decisions.model import Ask, Refused, ReportKind
from supervisors.endpoint_errors import endpoint_labels
from supervisors.endpoint_return import EndpointReturn
from supervisors.exit_with import NEVER_STARTED, code_at_end
from supervisors.instance import instance_of
from supervisors.leftovers import Cleaner, leftovers
from supervisors.library import SupervisionError, Supervisor, call
from supervisors.live_edit import LiveEdit
from supervisors.local_manager import LocalManager, daemon_info
from supervisors.log_keeper import LogKeeper
from supervisors.manager import CommandFailed, Manager
from supervisors.opening import Opening, expected
from supervisors.outside_acts import OutsideActs, Plan
from supervisors.overseers import Overseers
from supervisors.pacing_memory import LedgerMemory
from supervisors.plain_sinks import sinks_of
from supervisors.pulse import Pulse
from supervisors.recovery import BRIDGES_PATH, Recovery, RecoveryPlan, retention_of
from supervisors.reload import OwnFile, Reloader, reload_by_signal
from supervisors.report_words import said
from supervisors.runbook_ports import LiveScaling, MeasuredServices, SteeredServices
from supervisors.self_alerts import SelfAlerts, WatchParts
from supervisors.self_measures import Measures, Sources
from supervisors.service_plans import endpoint_plan, service_plan
from supervisors.single_root import RootLock
from supervisors.status_line import status_line
from supervisors.steering import Steering
from supervisors.supervisor import CallRequest, Result
from supervisors.tree import TreeParts, build_tree, upper
from supervisors.uncounted import uncounted
from supervisors.usage import UsageBook
from supervisors.version import package_version
from supervisors.watched import (
    monitor,
    supervisor_paths,
    watched_engine,
    watched_exits,
    watched_keeper,
    watched_logs,
    watched_systemd,
    watched_usage,
)

MISSED_COUNTED: Final = register("daemon.missed.counted", "a restart while no daemon lived is counted, not forgotten")
RESTART_COUNTED: Final = register("daemon.restart.counted", "a restart is counted, the new run was not asked for")
KEEPER_LEFT: Final = register("daemon.leave.said", "in an orderly end the keeper was told goodbye")
DOWN: Final = frozenset({NodeState.STOPPED, NodeState.CRASH_LOOP, NodeState.FAILED})

if TYPE_CHECKING:
    from actors.runtimes.docker import DockerRuntime


@dataclass(frozen=True, slots=True)
class _Places:
    """Where things are in the state directory."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def address(self, link: str) -> Path:
        return self.root / f"{link}.address"


class App:
    """One daemon, built."""

    def __init__(
        self, config: SystemConfig, state_dir: Path, own_file: OwnFile, lock: RootLock, overseers: Overseers
    ) -> None:
        self.overseers = overseers
        self.places = _Places(state_dir)
        self.lock = lock
        self.ledger = Ledger(state_dir / "ledger.jsonl")
        self.own_file = own_file
        self.catalog = self._catalog(config)
        self.config = config = self.catalog.config
        self.live = LiveRuns()
        self.memory = LedgerMemory(self.ledger, SystemClock(), self._service_path, self.catalog.is_idle)
        self._daemon: Daemon | None = None
        self._docker: DockerRuntime | None = None
        self.watcher = ExitWatcher()
        self.nursery = self._nursery()
        self.runtimes = self._runtimes()
        self.strays = Strays()
        self.cleaner = self._cleaner()
        self.system = ActorSystem(reporter=self._reported, memory=self.memory)
        self.steering = self._steering()
        self.scaling = LiveScaling(self.catalog, self.ledger)
        self.recovery = Recovery(
            RecoveryPlan(
                state_dir=state_dir,
                enabled=config.recovery.enabled,
                max_concurrent=config.recovery.max_concurrent,
                on_switch_off=StopPolicy(config.recovery.on_switch_off),
                runbook_directories=config.runbooks.directories,
                guardian_address=config.links.guardian.address,
                bridge_address=config.links.bridge.address,
                curve=config.links.curve,
                alertmanager=alertmanager_plan(config.links.alertmanager),
                room=RoomLimits(config.journal.ballast, config.journal.min_free),
                retention=retention_of(config.journal),
                events_address=config.links.events_address,
                endpoints={name: bridge.kind for name, bridge in config.bridges.items()},
                sinks=sinks_of(config.alerting.sinks),
                behind={name: one.service for name, one in config.bridges.items() if one.service is not None},
                folders={name: str(one.directory) for name, one in config.bridges.items() if one.kind == "spool"},
                audit_tip=config.audit.tip,
                audit_say=say_to_syslog if config.audit.syslog else None,
                actions=actions_plan(config),
            ),
            self.system,
            SteeredServices(self.steering),
            Outside(self.scaling, MeasuredServices(self.catalog, self.live)),
        )
        self.endpoint_pasts = {name: EndpointPast() for name in config.bridges}
        self.system.board.listen(self._endpoint_return().look)
        self.usage = UsageBook(self.live)
        self.self_alerts = self._self_alerts()
        self._listen_outside()
        self.log_keeper = LogKeeper(self._log_limits(config), self._log_writers)
        self.parts: TreeParts | None = None
        self.closing: list[Callable[[], None]] = []

    def _log_writers(self) -> dict[Path, int]:
        """On the log keeper's thread: the living processes that write their logs themselves."""
        live = tuple(self.live.by_service.items())
        return {
            log_path(self.places.root, name): handle.pid
            for name, (runtime, handle) in live
            if runtime.name == "process" and handle.pid is not None
        }

    # -- what there is ----------------------------------------------------------------------------------------------

    def _catalog(self, source: SystemConfig) -> Catalog:
        """What runs: the file's services, with the replicas somebody scaled them to."""
        records = self.ledger.records().items()
        made = expanded(source, {name: one.scaled.replicas for name, one in records if one.scaled is not None})
        for name, why in made.ignored.items():
            structlog.get_logger().warning("remembered scale not used", service=name, why=why)
        first = moment(source, made.config, made.families)
        return Catalog(first, lambda config: self.log_keeper.update(self._log_limits(config)))

    def _log_limits(self, config: SystemConfig) -> dict[Path, tuple[int, int]]:
        services = config.services.items()
        limits = {log_path(self.places.root, name): (one.log.max_size, one.log.backups) for name, one in services}
        return limits | own_limits(self.places.root)

    def _runtimes(self) -> dict[str, Runtime]:
        environment = self._service_environment()
        cgroups = open_cgroups(self.places.root)
        structlog.get_logger().info("no escape", by="sweep" if cgroups is None else f"cgroup {cgroups.folder}")
        processes = ProcessRuntime(
            self.ledger, self.watcher, environment=environment, nursery=self.nursery, cgroups=cgroups
        )
        runtimes: dict[str, Runtime] = {"process": processes}
        used = {service.runtime for service in self.config.services.values()}
        if "docker" in used | {record.runtime for record in self.ledger.records().values()}:
            runtimes["docker"] = self._docker_runtime()
        return runtimes

    def _docker_runtime(self) -> DockerRuntime:
        from actors.runtimes.docker import DockerRuntime  # noqa: PLC0415  slow to import

        self._docker = DockerRuntime(self.ledger, self._instance())
        return self._docker

    def _listen_outside(self) -> None:
        """What others do to our containers is decided upon up here."""
        docker = self._docker
        if docker is not None:
            docker.outside.is_paused_by_us = lambda service: self.ledger.record(service).paused is not None
            docker.outside.listener = OutsideActs(self.steering, docker, self._plan_of, self.recovery.happened)

    def _plan_of(self, name: str) -> Plan | None:
        service = self.catalog.config.services.get(name)
        if service is None:
            return None
        return Plan(service_plan(name, service, self.places.logs).launch, service.graceful_shutdown_timeout)

    def _service_environment(self) -> dict[str, str]:
        return {**os.environ, "SELFHEAL_STATE": str(self.places.root)}

    def _nursery(self) -> KeeperNursery | None:
        """Who is the parent of the services: the keeper, where there can be one."""
        if not CAN_KEEP:
            return None
        become_subreaper()
        environment = self._service_environment()
        respawn = respawn_facts(self.config, is_ours=not self.overseers.restart_us)
        hello = Hello(self.ledger.path, environment, self.config.watchdog.frozen_after, respawn)
        clock = SystemClock()
        nursery = KeeperNursery(self.places.root, hello, self.watcher, Spawner(environment), clock)
        nursery.ensure()
        for missed in nursery.missed:
            if missed.run > self.ledger.record(missed.service).counted_run:
                self.memory.missed(missed.service, clock.wall() if missed.end is None else missed.end.at)
            self.ledger.restarted(missed.service, missed.run)
            reached(MISSED_COUNTED)
            nursery.recorded(missed.service, missed.run)
        self._count_restarts(nursery)
        return nursery

    def _count_restarts(self, nursery: KeeperNursery) -> None:
        """Those an earlier daemon was killed in the middle of."""
        records = self.ledger.records()
        untold = {name for name in records if (kept := nursery.kept(name)) is not None and kept.ended is not None}
        policies = {name: service.restart_policy for name, service in self.config.services.items()}
        for name, run in uncounted(records, policies, untold).items():
            self.ledger.restarted(name, run)

    def _cleaner(self) -> Cleaner:
        services = self.config.services
        graces_s = {name: service.graceful_shutdown_timeout for name, service in services.items()}
        idle = set(filter(self.catalog.is_idle, services))
        found = leftovers(self.ledger.records(), graces_s, idle)

        def is_stopped(name: str) -> bool:
            return self.catalog.is_idle(name) or self.ledger.record(name).stopped is not None

        return Cleaner(found, self.runtimes, self.ledger.retire, is_stopped)

    def _service_path(self, name: str) -> str | None:
        return self.steering.path_or_none(name)

    def _instance(self) -> str:
        return instance_of(self.places.root)

    def _steering(self) -> Steering:
        catalog = self.catalog
        return Steering(
            self.system, self.ledger, catalog.homes, catalog.stop_limits_s, self._commanded, self._clear_service
        )

    def _clear_service(self, name: str) -> None:
        service, record = self.catalog.config.services[name], self.ledger.record(name)
        if is_former(record, service.runtime, service_plan(name, service, self.places.logs).launch):
            end_former(self.ledger, record, self.runtimes, service.graceful_shutdown_timeout)
        self.runtimes[service.runtime].clear(name, service.graceful_shutdown_timeout)

    # -- edits of the running tree ----------------------------------------------------------------------------------

    def _reloader(self) -> Reloader:
        editor = LiveEdit(
            self.system,
            self.catalog,
            self.ledger,
            self.live,
            self.runtimes,
            self.cleaner,
            self._parts_now,
            self._prepare,
        )
        return Reloader(
            self.own_file,
            self.catalog,
            editor,
            self.ledger,
            self.system.clock.wall,
            self.recovery.commanded,
            self._heed,
        )

    def _heed(self, source: SystemConfig, by: str) -> Sequence[str]:
        """What counts from now on; the rest of it is looked up in the catalog whenever it is needed."""
        wanted, policy = source.recovery, StopPolicy(source.recovery.on_switch_off)
        self.recovery.configured(enabled=wanted.enabled, policy=policy, max_concurrent=wanted.max_concurrent, by=by)
        self.recovery.alertmanager.plan = alertmanager_plan(source.links.alertmanager)
        self.recovery.keep(retention_of(source.journal))
        return self.recovery.reread_runbooks(source.runbooks.directories, by)

    def _parts_now(self) -> TreeParts:
        if self.parts is None:
            raise CommandFailed("the tree is not up yet")
        return replace(self.parts, held=self._held())

    def _held(self) -> frozenset[str]:
        return frozenset(name for name, record in self.ledger.records().items() if record.stopped is not None)

    def _prepare(self, wanted: SystemConfig) -> None:
        """The first container of a daemon that had none needs the runtime, and its watcher in the tree."""
        if "docker" in self.runtimes or all(one.runtime != "docker" for one in wanted.services.values()):
            return
        self.runtimes["docker"] = self._docker_runtime()
        self._listen_outside()
        watchers = self._watchers()
        for path, request in (
            ("root/runtimes", CallRequest(Ask.INSERT, spec=watchers[-1])),
            ("root", CallRequest(Ask.REPLACE, spec=upper("runtimes", watchers))),
        ):
            ref = self.system.whereis(path)
            result = call(ref, request) if isinstance(ref, ActorRef) else Refused("noproc")
            if isinstance(result, Refused):
                raise CommandFailed(f"cannot watch the engine: {path}: {result.kind}")

    # -- the record of what happens -----------------------------------------------------------------------------------

    def _reported(self, path: str, report: Any) -> None:
        """On a supervisor's thread: count restarts where the next run reads them, hand the rest to the journal."""
        name = path.rsplit("/", 1)[-1]
        if report.kind.value == "restarting" and self.steering.path_or_none(name) == path:
            self.ledger.restarted(name)
            reached(RESTART_COUNTED)
        elif report.kind.value in ("parked", "gave_up") and self.steering.path_or_none(name) == path:
            self.ledger.judged(name)
        self.recovery.reported(path, report)
        if report.kind is ReportKind.PARKED:
            self.self_alerts.parked(name, said(report))
        if name == self.catalog.config.exit_with and self.steering.path_or_none(name) == path:
            code = code_at_end(report)
            if code is not None:
                self._end_with(name, code, said(report) if code == NEVER_STARTED else "")

    def _self_alerts(self) -> SelfAlerts:
        board, path_of = self.system.board, self.steering.path_or_none

        def status(name: str) -> NodeStatus | None:
            return board.get(path_of(name) or f"{BRIDGES_PATH}/{name}")

        def labels(name: str) -> Mapping[str, Any]:
            bridge = self.config.bridges.get(name)
            return {} if bridge is None else endpoint_labels(name, bridge.kind)

        def is_down(name: str) -> bool:
            found = status(name)
            return name not in self.live.by_service and found is not None and found.state in DOWN

        sources = Sources(lambda: self.catalog.config, is_down, self.usage.figures, self.places.root, self.system.clock)
        return SelfAlerts(
            WatchParts(
                lambda: self.catalog.config.watch,
                Measures(sources).measure,
                status,
                self.recovery.own_alerts,
                self.system.clock,
                self.system.io.run,
                labels,
            )
        )

    def _endpoint_return(self) -> EndpointReturn:
        def ask(what: Ask, endpoint: str) -> Result:
            ref = self.system.whereis(BRIDGES_PATH)
            return call(ref, CallRequest(what, id=endpoint)) if isinstance(ref, ActorRef) else Refused("noproc")

        behind = {name: one.service for name, one in self.config.bridges.items() if one.service is not None}
        return EndpointReturn(behind, self.endpoint_pasts, ask, self.system.io.run)

    def _end_with(self, service: str, code: int, why: str) -> None:
        if self._daemon is not None:
            self._daemon.ask_to_end_with(service, code, why)

    def _commanded(self, path: str, command: str, by: str, why: str) -> None:
        self.recovery.commanded(path, command, by, why)

    # -- the tree -----------------------------------------------------------------------------------------------------

    def daemon(self, make_view: Callable[[Manager], View] | None) -> Daemon:
        daemon: Daemon

        def end(keep_services: bool, by: str) -> None:
            daemon.ask_to_stop(keep_services, by)

        reloader = self.scaling.reloader = self._reloader()
        manager = LocalManager(
            self.system,
            self.steering,
            self.usage,
            self.recovery.records,
            self.recovery,
            lambda name: log_path(self.places.root, name),
            self.catalog,
            reloader,
            daemon_info(self.places.root, package_version(), time.time()),
            end,
        )
        server = ApiServer(
            create_app(
                manager,
                self._opening().is_open,
                Door(self.recovery.alertmanager, lambda: self._token().read()),
                tokens_of(lambda: self.catalog.config.links.operator.tokens),
            ),
            self.config.links.operator.address,
            self.places.root / "operator.sock",
            address_file=self.places.address("operator"),
        )
        daemon = self._daemon = Daemon(
            start_root=lambda: self._start_root(server),
            manager=manager,
            live=self.live,
            address=lambda: server.address,
            close=self._close,
            overseers=self.overseers,
            view=make_view(manager) if make_view is not None else None,
            rested=self.ledger.rested,
            ending=self.lock.ending,
            reload=None if on_terminal() else lambda: reload_by_signal(reloader),
        )
        return daemon

    def _opening(self) -> Opening:
        names = expected(self.ledger.records(), self.config.services)
        opening = Opening(self.system.board, map(self.steering.path, names))
        self.closing.append(opening.close)
        return opening

    def _start_root(self, server: ApiServer) -> Supervisor:
        """A taken address is said before any service is started."""
        try:
            self.recovery.bind()
            server.start()
        except (LinkError, OperatorUnavailable) as error:
            server.close()
            raise SupervisionError("cannot_bind", str(error)) from error
        self.cleaner.start()
        for name, service in self.config.services.items():
            record = self.ledger.record(name)
            self.system.board.publish(remembered(self.steering.path(name), service.runtime, record))
        self.parts = self._tree_parts(server)
        spec = build_tree(self.config, self.parts)
        return Supervisor.start_spec(spec, system=self.system)

    def _token(self) -> TokenFile:
        """What Alertmanager must have."""
        return TokenFile(self.catalog.config.links.alertmanager.token_file)

    def _tree_parts(self, server: ApiServer) -> TreeParts:
        def begin() -> None:
            if not server.is_alive:
                server.start()

        operator = Watched(
            begin,
            lambda: server.is_alive,
            lambda: _quietly(server.close),
            lambda: server.address,
            first_of(self.recovery.told("operator", server.look), lambda: self._token().trouble()),
        )
        links = (*self.recovery.links(), monitor("operator", NodeKind.LINK, operator))
        return TreeParts(
            services=ServiceParts(self.runtimes, self.ledger, self.live),
            log_directory=self.places.logs,
            before=(self.recovery.journal_spec(), upper("runtimes", self._watchers())),
            bridges=self._bridges(),
            after=(self.recovery.runbooks_spec(), upper("links", links)),
            held=self._held(),
        )

    def _watchers(self) -> tuple[ChildSpec, ...]:
        """The threads and processes services depend on."""
        processes = self.runtimes["process"]

        def look() -> str | None:
            self.strays.look()
            if isinstance(processes, ProcessRuntime):
                self.system.io.run(processes.note_descents)
            return records()

        records = self.recovery.told("ledger", lambda: self.ledger.look() or self.lock.look())
        nodes = {
            "exit-watcher": watched_exits(self.watcher, look),
            "log-keeper": watched_logs(self.log_keeper),
            "usage-watch": watched_usage(self.self_alerts),
        }
        if self.nursery is not None:
            nodes["keeper"] = watched_keeper(self.nursery, self._pulse(), self.recovery.told)
        if self.overseers.notifier.is_heard:
            board = self.system.board
            nodes["systemd"] = watched_systemd(
                self._pulse(), self.overseers.notifier, lambda: status_line(board.snapshot().values())
            )
        docker = self._docker
        if docker is not None:
            nodes["docker-watcher"] = watched_engine(docker.watcher)
        return tuple(monitor(name, NodeKind.RUNTIME, watched) for name, watched in nodes.items())

    def _pulse(self) -> Pulse:
        return Pulse(self.system.whereis, lambda: supervisor_paths(self.catalog.config), self.system.clock.now)

    def _bridges(self) -> tuple[ChildSpec, ...]:
        return tuple(
            ChildSpec(
                id=name,
                start=BridgeEndpointActor,
                args=(
                    endpoint_plan(name, bridge),
                    self.endpoint_pasts[name],
                    self.recovery.sessions,
                    self.recovery.bridge_error,
                ),
                pacing=Pacing(),
            )
            for name, bridge in self.config.bridges.items()
        )

    def _close(self) -> None:
        for close in self.closing:
            close()
        self.cleaner.close()
        self.recovery.close()
        if self.nursery is not None:
            self.nursery.leave()
            reached(KEEPER_LEFT)
        for runtime in self.runtimes.values():
            runtime.close()
        self.system.close()
        self.ledger.close()
        self.overseers.close()
        for link in ("guardian", "bridge", "events", "operator"):
            with suppress(OSError):  # read-only: it is as stale as all that is there
                self.places.address(link).unlink(missing_ok=True)


def respawn_facts(config: SystemConfig, *, is_ours: bool) -> dict[str, Any]:
    """How the keeper starts this daemon again, and when: not where somebody else does (systemd, our own init)."""
    environment = {name: value for name, value in os.environ.items() if name != DAEMON_VARIABLE}
    return {
        "argv": [sys.executable, *sys.orig_argv[1:]],
        "cwd": _working_directory(),
        "env": environment,
        "frozen": is_ours,
        "died": is_ours and config.watchdog.restart_when_dead,
    }


def _working_directory() -> str:
    """Of a daemon that was started in a directory that is gone: none of its relative paths means anything any more."""
    try:
        return str(Path.cwd())
    except OSError:
        return "/"


def _quietly(close: Callable[[], Any]) -> None:
    if close() is False:
        structlog.get_logger().warning("the operator's server did not end in time")
