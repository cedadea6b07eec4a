"""Which of several unrecorded processes is the service's main process: pure; and who shows nothing at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from actors.runtimes.procfs import ProcessLine
from actors.runtimes.recognising import Stranger, main_among, unrecorded
from tests.support.eventually import eventually

COMMAND = ("sleep", "1000")


def stranger(pid: int, *, parent: int = 1, session: int = 0, run: str = "t", command: tuple[str, ...] = ()) -> Stranger:
    line = ProcessLine(pid, parent, pid, session or pid, pid, is_dead=False, cpu_s=0.0, resident_bytes=0)
    return Stranger(line, run, command)


def test_the_session_leader_that_is_nobodys_child_is_it() -> None:
    main = stranger(10)
    worker, daemonised = stranger(11, parent=10, session=10), stranger(12, parent=10)
    assert main_among([daemonised, worker, main], COMMAND) is main


def test_among_several_leaders_the_command_decides() -> None:
    helper, main = stranger(10, command=("helper",)), stranger(20, command=COMMAND)
    assert main_among([helper, main], COMMAND) is main


def test_where_nobody_can_tell_there_is_none() -> None:
    assert main_among([], COMMAND) is None
    assert main_among([stranger(11, session=10)], COMMAND) is None
    assert main_among([stranger(10, command=COMMAND), stranger(20, run="u", command=COMMAND)], COMMAND) is None


def test_only_processes_of_this_service_and_this_directory_are_found(tmp_path: Path) -> None:
    link = tmp_path / "link"
    (tmp_path / "state").mkdir()
    link.symlink_to(tmp_path / "state")

    def started(state: Path, service: str, token: str) -> subprocess.Popen[bytes]:
        own = {"SELFHEAL_STATE": str(state), "SELFHEAL_SERVICE": service, "SELFHEAL_TOKEN": token}
        return subprocess.Popen(COMMAND, env={"PATH": os.environ["PATH"], **own})

    ours = started(link, "a", "unknown")
    all_of_them = [
        ours,
        started(tmp_path / "state", "a", "known"),
        started(tmp_path / "state", "b", "unknown"),
        started(tmp_path, "a", "unknown"),
    ]
    try:
        found = eventually(lambda: unrecorded(tmp_path / "state", "a", {"known"}))
        assert [one.line.pid for one in found] == [ours.pid]
    finally:
        for one in all_of_them:
            one.kill()
            one.wait()
