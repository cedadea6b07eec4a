"""What runbooks act through, built from what the configuration allows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from config.models import ChannelConfig, SecretName, SystemConfig
from runbooks.calls.notify import DEFAULT_CHANNEL
from runbooks.cleaning import LocalCleanups
from runbooks.commands import LocalCommands
from runbooks.config_files import LocalFiles
from runbooks.databases import LocalDatabases
from runbooks.deciding.timing import Moment
from runbooks.functions import CustomFunctions
from runbooks.hosts import LocalHosts
from runbooks.kept import OpenRuns, no_runs
from runbooks.network import LocalHttp, LocalTcp
from runbooks.notices import Channel, LocalNotices, Log, Program, Webhook
from runbooks.ports import Bridges, Ports, Scaling, Services, Usages
from runbooks.quarantine import Quarantine
from runbooks.secret_files import LocalSecrets, SecretFile

PURGE_EVERY_S: Final = 3600.0
QUARANTINE: Final = "quarantine"


@dataclass(frozen=True, slots=True)
class ActionsPlan:
    """What runbooks may touch. ``quarantine`` None: in the state directory."""

    file_roots: tuple[Path, ...] = ()
    cleanup_roots: tuple[Path, ...] = ()
    quarantine: Path | None = None
    keep_s: float = 7 * 86400.0
    most_bytes: int = 1024**3
    functions: tuple[str, ...] = ()
    channels: Mapping[str, Channel] = field(default_factory=dict)
    secrets: Mapping[str, SecretFile] = field(default_factory=dict)
    databases: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    """The urls of services that are databases; ``{"secret": NAME}`` for one that is a secret."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Ports that only a whole daemon has."""

    scaling: Scaling | None = None
    usages: Usages | None = None


def actions_plan(config: SystemConfig) -> ActionsPlan:
    runbooks = config.runbooks
    return ActionsPlan(
        file_roots=runbooks.files.roots,
        cleanup_roots=runbooks.cleanup.roots,
        quarantine=runbooks.cleanup.quarantine,
        keep_s=runbooks.cleanup.keep,
        most_bytes=runbooks.cleanup.max_size,
        functions=runbooks.functions,
        channels={name: _channel(one) for name, one in config.notifications.channels.items()},
        secrets={name: SecretFile(one.file, one.world_readable) for name, one in config.secrets.items()},
        databases={name: _text(one.url) for name, one in runbooks.databases.items()},
    )


def _channel(said: ChannelConfig) -> Channel:
    if said.webhook is not None:
        return Webhook(_text(said.webhook), {name: _text(value) for name, value in said.headers.items()})
    return Log() if said.command is None else Program(said.command)


def _text(said: str | SecretName) -> str | dict[str, str]:
    return said if isinstance(said, str) else {"secret": said.secret}


def action_ports(
    plan: ActionsPlan,
    state_dir: Path,
    services: Services,
    bridges: Bridges,
    outside: Outside,
    moment: Callable[[], Moment],
    open_runs: OpenRuns = no_runs,
) -> tuple[Ports, Quarantine]:
    """The ports, and the quarantine that is to be purged now and then, but for what ``open_runs`` put there."""
    commands, http = LocalCommands(), LocalHttp()
    secrets = LocalSecrets(plan.secrets)
    base = plan.quarantine or state_dir / QUARANTINE
    quarantine = Quarantine(base, plan.keep_s, plan.most_bytes, moment, open_runs)
    channels = {"log": Log(), DEFAULT_CHANNEL: Log()} | dict(plan.channels)
    ports = Ports(
        services,
        commands,
        http,
        LocalTcp(),
        bridges,
        databases=LocalDatabases(plan.databases, secrets.value),
        files=LocalFiles(plan.file_roots),
        cleanups=LocalCleanups(plan.cleanup_roots, quarantine),
        notices=LocalNotices(channels, state_dir / "notices", http, commands, secrets, _log),
        functions=CustomFunctions(plan.functions, commands),
        scaling=outside.scaling,
        usages=outside.usages,
        hosts=LocalHosts(),
        secrets=secrets,
    )
    return ports, quarantine


def _log(severity: str, message: str, key: str) -> None:
    log = structlog.get_logger()
    say = {"critical": log.critical, "high": log.error, "medium": log.warning}.get(severity, log.info)
    say("notice", message=message, key=key)


class Purger:
    """Has the quarantine purged at the first look and then once an hour."""

    def __init__(
        self, purge: Callable[[], int], run: Callable[[Callable[[], Any]], None], now: Callable[[], float]
    ) -> None:
        self._purge, self._run, self._now = purge, run, now
        self._due_s = float("-inf")

    def look(self) -> None:
        """Cheap; from any thread that looks at something regularly."""
        if self._now() >= self._due_s:
            self._due_s = self._now() + PURGE_EVERY_S
            self._run(self._purged)

    def _purged(self) -> None:
        try:
            self._purge()
        except OSError as error:
            structlog.get_logger().warning("the quarantine cannot be purged", error=str(error))
