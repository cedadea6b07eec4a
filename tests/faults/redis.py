"""A Redis server of its own: an own folder, port, few clients. Alone, or as a service of the daemon."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.support.eventually import eventually
from tests.system.running import free_port

MOST: Final = 20
PASSWORD: Final = "canary-of-redis"
SETTINGS: Final = f"""
bind 127.0.0.1
maxclients {MOST}
requirepass {PASSWORD}
save ""
appendonly yes
appendfsync always
busy-reply-threshold 100
enable-debug-command local
daemonize no
"""


def program() -> str:
    """Skips the test where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no Redis server here; on Debian: apt-get install redis-server")
    return found


@dataclass
class Redis:
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def program(self) -> Path:
        """A link of our own to the server, which tests can break."""
        return self.folder / "redis-server"

    @property
    def command(self) -> list[str]:
        return [str(self.program), str(self.folder / "redis.conf"), "--port", str(self.port), "--dir", str(self.folder)]

    def url(self, password: str = PASSWORD, number: int = 0) -> str:
        return f"redis://:{password}@127.0.0.1:{self.port}/{number}"

    def service(self, **more: Any) -> dict[str, Any]:
        """As the daemon's configuration has it. Nobody but a runbook brings it back."""
        return {
            "command": self.command,
            "working_dir": str(self.folder),
            "restart_policy": "never",
            "health_check": {"tcp": f"127.0.0.1:{self.port}", "interval": "200ms", "timeout": "1s"},
            "graceful_shutdown_timeout": "1s",
            **more,
        }

    def connect(self, name: str = "test", **more: Any) -> redis.Redis:
        """One connection, made now."""
        client = redis.Redis.from_url(
            self.url(), single_connection_client=True, client_name=name, protocol=2, decode_responses=True, **more
        )
        client.ping()
        return client

    def until_ready(self, within_s: float = 30) -> None:
        def look() -> bool:
            try:
                self.connect().close()
            except redis.RedisError as error:
                raise AssertionError(str(error)) from error
            return True

        eventually(look, within_s=within_s, every_s=0.05)

    def break_program(self) -> None:
        """From here on the server cannot be started."""
        self.program.unlink()
        self.program.symlink_to("/bin/false")


@contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    """A server in a folder of its own below ``folder``, not started."""
    place = folder / "redis"
    place.mkdir()
    made = Redis(place)
    made.program.symlink_to(program())
    (place / "redis.conf").write_text(SETTINGS, encoding="utf-8")
    yield made


@contextmanager
def running_redis(folder: Path) -> Iterator[Redis]:
    with redis_server(folder) as made, (made.folder / "log").open("wb") as log:
        server = subprocess.Popen(made.command, stdout=log, stderr=log)
        try:
            made.until_ready()
            yield made
        finally:
            server.send_signal(signal.SIGCONT)
            server.kill()
            server.wait(30)
