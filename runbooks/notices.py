"""Notices by webhook, by a command, or into the daemon's log. Runs on the I/O pool; every wait has a limit."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runbooks.commands import LocalCommands, Order
from runbooks.ports import Http, Notice, PortError, Secrets

KEY_HEADER: Final = "Idempotency-Key"
KEEP_S: Final = 30 * 86400.0
"""How long it is remembered that a notice was delivered: longer than any run lasts."""
_SWEEP_EVERY: Final = 100


@dataclass(frozen=True, slots=True)
class Webhook:
    """``url`` and the headers' values: a text, or ``{"secret": NAME}``."""

    url: str | Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Program:
    """Gets the notice as JSON on its standard input and its key as ``SELFHEAL_NOTICE_KEY``."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Log:
    pass


Channel = Webhook | Program | Log


@dataclass(frozen=True)
class LocalNotices:
    """Fulfils ``ports.Notices``. What was delivered is recorded in ``folder``, one small file each.

    Args:
        log: writes a line into the daemon's log (severity, message, key).
    """

    channels: Mapping[str, Channel]
    folder: Path
    http: Http
    commands: LocalCommands
    secrets: Secrets
    log: Callable[[str, str, str], None]

    def send(self, channel: str, notice: Notice, timeout_s: float) -> str:
        to = self._channel(channel)
        if self.was_sent(channel, notice.key):
            return f"was delivered to {channel} already"
        said = {"key": notice.key, "text": notice.message, "severity": notice.severity, "execution": notice.execution}
        match to:
            case Webhook():
                self._post(channel, to, said, timeout_s)
            case Program():
                self._run(channel, to, said, timeout_s)
            case Log():
                self.log(notice.severity, notice.message, notice.key)
        self._record(channel, notice.key)
        return f"delivered to {channel}"

    def was_sent(self, channel: str, key: str) -> bool:
        self._channel(channel)
        return self._file(channel, key).exists()

    def _channel(self, name: str) -> Channel:
        found = self.channels.get(name)
        if found is None:
            known = ", ".join(sorted(self.channels))
            raise PortError(f"there is no channel {name!r} in notifications.channels; there are {known}")
        return found

    def _post(self, channel: str, to: Webhook, said: Mapping[str, Any], timeout_s: float) -> None:
        headers = {name: self._text(value) for name, value in to.headers.items()}
        key = {KEY_HEADER: str(said["key"])}
        try:
            answer = self.http.request("POST", self._text(to.url), timeout_s, {**headers, **key}, dict(said))
        except PortError as error:
            raise PortError(f"channel {channel}: {_without(str(error), self._text(to.url))}") from None
        if not 200 <= answer.status < 300:
            raise PortError(f"channel {channel}: HTTP {answer.status}: the notice was not taken")

    def _run(self, channel: str, to: Program, said: Mapping[str, Any], timeout_s: float) -> None:
        token = f"notice-{said['key']}"
        environment = {"SELFHEAL_NOTICE_KEY": str(said["key"])}
        done = self.commands.carry_out(
            Order(to.argv, timeout_s, token, environment=environment, given=json.dumps(dict(said)))
        )
        if done.code != 0:
            ended = "killed: took too long" if done.code is None else f"exit {done.code}"
            raise PortError(f"channel {channel}: {to.argv[0]}: {ended} {done.error}".rstrip())

    def _text(self, given: str | Mapping[str, str]) -> str:
        return given if isinstance(given, str) else self.secrets.value(given["secret"])

    # -- what was delivered -------------------------------------------------------------------------------------------

    def _file(self, channel: str, key: str) -> Path:
        return self.folder / hashlib.sha256(f"{channel}\n{key}".encode()).hexdigest()

    def _record(self, channel: str, key: str) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._file(channel, key), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{channel} {key}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            self._sweep()
        except OSError as error:
            text = error.strerror or str(error)
            raise PortError(f"was delivered to {channel}, which cannot be recorded in {self.folder}: {text}") from error

    def _sweep(self) -> None:
        """Forget what is old, once in a while."""
        files = list(self.folder.iterdir())
        if len(files) % _SWEEP_EVERY:
            return
        before_s = time.time() - KEEP_S
        for file in files:
            with suppress(OSError):
                if file.stat().st_mtime < before_s:
                    file.unlink()


def _without(text: str, url: str) -> str:
    """A webhook's address is often its only protection."""
    return text.replace(url, "its webhook")
