"""From a service's configuration to the words its actor understands. Pure."""

from __future__ import annotations

from pathlib import Path

from actors.endpoints.transport import EndpointPlan
from actors.health import HealthPolicy
from actors.probes import ExecProbe, HttpProbe, Probe, TcpProbe
from actors.runtimes.base import ContainerSpec, LaunchSpec
from actors.runtimes.settings import EnvironmentFile, EnvironmentSources, Limit, ProcessSettings, SecretFile
from actors.service import ServicePlan
from actors.service_fsm import RestartPolicy, Rules
from config.models import BridgeConfig, HealthCheckConfig, ServiceConfig


def endpoint_plan(name: str, bridge: BridgeConfig) -> EndpointPlan:
    """Everything one endpoint actor needs to know of its endpoint."""
    return EndpointPlan(
        name=name,
        kind=bridge.kind,
        silence_s=bridge.silence,
        address=bridge.address,
        directory=bridge.directory,
        start_period_s=bridge.start_period,
        executor=bridge.executor,
    )


def service_plan(name: str, service: ServiceConfig, log_directory: Path) -> ServicePlan:
    """Everything one service actor needs to know of its service."""
    check = service.health_check
    container = _container(service)
    is_attached = container is not None and container.image is None
    return ServicePlan(
        name=name,
        runtime=service.runtime,
        launch=_launch(name, service, container, log_directory),
        rules=Rules(
            policy=RestartPolicy(service.restart_policy),
            dependencies=frozenset(service.dependencies),
            is_probed=check is not None,
            stops_with_daemon=(service.on_shutdown or ("leave" if is_attached else "stop")) == "stop",
        ),
        grace_s=service.graceful_shutdown_timeout,
        probe=_probe(check, service) if check is not None else None,
        probe_interval_s=check.interval if check is not None else 5.0,
        probe_timeout_s=check.timeout if check is not None else 2.0,
        health=HealthPolicy(check.retries, check.successes, check.start_period)
        if check is not None
        else HealthPolicy(),
        description=service.description,
    )


def _launch(name: str, service: ServiceConfig, container: ContainerSpec | None, log_directory: Path) -> LaunchSpec:
    return LaunchSpec(
        service=name,
        command=tuple(service.command or ()),
        working_dir=service.working_dir,
        environment=dict(service.environment),
        log_path=log_directory / f"{name}.log",
        log_max_bytes=service.log.max_size,
        log_backups=service.log.backups,
        container=container,
        settings=_settings(service),
        sources=_sources(service),
    )


def _settings(service: ServiceConfig) -> ProcessSettings:
    return ProcessSettings(
        limits=tuple(Limit(name, *limit) for name, limit in sorted(service.limits.items())),
        nice=service.nice,
        umask=service.umask,
        user=service.user,
        group=service.group,
        groups=service.groups,
    )


def _sources(service: ServiceConfig) -> EnvironmentSources:
    return EnvironmentSources(
        tuple(
            EnvironmentFile(Path(written.removeprefix("-")), is_optional=written.startswith("-"))
            for written in service.environment_files
        ),
        {name: SecretFile(one.file, one.as_file, one.world_readable) for name, one in service.secrets.items()},
    )


def _container(service: ServiceConfig) -> ContainerSpec | None:
    if service.runtime != "docker":
        return None
    compose = service.compose
    return ContainerSpec(
        image=service.image,
        attach_name=service.container,
        compose_project=compose.project if compose is not None else None,
        compose_service=compose.service if compose is not None else None,
        ports=tuple(service.ports),
        volumes=tuple(service.volumes),
        network=service.network,
    )


def _probe(check: HealthCheckConfig, service: ServiceConfig) -> Probe:
    if check.http is not None:
        return HttpProbe(check.http)
    if check.tcp is not None:
        host, _, port = check.tcp.rpartition(":")
        return TcpProbe(host, int(port))
    return ExecProbe(tuple(check.exec or ()), service.working_dir, dict(service.environment))
