"""The shipped platform file as it stands: Redis and the twelve services as containers of a compose project."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from docker import DockerClient

from config import DEMO, load_config
from tests.support.docker_engine import IMAGE
from tests.support.eventually import eventually
from tests.system.running import daemon

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]
EAFIX = DEMO.parent / "eafix.yaml"


def serve(client: DockerClient, project: str, service: str, address: str) -> None:
    """A stand-in for one container of the project: answers `/healthz` on its address."""
    script = f"""echo '{{"status": "healthy"}}' > /healthz; exec httpd -f -p {address} -h /"""
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    client.containers.run(
        IMAGE,
        ["sh", "-c", script],
        name=f"{project}-{service}",
        labels=labels,
        network_mode="host",
        init=True,
        detach=True,
    )


@pytest.mark.xdist_group("shipped ports")
def test_the_platform_is_kept_up(
    engine: DockerClient,
    tag: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EAFIX_PROJECT", tag)
    config = load_config(EAFIX, {"EAFIX_PROJECT": tag})
    for name, service in config.services.items():
        check = service.health_check
        assert check is not None
        serve(engine, tag, name, check.tcp or urlsplit(check.http or "").netloc)
    with daemon(EAFIX, tmp_path / "state") as selfheal:
        before = selfheal.until_ready(within_s=60)
        assert len(before) == 13
        engine.containers.get(f"{tag}-data-ingestor").stop(timeout=1)
        stopped_at = time.monotonic()
        eventually(lambda: engine.containers.get(f"{tag}-data-ingestor").status == "running", within_s=30)
        took_s = time.monotonic() - stopped_at
        eventually(lambda: selfheal.services()["execution-engine"]["restarts"] == 1, within_s=60)
        after = selfheal.until_ready(within_s=60)
        with capsys.disabled():
            print(f"\ndocker stop of data-ingestor: running again {took_s:.2f} s later", flush=True)
        pipeline = set(config.groups["pipeline"].services)
        for name, one in after.items():
            assert one["restarts"] == (1 if name in pipeline else 0), name
        assert selfheal.stop(within_s=60) == 0
    running = engine.containers.list(filters={"label": f"com.docker.compose.project={tag}"})
    assert len(running) == 13, "attached containers are left running"
