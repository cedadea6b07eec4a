"""The composition root: the only place that builds everything, and the last that lets go of it.

Runs on the main thread. Everything below is handed in from here, nothing is found by itself.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import structlog

from actors.board import NodeKind
from actors.bridge_endpoint import BridgeEndpointActor, EndpointPast, EndpointPlan
from actors.clock import SystemClock
from actors.context import ActorSystem
from actors.endpoints.transports import BeatBoard
from actors.exit_watcher import ExitWatcher
from actors.failpoints import DAEMON_VARIABLE, arm, reached, register
from actors.keeper.client import Hello
from actors.keeper.kernel import CAN_KEEP, become_subreaper
from actors.ledger import Ledger
from actors.monitor import MonitorActor, Watched
from actors.runtimes.base import Runtime
from actors.runtimes.docker import DockerRuntime
from actors.runtimes.kept import KeeperNursery
from actors.runtimes.launching import Spawner
from actors.runtimes.process import ProcessRuntime
from actors.service import LiveRuns, ServiceParts
from actors.service_logs import log_path
from actors.spec import ChildSpec, Pacing
from actors.strays import Strays
from bridge_link.errors import LinkError
from config import ConfigError, SystemConfig, load_config, resolve_state_dir
from supervisors.api.app import create_app
from supervisors.api.server import ApiServer, OperatorUnavailable
from supervisors.daemon import EXIT_FAILED, Daemon, View
from supervisors.leftovers import Cleaner, leftovers
from supervisors.library import SupervisionError, Supervisor
from supervisors.local_manager import LocalManager, daemon_info
from supervisors.log_keeper import LogKeeper
from supervisors.logging_setup import configure_logging
from supervisors.manager import Manager
from supervisors.recovery import Recovery, RecoveryPlan
from supervisors.runbook_ports import SteeredServices
from supervisors.single_root import RootLock, StateInUse
from supervisors.steering import Steering
from supervisors.tree import TreeParts, build_tree, homes, unit_order, upper
from supervisors.uncounted import uncounted
from supervisors.usage import UsageBook

EXIT_BAD_CONFIG: Final = 2
SWITCH_INTERVAL_S: Final = 0.0005
"""Threads hand over to each other on the way from a death to the next spawn; Python's default of 5 ms is long there."""
STOP_MARGIN_S: Final = 5.0
LOCK_TAKEN: Final = register("daemon.lock.taken", "the state directory is ours, nothing was read")
INSTANCE_WRITTEN: Final = register("daemon.instance.written", "the instance's new name is written, not in its place")
MISSED_COUNTED: Final = register("daemon.missed.counted", "a restart while no daemon lived is counted, not forgotten")
RESTART_COUNTED: Final = register("daemon.restart.counted", "a restart is counted, the new run was not asked for")
KEEPER_LEFT: Final = register("daemon.leave.said", "in an orderly end the keeper was told goodbye")
OTHERS_RESTART_US: Final = ("NOTIFY_SOCKET", "SELFHEAL_INIT")
"""Whoever set one of these starts a daemon that ended again: the keeper must not do it too."""


def run_daemon(
    config_path: Path, state_argument: str | None = None, *, make_view: Callable[[Manager], View] | None = None
) -> int:
    """Run the root supervisor in the foreground until it ends; returns the exit code.

    Args:
        make_view: makes what shows the tree meanwhile; without it one line ``ready ADDRESS`` is printed.
    """
    environ = _environment(state_argument)
    arm(DAEMON_VARIABLE)
    try:
        config = load_config(config_path, environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_CONFIG
    state_dir = resolve_state_dir(state_argument, config, environ)
    try:
        with RootLock(state_dir), _log_place(state_dir, has_view=make_view is not None):
            reached(LOCK_TAKEN)
            return _App(config, state_dir).daemon(make_view).run()
    except StateInUse as error:
        print(f"selfheal: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        where = error.filename or state_dir
        print(
            f"selfheal: cannot use the state directory: {where}: {error.strerror}; choose another --state",
            file=sys.stderr,
        )
        return EXIT_FAILED


@contextmanager
def _log_place(state_dir: Path, *, has_view: bool) -> Iterator[None]:
    """Log to standard error, or to a file while the live tree has the terminal."""
    if not has_view:
        configure_logging()
        yield
        return
    with (state_dir / "daemon.log").open("a", encoding="utf-8") as file:
        configure_logging(file)
        try:
            yield
        finally:
            configure_logging()


def _environment(state_argument: str | None) -> dict[str, str]:
    """The daemon's environment, with the state directory in it, so that what it starts finds it."""
    environ = dict(os.environ)
    environ["SELFHEAL_STATE"] = str(resolve_state_dir(state_argument, None, environ))
    return environ


def raise_limits() -> None:
    """As many open files as the system lets us have: every service, probe and client needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def package_version() -> str:
    try:
        return version("selfheal")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class _Places:
    """Where things are in the state directory."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def address(self, link: str) -> Path:
        return self.root / f"{link}.address"


class _App:
    """One daemon, built."""

    def __init__(self, config: SystemConfig, state_dir: Path) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        raise_limits()
        self.config = config
        self.places = _Places(state_dir)
        self.ledger = Ledger(state_dir / "ledger.jsonl")
        self.live = LiveRuns()
        self.watcher = ExitWatcher()
        self.nursery = self._nursery()
        self.runtimes = self._runtimes()
        self.strays = Strays()
        self.cleaner = self._cleaner()
        self.system = ActorSystem(reporter=self._reported)
        self.steering = self._steering()
        self.beats = BeatBoard()
        self.recovery = Recovery(
            RecoveryPlan(
                state_dir=state_dir,
                enabled=config.recovery.enabled,
                max_concurrent=config.recovery.max_concurrent,
                runbook_directories=config.runbooks.directories,
                guardian_address=config.links.guardian.address,
                bridge_address=config.links.bridge.address,
            ),
            self.system,
            SteeredServices(self.steering),
            self.beats,
        )
        self.log_keeper = LogKeeper(
            {log_path(state_dir, name): (one.log.max_size, one.log.backups) for name, one in config.services.items()}
        )

    # -- what there is ----------------------------------------------------------------------------------------------

    def _runtimes(self) -> dict[str, Runtime]:
        environment = self._service_environment()
        processes = ProcessRuntime(self.ledger, self.watcher, environment=environment, nursery=self.nursery)
        runtimes: dict[str, Runtime] = {"process": processes}
        used = {service.runtime for service in self.config.services.values()}
        if "docker" in used | {record.runtime for record in self.ledger.records().values()}:
            runtimes["docker"] = DockerRuntime(self.ledger, self._instance())
        return runtimes

    def _service_environment(self) -> dict[str, str]:
        return {**os.environ, "SELFHEAL_STATE": str(self.places.root)}

    def _nursery(self) -> KeeperNursery | None:
        """Who is the parent of the services: the keeper, where there can be one."""
        if not CAN_KEEP:
            return None
        become_subreaper()
        environment = self._service_environment()
        hello = Hello(self.ledger.path, environment, self.config.watchdog.frozen_after, respawn_facts(self.config))
        clock = SystemClock()
        nursery = KeeperNursery(self.places.root, hello, self.watcher, Spawner(environment), clock)
        nursery.ensure()
        for missed in nursery.missed:
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
        attached = {name for name, one in services.items() if one.runtime == "docker" and one.image is None}
        return Cleaner(leftovers(self.ledger.records(), graces_s, attached), self.runtimes, self.ledger.forget)

    def _instance(self) -> str:
        """This state directory's own name: only containers that carry it are ours. Never half written."""
        file = self.places.root / "instance"
        if not file.exists():
            new = file.with_name("instance.new")
            new.write_text(uuid.uuid4().hex + "\n", encoding="ascii")
            reached(INSTANCE_WRITTEN)
            new.replace(file)
        return file.read_text(encoding="ascii").strip()

    def _steering(self) -> Steering:
        limits = {
            name: service.graceful_shutdown_timeout + STOP_MARGIN_S for name, service in self.config.services.items()
        }
        return Steering(self.system, self.ledger, homes(self.config), limits, self._commanded)

    def _order(self) -> tuple[str, ...]:
        groups = self.config.groups
        return tuple(
            name for unit in unit_order(self.config) for name in (groups[unit].services if unit in groups else (unit,))
        )

    # -- the record of what happens -----------------------------------------------------------------------------------

    def _reported(self, path: str, report: Any) -> None:
        """On a supervisor's thread: count restarts where the next run reads them, hand the rest to the journal."""
        name = path.rsplit("/", 1)[-1]
        if report.kind.value == "restarting" and self.steering.path_or_none(name) == path:
            self.ledger.restarted(name)
            reached(RESTART_COUNTED)
        self.recovery.reported(path, report)

    def _commanded(self, path: str, command: str, by: str, why: str) -> None:
        self.recovery.commanded(path, command, by, why)

    # -- the tree -----------------------------------------------------------------------------------------------------

    def daemon(self, make_view: Callable[[Manager], View] | None) -> Daemon:
        daemon: Daemon

        def end(keep_services: bool, by: str) -> None:
            daemon.ask_to_stop(keep_services, by)

        order = self._order()
        manager = LocalManager(
            self.system,
            self.steering,
            UsageBook(self.live),
            self.recovery.records,
            self.recovery,
            {name: log_path(self.places.root, name) for name in order},
            order,
            daemon_info(self.places.root, package_version(), time.time()),
            end,
        )
        server = ApiServer(
            create_app(manager),
            self.config.links.operator.address,
            self.places.root / "operator.sock",
            address_file=self.places.address("operator"),
        )
        daemon = Daemon(
            start_root=lambda: self._start_root(server),
            manager=manager,
            live=self.live,
            address=lambda: server.address,
            close=self._close,
            view=make_view(manager) if make_view is not None else None,
        )
        return daemon

    def _start_root(self, server: ApiServer) -> Supervisor:
        """A taken address is said before any service is started."""
        try:
            self.recovery.bind()
            server.start()
        except (LinkError, OperatorUnavailable) as error:
            server.close()
            raise SupervisionError("cannot_bind", str(error)) from error
        self.cleaner.start()
        spec = build_tree(self.config, self._tree_parts(server))
        return Supervisor.start_spec(spec, system=self.system)

    def _tree_parts(self, server: ApiServer) -> TreeParts:
        def begin() -> None:
            if not server.is_alive:
                server.start()

        operator = Watched(begin, lambda: server.is_alive, lambda: _quietly(server.close), lambda: server.address)
        links = (*self.recovery.links(), monitor("operator", NodeKind.LINK, operator))
        return TreeParts(
            services=ServiceParts(self.runtimes, self.ledger, self.live),
            log_directory=self.places.logs,
            before=(self.recovery.journal_spec(), upper("runtimes", self._watchers())),
            bridges=self._bridges(),
            after=(self.recovery.runbooks_spec(), upper("links", links)),
            held=frozenset(name for name, record in self.ledger.records().items() if record.stopped is not None),
        )

    def _watchers(self) -> tuple[ChildSpec, ...]:
        """The threads services depend on. They end with the process, not with the node: runs live on over a restart."""

        def begin_exits() -> None:
            self.watcher.ensure_running()

        def look() -> str | None:
            self.strays.look()
            return self.ledger.trouble

        exits = Watched(begin_exits, lambda: self.watcher.is_running, _nothing, trouble=look)
        keeper = self.log_keeper
        logs = Watched(keeper.start, lambda: keeper.is_alive, keeper.close)
        specs = [monitor("exit-watcher", NodeKind.RUNTIME, exits), monitor("log-keeper", NodeKind.RUNTIME, logs)]
        if self.nursery is not None:
            specs.append(monitor("keeper", NodeKind.RUNTIME, watched_keeper(self.nursery)))
        docker = self.runtimes.get("docker")
        if isinstance(docker, DockerRuntime):
            watcher = docker.watcher

            def begin_docker() -> None:
                watcher.ensure_running()

            engine = Watched(begin_docker, lambda: watcher.is_running, _nothing, trouble=lambda: watcher.trouble)
            specs.append(monitor("docker-watcher", NodeKind.RUNTIME, engine))
        return tuple(specs)

    def _bridges(self) -> tuple[ChildSpec, ...]:
        return tuple(
            ChildSpec(
                id=name,
                start=BridgeEndpointActor,
                args=(
                    EndpointPlan(name, bridge.kind, bridge.silence, bridge.address, bridge.directory),
                    EndpointPast(),
                    self.beats,
                    self.recovery.bridge_error,
                ),
                pacing=Pacing(),
            )
            for name, bridge in self.config.bridges.items()
        )

    def _close(self) -> None:
        self.cleaner.close()
        self.recovery.close()
        if self.nursery is not None:
            self.nursery.leave()
            reached(KEEPER_LEFT)
        for runtime in self.runtimes.values():
            runtime.close()
        self.system.close()
        self.ledger.close()
        for link in ("guardian", "bridge", "operator"):
            self.places.address(link).unlink(missing_ok=True)


def monitor(name: str, kind: NodeKind, watched: Watched) -> ChildSpec:
    return ChildSpec(id=name, start=MonitorActor, args=(kind, watched), shutdown=10.0)


def watched_keeper(nursery: KeeperNursery) -> Watched:
    """A lost keeper is a fault of ours: the node crashes and has a new one. Where none can be had it says so."""

    def look() -> str | None:
        nursery.beat()
        return nursery.trouble

    return Watched(
        nursery.ensure,
        lambda: nursery.is_alive or nursery.trouble is not None,
        _nothing,
        lambda: None if nursery.pid is None else f"pid {nursery.pid}",
        look,
    )


def respawn_facts(config: SystemConfig) -> dict[str, Any]:
    """How the keeper starts this daemon again, and when: not where somebody else does (systemd, our own init)."""
    is_ours = not any(name in os.environ for name in OTHERS_RESTART_US)
    environment = {name: value for name, value in os.environ.items() if name != DAEMON_VARIABLE}
    return {
        "argv": [sys.executable, *sys.orig_argv[1:]],
        "cwd": str(Path.cwd()),
        "env": environment,
        "frozen": is_ours,
        "died": is_ours and config.watchdog.restart_when_dead,
    }


def _nothing() -> None:
    """What a node does not end with."""


def _quietly(close: Callable[[], Any]) -> None:
    if close() is False:
        structlog.get_logger().warning("the operator's server did not end in time")
