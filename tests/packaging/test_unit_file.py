"""The systemd unit: what it says is understood by systemd, and fits the daemon."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.models import WatchdogConfig
from config.units import seconds

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "selfheal.service"
PROGRAM = "/opt/selfheal/bin/selfheal"
ANALYZE = shutil.which("systemd-analyze")


def value(key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """Unknown keys and values are only warned of, so silence is asked for."""
    assert ANALYZE is not None
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, sys.executable), encoding="utf-8")
    done = subprocess.run([ANALYZE, "verify", str(copy)], check=False, capture_output=True, text=True)
    about_it = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, about_it) == (0, [])


def test_what_it_starts_is_a_command_line_of_ours() -> None:
    program, command, *words = value("ExecStart").split()
    assert (program, command) == (PROGRAM, "run")
    help_ = subprocess.run(
        [sys.executable, "-m", "supervisors.cli", "run", "--help"], check=True, capture_output=True, text=True
    )
    options = [word for word in words if word.startswith("--")]
    assert options
    assert [option for option in options if option not in help_.stdout] == []


def test_the_daemon_tells_and_its_services_outlive_it() -> None:
    assert value("Type") == "notify"
    assert value("KillMode") == "process"
    assert value("Restart") == "always"
    assert value("Delegate") == "yes"


def test_the_keepers_watch_bites_before_systemds() -> None:
    assert seconds(value("WatchdogSec")) > WatchdogConfig().frozen_after
