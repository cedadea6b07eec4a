"""Fail points: a real SIGKILL of the very process at the armed place, once, with a proof; else nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.failpoints import DAEMON_VARIABLE, FAIL_POINTS, NOTES_VARIABLE, register

PROGRAM = """
from actors.failpoints import DAEMON_VARIABLE, arm, reached
arm(DAEMON_VARIABLE)
for name in ("one", "two", "one"):
    print(name, flush=True)
    reached(name)
print("end", flush=True)
"""


def passing(wanted: str | None, notes: Path) -> tuple[int, list[str]]:
    environ = dict(os.environ) | {NOTES_VARIABLE: str(notes)}
    environ.pop(DAEMON_VARIABLE, None)
    if wanted is not None:
        environ[DAEMON_VARIABLE] = wanted
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, env=environ, timeout=50
    )
    return done.returncode, done.stdout.split()


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [("two", ["one", "two"]), ("one", ["one"]), ("one:2", ["one", "two", "one"])],
)
def test_the_process_is_killed_at_the_place_and_only_one_dies_of_it(
    wanted: str, printed: list[str], tmp_path: Path
) -> None:
    assert passing(wanted, tmp_path) == (-signal.SIGKILL, printed)
    assert (tmp_path / f"died.{wanted.partition(':')[0]}").exists()
    assert passing(wanted, tmp_path) == (0, ["one", "two", "one", "end"])


def test_nothing_happens_unarmed(tmp_path: Path) -> None:
    assert passing(None, tmp_path)[0] == 0
    assert not list(tmp_path.iterdir())


def test_every_place_passed_is_noted(tmp_path: Path) -> None:
    assert passing("*", tmp_path)[0] == 0
    assert (tmp_path / "passed").read_text().split() == ["one", "two", "one"]


def test_a_name_stands_for_one_place() -> None:
    name = register("test.of.a.name", "nothing")
    try:
        with pytest.raises(ValueError, match=r"test\.of\.a\.name"):
            register(name, "nothing else")
    finally:
        del FAIL_POINTS[name]
