"""Hundreds of connections to the operator's port that say nothing: the daemon goes on supervising."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.tables import TABLE
from tests.system.running import daemon, write_config

pytestmark = pytest.mark.xdist_group("hostile")
LIMIT = 220
COUNT = 400


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit (util-linux)")
def test_idle_connections_take_no_file_that_supervising_needs(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    runs = tmp_path / "runs"
    service = {"command": ["sh", "-c", f"echo $$$$ >> {runs}; exec sleep 1000"]}
    config, state = write_config(tmp_path, {"a": service}), tmp_path / "state"
    with (
        daemon(config, state, before=["prlimit", f"--nofile={LIMIT}:{LIMIT}"]) as running,
        contextlib.ExitStack() as opened,
    ):
        running.until_ready("a")
        host, port = (state / "operator.address").read_text().strip().removeprefix("http://").rsplit(":", 1)
        files, lines = psutil.Process(running.process.pid), len(running.log.read_text().splitlines())
        most = before = files.num_fds()
        for _ in range(COUNT):
            with contextlib.suppress(OSError):
                opened.enter_context(socket.create_connection((host, int(port)), timeout=1))
            most = max(most, files.num_fds())
        os.kill(int(runs.read_text().split()[-1]), signal.SIGKILL)
        eventually(lambda: len(runs.read_text().split()) == 2, within_s=20)
        running.until_ready("a")
        eventually(lambda: "connections were cut off" in str(running.get("/v1/tree")))
        said = len(running.log.read_text().splitlines()) - lines
        record_property(
            TABLE, f"{COUNT} idle connections: {before} of {LIMIT} files before, at most {most}, {said} lines of log"
        )
        assert most < LIMIT
        assert said < 30
        assert "gave_up" not in str(running.get("/v1/tree"))
