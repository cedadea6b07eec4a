"""The ways plain alerts are told: the daemon's log, a webhook, a command, the system's log. Each on its own thread.

None of them writes to a disk: what they are for is the night in which it is full.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import syslog
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from actors.plain_alerts import CRITICAL, Sink, SinkTrouble, Told
from config.models import SinkConfig
from runbooks.network import LocalHttp
from runbooks.ports import PortError

WEBHOOK_S: Final = 5.0
COMMAND_S: Final = 10.0
_PRIORITIES: Final = {"critical": syslog.LOG_CRIT, "high": syslog.LOG_ERR, "medium": syslog.LOG_WARNING}


@dataclass(frozen=True)
class LogSink:
    """One line each in the daemon's own log."""

    name: str = "log"

    def tell(self, told: Told) -> None:
        if told["kind"] == "alerts":
            structlog.get_logger().warning("plain alerts", more=told["more"], types=told["types"])
            return
        facts = {key: value for key, value in told.items() if key not in ("kind", "at")}
        log = structlog.get_logger()
        (log.critical if told["severity"] == CRITICAL else log.warning)("plain alert", **facts)


@dataclass(frozen=True)
class WebhookSink:
    """A POST of JSON. Its address may be a secret: it is never said."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def tell(self, told: Told) -> None:
        try:
            answer = LocalHttp().request("POST", self.url, WEBHOOK_S, self.headers, dict(told))
        except PortError as error:
            raise SinkTrouble(f"{self.name}: {str(error).replace(self.url, 'its address')}") from None
        if not 200 <= answer.status < 300:
            raise SinkTrouble(f"{self.name}: HTTP {answer.status}")


@dataclass(frozen=True)
class CommandSink:
    """A program that gets the alert as one line of JSON on its standard input."""

    name: str
    argv: Sequence[str]

    def tell(self, told: Told) -> None:
        try:
            child = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SinkTrouble(f"{self.name}: {self.argv[0]}: {error}") from None
        try:
            child.communicate(json.dumps(dict(told)).encode() + b"\n", COMMAND_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise SinkTrouble(f"{self.name}: {self.argv[0]} took longer than {COMMAND_S:g} s") from None
        if child.returncode != 0:
            raise SinkTrouble(f"{self.name}: {self.argv[0]} ended with {child.returncode}")


@dataclass(frozen=True)
class SyslogSink:
    name: str

    def tell(self, told: Told) -> None:
        priority = _PRIORITIES.get(str(told.get("severity")), syslog.LOG_NOTICE)
        syslog.syslog(syslog.LOG_DAEMON | priority, f"selfheal {json.dumps(dict(told))}")


def sinks_of(configs: Sequence[SinkConfig]) -> tuple[Sink, ...]:
    """One a line of the configuration; two of a kind are numbered."""
    return tuple(_sink(number, one) for number, one in enumerate(configs, 1))


def _sink(number: int, config: SinkConfig) -> Sink:
    if config.webhook is not None:
        return WebhookSink(f"webhook-{number}", config.webhook, dict(config.headers))
    if config.command is not None:
        return CommandSink(f"command-{number}", config.command)
    return SyslogSink(f"syslog-{number}") if config.syslog is not None else LogSink(f"log-{number}")
