"""The unit file under a real systemd, booted in a container: told, killed, frozen and stopped."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from docker import DockerClient
from docker.models.containers import Container

from tests.support.docker_engine import IMAGE, engine_client, require_engine
from tests.support.eventually import eventually
from tests.support.host_python import ROOT, environment, read_only_mounts
from tests.system.running import LINKS, SLEEPER

LONG_S = 60.0
SYSTEMD = Path("/lib/systemd/systemd")
UNIT = ROOT / "deploy" / "systemd" / "selfheal.service"
EXEC = "/opt/selfheal/bin/selfheal run --config /etc/selfheal/selfheal.yaml"
TARGET = "[Unit]\nDescription=What this test needs\nWants=selfheal.service\n"
pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="no systemd to boot"),
]


def unit() -> str:
    """The shipped one, with this Python in it, and a watchdog that this test can wait for."""
    text = UNIT.read_text(encoding="utf-8")
    assert EXEC in text
    text = text.replace(EXEC, f"{sys.executable} -m supervisors.cli run --config /etc/selfheal.yaml")
    for key, value in (("WatchdogSec", "10s"), ("TimeoutAbortSec", "1s")):
        text, found = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert found == 1, key
    words = " ".join(f"{name}={value}" for name, value in environment().items())
    return text.replace("[Service]", f"[Service]\nEnvironment={words}")


def etc(folder: Path) -> Path:
    units = folder / "systemd" / "system"
    units.mkdir(parents=True)
    (units / "selfheal.service").write_text(unit(), encoding="utf-8")
    (units / "default.target").write_text(TARGET, encoding="utf-8")
    (folder / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    (folder / "group").write_text("root:x:0:\n", encoding="utf-8")
    (folder / "machine-id").touch()
    config = {
        "version": 1,
        "links": LINKS,
        "services": {"a": SLEEPER, "b": SLEEPER},
        "watchdog": {"frozen_after": "0s"},
    }
    (folder / "selfheal.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


@pytest.fixture
def booted(tmp_path: Path) -> Iterator[Container]:
    require_engine()
    client: DockerClient = engine_client()
    container = client.containers.run(
        IMAGE,
        [str(SYSTEMD), "--show-status=0"],
        name=f"selfheal-systemd-{uuid.uuid4().hex[:8]}",
        environment={"container": "docker"},
        volumes={**read_only_mounts(), str(etc(tmp_path / "etc")): {"bind": "/etc", "mode": "rw"}},
        tmpfs=dict.fromkeys(("/run", "/run/lock", "/tmp", "/var", "/sys/fs/cgroup"), ""),
        cap_add=["SYS_ADMIN"],
        security_opt=["seccomp=unconfined"],
        cgroupns="private",
        network_mode="none",
        detach=True,
    )
    try:
        yield container
    finally:
        container.remove(force=True)
        client.close()


def systemctl(container: Container, *words: str) -> str:
    output = container.exec_run(["/usr/bin/systemctl", *words]).output
    assert isinstance(output, bytes)
    return output.decode()


def shown(container: Container) -> dict[str, str]:
    lines = systemctl(container, "show", "selfheal", "-p", "ActiveState,StatusText,NRestarts,Result").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def sleepers(container: Container) -> set[str]:
    """Their pids on this machine."""
    listed = container.top(ps_args="-o pid,args")
    return {pid for pid, args in listed["Processes"] if args.startswith("sleep ")}


def until_up(container: Container, restarts: int) -> None:
    wanted = {"ActiveState": "active", "StatusText": "2 of 2 ready", "NRestarts": str(restarts), "Result": "success"}

    def look() -> bool:
        now = shown(container)
        assert now == wanted, now
        return True

    eventually(look, within_s=LONG_S, every_s=0.2)


def test_the_unit_file_under_a_real_systemd(booted: Container) -> None:
    until_up(booted, restarts=0)
    before = sleepers(booted)
    assert len(before) == 2
    systemctl(booted, "kill", "--kill-who=main", "--signal=KILL", "selfheal")
    until_up(booted, restarts=1)
    assert sleepers(booted) == before, "adopted, none twice"
    systemctl(booted, "kill", "--kill-who=main", "--signal=STOP", "selfheal")
    until_up(booted, restarts=2)
    assert sleepers(booted) == before, "the watchdog took the daemon alone"
    systemctl(booted, "stop", "selfheal")
    now = shown(booted)
    assert (now["ActiveState"], now["Result"]) == ("inactive", "success")
    assert sleepers(booted) == set()
