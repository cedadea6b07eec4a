"""What a configuration file may say, as frozen models. Unknown keys are refused. Imports no logic of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from config.process_words import Account, LimitName, LimitValue, PossiblePath, Umask, VariableName, path_text
from config.units import Bytes, PositiveSeconds, Seconds

RESERVED: Final = frozenset({"root", "journal", "runtimes", "services", "bridges", "runbooks", "links"})
"""Names of the tree's own nodes."""


MAX_REPLICAS: Final = 200
BESIDE: Final = "beside"


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is a name of the tree itself; choose another")
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"), AfterValidator(_not_reserved)]


def _as_text(value: Any) -> Any:
    """YAML reads `PORT: 8081` as a number; an environment holds text only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


EnvironmentValue = Annotated[str, BeforeValidator(_as_text)]


def _environment_file(written: str) -> str:
    path_text(written.removeprefix("-"))
    return written


EnvironmentFileName = Annotated[str, StringConstraints(pattern=r"^-?[^-]"), AfterValidator(_environment_file)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecoveryConfig(Model):
    """Whether alerts start runbooks, how many at once, and what becomes of those under way when a person switches
    recovery off: the step in flight finishes and all stays as it is, or what the run did is rolled back.
    """

    enabled: bool = True
    max_concurrent: Annotated[int, Field(ge=1, le=100)] = 5
    on_switch_off: Literal["finish", "rollback"] = "finish"


class WatchdogConfig(Model):
    """The keeper's watch over the daemon: after how much silence a frozen one is killed and started again (0s: never),
    and whether one that died is started again too. systemd does both by itself.
    """

    frozen_after: Seconds = 20.0
    restart_when_dead: bool = False


class ServiceLimitsConfig(Model):
    """For services that state none in `required_resources`: percent of one core, MiB. null: no limit."""

    cpu_percent: Annotated[float, Field(gt=0)] | None = None
    memory_mb: Annotated[int, Field(ge=1)] | None = None


class BoxLimitsConfig(Model):
    """Percent of all cores, of the memory, of each watched disk. null: not watched."""

    cpu_percent: Annotated[float, Field(gt=0, le=100)] | None = 95.0
    memory_percent: Annotated[float, Field(gt=0, le=100)] | None = 92.0
    disk_percent: Annotated[float, Field(gt=0, le=100)] | None = 90.0


class DaemonLimitsConfig(Model):
    """Of the daemon itself: percent of one core, MiB. null: not watched."""

    cpu_percent: Annotated[float, Field(gt=0)] | None = 80.0
    memory_mb: Annotated[int, Field(ge=1)] | None = 1024


class WatchConfig(Model):
    """What the daemon raises alerts about by itself: what is over its limit for `for`, until it has been at or below
    `clear` percent of the limit for `clear_for`. Disks: the state directory's, the services' working directories', and
    those of `paths`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    every: PositiveSeconds = 5.0
    for_: Seconds = Field(default=60.0, alias="for")
    clear_for: Seconds = 30.0
    clear: Annotated[float, Field(gt=0, le=100)] = 90.0
    service: ServiceLimitsConfig = ServiceLimitsConfig()
    box: BoxLimitsConfig = BoxLimitsConfig()
    daemon: DaemonLimitsConfig = DaemonLimitsConfig()
    paths: tuple[Path, ...] = ()


class JournalConfig(Model):
    """What the journal keeps, and the room it needs: alerts with all they said (`keep`, at most `max_alerts`), then
    only their ids (`keep_ids`, at most `max_ids`), so that one sent again is still known; a ballast file that is given
    up when the disk fills; the free space below which new alerts are refused (both at most a sixteenth of the disk).
    """

    keep: PositiveSeconds = 30 * 86400.0
    max_alerts: Annotated[int, Field(ge=1)] = 1_000_000
    keep_ids: PositiveSeconds = 365 * 86400.0
    max_ids: Annotated[int, Field(ge=1)] = 10_000_000
    ballast: Bytes = 16 * 1024 * 1024
    min_free: Bytes = 32 * 1024 * 1024


class AuditConfig(Model):
    """Where the audit chain's tip goes beside `audit.tip` in the state directory: a file (best on another disk), and
    the system's log.
    """

    tip: Path | None = None
    syslog: bool = False


class NothingMore(Model):
    """Takes no words of its own: `{}`."""


class SinkConfig(Model):
    """One way plain alerts are told: `log` (the daemon's own), `webhook` (a POST of JSON), `command` (JSON on its
    standard input), `syslog`.
    """

    log: NothingMore | None = None
    webhook: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+")] | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    syslog: NothingMore | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        kinds = [name for name in ("log", "webhook", "command", "syslog") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"say one of log, webhook, command and syslog; it has {' and '.join(kinds) or 'none'}")
        if self.headers and self.webhook is None:
            raise ValueError("headers need a webhook")
        return self


class AlertingConfig(Model):
    """Where every alert is told first, before anything is stored or decided, whatever is wrong with the daemon."""

    sinks: tuple[SinkConfig, ...] = (SinkConfig(log=NothingMore()),)


class LinkConfig(Model):
    """Where a link listens: `tcp://127.0.0.1:5570`; null switches it off."""

    address: str | None = None


class OperatorLinkConfig(LinkConfig):
    """Where HTTP is served (loopback only). `tokens`: files (0600) with the tokens of people who may approve over it,
    by their names; over the unix socket the system says who asks.
    """

    tokens: dict[Name, Path] = Field(default_factory=dict)


AlertType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
AlertService = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}$")]


class AlertmanagerConfig(Model):
    """What Alertmanager's alerts stand for: by `alertname` to our types and services, by `severity` to ours, and which
    labels name a service. What still fires `repeat_after` it was taken is taken anew. With a `token_file` (0600) only
    who sends that token is heard.
    """

    types: dict[str, AlertType] = Field(default_factory=dict)
    services: dict[str, AlertService] = Field(default_factory=dict)
    severities: dict[str, Literal["low", "medium", "high", "critical"]] = Field(default_factory=dict)
    service_labels: Annotated[tuple[str, ...], Field(min_length=1)] = ("service", "job", "container", "instance")
    repeat_after: PositiveSeconds = 3600.0
    token_file: Path | None = None


class EventsLinkConfig(Model):
    """Where events are published: `beside` (any free port of the guardian link's host) or an address like
    `tcp://127.0.0.1:5572`; null switches it off: followers ask over the guardian link then, once a second.
    """

    address: str | None = BESIDE


class LinksConfig(Model):
    """`curve`: clients of guardian and bridge are known by their keys (docs/security.md); false on loopback only."""

    curve: bool = True
    guardian: LinkConfig = LinkConfig(address="tcp://127.0.0.1:5570")
    bridge: LinkConfig = LinkConfig(address="tcp://127.0.0.1:5571")
    operator: OperatorLinkConfig = OperatorLinkConfig(address="127.0.0.1:8090")
    alertmanager: AlertmanagerConfig = AlertmanagerConfig()
    events: EventsLinkConfig = EventsLinkConfig()

    @property
    def events_address(self) -> str | None:
        """Where to bind. Without a guardian link nobody could ask for what was missed: then nowhere."""
        if self.guardian.address is None or self.events.address != BESIDE:
            return None if self.guardian.address is None else self.events.address
        return self.guardian.address.rpartition(":")[0] + ":0"


class FilesConfig(Model):
    """The folders whose configuration files runbooks may change; without any they may change none."""

    roots: tuple[Path, ...] = ()


class CleanupConfig(Model):
    """Where runbooks may put old files aside, and where they put them: best on another file system.

    What was put aside is thrown away after `keep`, or, oldest first, when it is more than `max_size`.
    """

    roots: tuple[Path, ...] = ()
    quarantine: Path | None = None
    """`quarantine` in the state directory, when nothing is said."""
    keep: PositiveSeconds = 7 * 86400.0
    max_size: Annotated[Bytes, Field(ge=1024 * 1024)] = 1024**3


class SecretName(Model):
    """The value of a secret in `secrets`."""

    secret: str


class DatabaseConfig(Model):
    """How runbooks look into the database that a service is: `postgresql://`, `redis://`, `rediss://` or `unix://`."""

    url: Annotated[str, StringConstraints(pattern=r"^(postgresql|postgres|redis|rediss|unix)://")] | SecretName


class RunbooksConfig(Model):
    """Folders with runbooks beside the shipped library, and what runbooks may touch."""

    directories: tuple[Path, ...] = ()
    files: FilesConfig = FilesConfig()
    cleanup: CleanupConfig = CleanupConfig()
    functions: tuple[str, ...] = ()
    """The entry points (group `selfheal.functions`) that runbooks may call."""
    databases: dict[Name, DatabaseConfig] = Field(default_factory=dict)
    """By the name of their service. The url's user should be allowed to see and end others' sessions."""


class RunbookSecretConfig(Model):
    """A secret that runbooks use by name: the file's text without its last line end, read at each use."""

    file: Path
    world_readable: bool = False
    """The file may be readable by every user; else that is refused."""


class LogChannel(Model):
    """The daemon's log."""


class ChannelConfig(Model):
    """One way to tell people something: a webhook (POST of JSON), a command (JSON on its standard input), the log."""

    webhook: str | SecretName | None = None
    headers: dict[str, str | SecretName] = Field(default_factory=dict)
    command: tuple[str, ...] | None = None
    log: LogChannel | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        said = [name for name in ("webhook", "command", "log") if getattr(self, name) is not None]
        if len(said) != 1:
            raise ValueError("say one of webhook, command and log")
        if self.headers and self.webhook is None:
            raise ValueError("headers need webhook")
        if self.command is not None and not self.command:
            raise ValueError("command is empty")
        if isinstance(self.webhook, str) and not re.match(r"https?://[^/]+", self.webhook):
            raise ValueError("webhook is no http(s) address")
        return self


class NotificationsConfig(Model):
    """Where notices of runbooks go, by name. `default` is the log, unless it is said here."""

    channels: dict[Name, ChannelConfig] = Field(default_factory=dict)


class IntensityConfig(Model):
    """More than `restarts` within `period` because of our own actors' faults: the group's supervisor gives up (OTP)."""

    restarts: Annotated[int, Field(ge=0)] = 5
    period: PositiveSeconds = 60.0


class GroupConfig(Model):
    """Services that are started in this order and share a strategy."""

    strategy: Literal["one_for_one", "rest_for_one", "one_for_all"] = "one_for_one"
    intensity: IntensityConfig = IntensityConfig()
    services: Annotated[tuple[str, ...], Field(min_length=1)]


class BackoffConfig(Model):
    """Delays between restarts: `first`, then `initial`, times `factor` each, at most `max`, jittered."""

    first: Seconds = 0.0
    initial: Seconds = 0.2
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    max: Seconds = 60.0
    jitter: bool = True
    reset_after: Seconds = 30.0

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.initial > self.max:
            raise ValueError(f"initial ({self.initial:g} s) is more than max ({self.max:g} s)")
        return self


class HealthCheckConfig(Model):
    """How to see that a service works: exactly one of `http`, `tcp`, `exec`."""

    http: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+")] | None = None
    tcp: Annotated[str, StringConstraints(pattern=r"^[^\s]+:(\d{1,5}|\d*\{(\d+\+)?replica\})$")] | None = None
    exec: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    interval: PositiveSeconds = 5.0
    timeout: PositiveSeconds = 2.0
    retries: Annotated[int, Field(ge=1, le=1000)] = 3
    successes: Annotated[int, Field(ge=1, le=1000)] = 1
    start_period: Seconds = 10.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in ("http", "tcp", "exec") if getattr(self, name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none of them"
            raise ValueError(f"needs exactly one of http, tcp and exec; it has {found}")
        return self


class ResourcesConfig(Model):
    """What the service is known to need."""

    memory_mb: Annotated[int, Field(ge=1)] | None = None
    cpu_percent: Annotated[float, Field(gt=0)] | None = None
    disk_mb: Annotated[int, Field(ge=1)] | None = None


class ComposeConfig(Model):
    """A container of a compose project, found by its labels."""

    project: str
    service: str


class LogConfig(Model):
    """The service's output file: rotated at `max_size`, with so many older files kept."""

    max_size: Annotated[Bytes, Field(ge=4096)] = 10 * 1024 * 1024
    backups: Annotated[int, Field(ge=0, le=100)] = 3


class SecretConfig(Model):
    """A variable whose value is read from a file at each start: the file's text without its last line end."""

    file: PossiblePath
    as_file: bool = False
    """The variable holds the file's path instead."""
    world_readable: bool = False
    """The file may be readable by every user; else that is refused."""


class ServiceConfig(Model):
    """One service: a process, or a container to create (`image`) or attach to (`container`, `compose`)."""

    description: str | None = None
    runtime: Literal["process", "docker"] = "process"
    command: tuple[str, ...] = ()
    working_dir: PossiblePath | None = None
    environment: dict[str, EnvironmentValue] = Field(default_factory=dict)
    restart_policy: Literal["never", "on_failure", "always", "unless_stopped"] = "always"
    backoff: BackoffConfig = BackoffConfig()
    max_restarts: Annotated[int, Field(ge=0)] = 5
    within: PositiveSeconds = 60.0
    on_exhausted: Literal["park", "escalate"] = "park"
    dependencies: tuple[str, ...] = ()
    health_check: HealthCheckConfig | None = None
    graceful_shutdown_timeout: Seconds = 10.0
    required_resources: ResourcesConfig | None = None
    image: str | None = None
    container: str | None = None
    compose: ComposeConfig | None = None
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    network: str | None = None
    on_shutdown: Literal["stop", "leave"] | None = None
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    log: LogConfig = LogConfig()
    limits: dict[LimitName, LimitValue] = Field(default_factory=dict)
    nice: Annotated[int, Field(ge=-20, le=19)] | None = None
    umask: Umask | None = None
    user: Account | None = None
    group: Account | None = None
    groups: tuple[Account, ...] | None = None
    environment_files: tuple[EnvironmentFileName, ...] = ()
    secrets: dict[VariableName, SecretConfig] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _platform_spelling(cls, raw: Any) -> Any:
        """The platform's own words: `restart_delay` is `backoff.initial`, `health_check_url` is `health_check.http`."""
        if not isinstance(raw, Mapping):
            return raw
        values = dict(raw)
        for old, (new, inner) in _PLATFORM_WORDS.items():
            if old not in values:
                continue
            given = values.get(new) or {}
            if not isinstance(given, Mapping):
                continue
            if inner in given:
                raise ValueError(f"{old} and {new}.{inner} say the same; keep one")
            values[new] = {**given, inner: values.pop(old)}
        return values

    @model_validator(mode="after")
    def _runs_something(self) -> Self:
        sources = [name for name in ("image", "container", "compose") if getattr(self, name) is not None]
        if self.runtime == "process":
            if not self.command:
                raise ValueError("a process needs a command, as a list: [python3, main.py]")
            if sources:
                raise ValueError(f"{sources[0]} needs runtime: docker")
        elif len(sources) != 1:
            found = " and ".join(sources) or "none of them"
            raise ValueError(f"runtime docker needs exactly one of image, container and compose; it has {found}")
        return self

    @model_validator(mode="after")
    def _has_what_it_asks_for(self) -> Self:
        twice = sorted(self.secrets.keys() & self.environment.keys())
        if twice:
            raise ValueError(f"{twice[0]} stands in environment and in secrets; keep one")
        if self.runtime == "docker":
            _check_container(self)
        return self


_OF_NEW_CONTAINERS: Final = ("limits", "user", "groups", "environment_files", "secrets")


def _check_container(service: ServiceConfig) -> None:
    """Raises ValueError for what an engine has no word for, and for what only its maker can give a container."""
    for key in ("nice", "umask"):
        if getattr(service, key) is not None:
            raise ValueError(f"{key} needs runtime: process; Docker has no such setting")
    if "as" in service.limits:
        raise ValueError("limits.as needs runtime: process; Docker has no such limit")
    if service.group is not None and service.user is None:
        raise ValueError("group needs a user beside it with runtime: docker")
    for name, secret in service.secrets.items():
        if secret.as_file:
            raise ValueError(f"secrets.{name}.as_file needs runtime: process; mount the file with `volumes`")
    network = service.network or ""
    if service.ports and (network == "host" or network.startswith("container:")):
        raise ValueError(f"ports cannot be given with network: {network}; the container has no ports of its own then")
    if service.image is None:
        given = next((key for key in _OF_NEW_CONTAINERS if getattr(service, key)), None)
        if given is not None:
            raise ValueError(f"{given} needs an image: this container is made by somebody else")


_PLATFORM_WORDS: Final = {
    "restart_delay": ("backoff", "initial"),
    "health_check_url": ("health_check", "http"),
    "health_check_interval": ("health_check", "interval"),
    "health_check_timeout": ("health_check", "timeout"),
    "health_check_retries": ("health_check", "retries"),
}


_ADDRESS: Final = re.compile(r"[^\s:]+:\d{1,5}|\[[0-9a-f:]+\]:\d{1,5}")


class BridgeConfig(Model):
    """An endpoint of the cross-language bridge; silent for longer than `silence` is a crash."""

    kind: Literal["tcp", "zeromq", "spool", "fifo", "powershell"]
    address: str | None = None
    directory: Path | None = None
    silence: PositiveSeconds = 3.0
    start_period: Seconds = 10.0
    """How long the first sign after a start of the daemon may take."""
    executor: tuple[str, ...] = ()
    """Kind powershell: the program and its arguments; exit code 0 shows that it works. Without: heartbeats do."""
    service: str | None = None
    """The service behind the endpoint: what a runbook restarts when nothing less helps."""

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        if self.kind == "tcp" and (self.address is None or not _ADDRESS.fullmatch(self.address)):
            raise ValueError("kind tcp needs an address: 127.0.0.1:8765")
        if self.kind in ("spool", "fifo") and self.directory is None:
            raise ValueError(f"kind {self.kind} needs a directory")
        if self.executor and self.kind != "powershell":
            raise ValueError("executor needs kind: powershell")
        return self


class SystemConfig(Model):
    """A whole file."""

    version: Literal[1] = 1
    state_dir: Path | None = None
    recovery: RecoveryConfig = RecoveryConfig()
    links: LinksConfig = LinksConfig()
    journal: JournalConfig = JournalConfig()
    audit: AuditConfig = AuditConfig()
    alerting: AlertingConfig = AlertingConfig()
    runbooks: RunbooksConfig = RunbooksConfig()
    secrets: dict[str, RunbookSecretConfig] = Field(default_factory=dict)
    notifications: NotificationsConfig = NotificationsConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    watch: WatchConfig = WatchConfig()
    exit_with: str | None = None
    groups: dict[Name, GroupConfig] = Field(default_factory=dict)
    services: dict[Name, ServiceConfig] = Field(default_factory=dict)
    bridges: dict[Name, BridgeConfig] = Field(default_factory=dict)
