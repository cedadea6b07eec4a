"""The benchmark of the two headline rows, for us alone: the same measurement that is published beside the peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(150)
def test_one_copy_after_a_kill_and_none_alive_after_a_stop() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/never_twice_peers.py", "selfheal", "--settle-s", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].split("|")]
    assert cells == ["selfheal", "1", "0/0/0"], done.stdout


def test_a_peer_that_is_not_installed_is_said_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/never_twice_peers.py", "s6"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].count("not installed: s6-svscan, s6-supervise") == 2
