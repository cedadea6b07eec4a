"""One root per state directory, whoever comes at the same moment and whatever becomes of the lock file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisors.single_root import RootLock, StateInUse

RACER = """
import sys
from pathlib import Path
from supervisors.single_root import RootLock, StateInUse
state, is_remover = Path(sys.argv[1]), sys.argv[2] == "remover"
print("here", flush=True)
sys.stdin.readline()
try:
    if is_remover:
        (state / "lock").unlink(missing_ok=True)
    with RootLock(state):
        print("won", flush=True)
        sys.stdin.readline()
except StateInUse as lost:
    print("lost", lost.pid, flush=True)
"""


def race(state: Path, roles: list[str]) -> list[list[str]]:
    """Let all of them go at the same moment; what each said. The winner keeps what it has until all have spoken."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(state), role], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for role in roles
    ]
    said = []
    try:
        for one in racers:
            assert one.stdout is not None
            assert one.stdout.readline() == "here\n"
        for one in racers:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        for one in racers:
            assert one.stdout is not None
            said.append([*one.stdout.readline().split(), str(one.pid)])
    finally:
        for one in racers:
            one.communicate("end\n")
    return said


@pytest.mark.parametrize("roles", [["daemon"] * 8, ["daemon", "remover"] * 4])
def test_trap_12_of_eight_at_once_exactly_one_wins(tmp_path: Path, roles: list[str]) -> None:
    said = race(tmp_path, roles)
    winners = [words[-1] for words in said if words[0] == "won"]
    assert len(winners) == 1, said
    known = {words[1] for words in said if words[0] == "lost"}
    assert known <= {*winners, *(words[-1] for words in said), "unknown"}
    RootLock(tmp_path).release()  # all of it died with its holder


def test_the_same_directory_by_another_path_is_the_same(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "link").symlink_to(state)
    with RootLock(state):
        (state / "lock").unlink()
        with pytest.raises(StateInUse, match=f"pid {os.getpid()};"):
            RootLock(tmp_path / "link")


def test_the_owner_is_the_kernels_word_not_the_files(tmp_path: Path) -> None:
    with RootLock(tmp_path):
        (tmp_path / "lock").write_text("1\n")
        with pytest.raises(StateInUse, match=f"pid {os.getpid()};"):
            RootLock(tmp_path)


def test_a_lock_file_that_was_removed_or_replaced_is_put_back(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with RootLock(tmp_path) as lock:
        file.unlink()
        assert lock.look() is None
        assert file.read_text() == f"{os.getpid()}\n"
        file.unlink()
        file.write_text("1\n")
        assert lock.look() is None
        assert file.read_text() == f"{os.getpid()}\n"


def test_a_released_directory_is_free(tmp_path: Path) -> None:
    RootLock(tmp_path).release()
    with RootLock(tmp_path) as lock:
        assert lock.trouble is None
