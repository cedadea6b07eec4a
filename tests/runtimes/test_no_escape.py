"""Nothing of a run is alive after its stop, whatever it did to hide: by control group, and without any."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.runtimes.cgroups import OFF_VARIABLE, _bases, open_cgroups
from actors.runtimes.process import ProcessHandle, ProcessRuntime
from actors.runtimes.procfs import TokenScan, identity_of, read_line
from tests.runtimes.worlds import LONG_S, RUNS, Exits, KeptPlace, ProcessPlace
from tests.support.escapees import ESCAPES, escape, escape_without_trace, lives_lived, script, storm
from tests.support.eventually import eventually, holds_for


def lives(pid: int) -> bool:
    line = read_line(pid)
    return line is not None and not line.is_dead


def pid_in(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), within_s=LONG_S)
    return int(path.read_text())


def is_placed(runtime: ProcessRuntime, handle: ProcessHandle) -> bool:
    """Its group exists and is proven: from now on it can be killed whole."""
    cgroups = runtime.sweeper.cgroups
    assert cgroups is not None
    group = cgroups._group(handle.service, handle.token)
    return group.exists() and b"user.selfheal.proven" in [os.fsencode(name) for name in os.listxattr(group)]


def has_group(pid: int) -> bool:
    return "/selfheal-" in Path(f"/proc/{pid}/cgroup").read_text()


def needs_cgroups(folder: Path) -> None:
    cgroups = open_cgroups(folder)
    if cgroups is None:
        assert not list(_bases()), "a v2 hierarchy is mounted but was not used"
        pytest.skip("no cgroup v2 hierarchy is mounted")
    cgroups.close()


@pytest.fixture(params=["local", "kept"])
def swept_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessPlace]:
    place = ProcessPlace(tmp_path) if request.param == "local" else KeptPlace(tmp_path)
    yield place
    place.close()


@pytest.fixture(params=["sweep", "cgroup"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    kept = KeptPlace(tmp_path)
    if request.param == "cgroup":
        needs_cgroups(tmp_path)
        kept.has_cgroups = True
    yield kept
    kept.close()


@pytest.fixture
def grouped(tmp_path: Path) -> Iterator[KeptPlace]:
    needs_cgroups(tmp_path)
    kept = KeptPlace(tmp_path)
    kept.has_cgroups = True
    yield kept
    kept.close()


# -- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ESCAPES)
def test_whoever_hides_is_gone_after_the_stop(place: KeptPlace, tmp_path: Path, how: str) -> None:
    runtime, pid_file = place.daemon(), tmp_path / "pid"
    handle = runtime.launch(place.spec("a", escape(how, pid_file)), 1, Exits())
    hidden = pid_in(pid_file)
    place.wait_ready(handle)
    runtime.stop(handle, LONG_S)
    assert not lives(handle.pid)
    assert not lives(hidden)


@pytest.mark.parametrize("how", ["setsid", "double-fork", "clean-environment"])
def test_whoever_hides_is_gone_before_the_run_after_a_crash(place: KeptPlace, tmp_path: Path, how: str) -> None:
    runtime, pid_file, on_exit = place.daemon(), tmp_path / "pid", Exits()
    handle = runtime.launch(place.spec("a", escape(how, pid_file)), 1, on_exit)
    hidden = pid_in(pid_file)
    place.wait_ready(handle)
    place.crash(handle)
    on_exit.one()
    assert lives(hidden), "a crash alone does not reach it"
    runtime.launch(place.spec("a", RUNS), 2, Exits())
    assert not lives(hidden)


def test_a_fork_storm_ends_within_a_second_of_the_grace(place: KeptPlace, tmp_path: Path) -> None:
    runtime, grace_s, lives_file = place.daemon(), 0.5, tmp_path / "lives"
    handle = runtime.launch(place.spec("a", storm(lives_file, 4)), 1, Exits())
    place.wait_ready(handle)
    if place.has_cgroups:
        eventually(lambda: is_placed(runtime, handle), within_s=LONG_S)
    eventually(lambda: min(lives_lived(lives_file)) > 20, within_s=LONG_S, what="the storm")
    begun_s = time.monotonic()
    assert runtime.stop(handle, grace_s).signal == signal.SIGKILL
    took_s = time.monotonic() - begun_s
    last = lives_lived(lives_file)
    holds_for(lambda: lives_lived(lives_file) == last, 0.5)
    assert TokenScan().members(handle.token)[0] == ()
    assert grace_s < took_s < grace_s + 1.0


# -- by control group -------------------------------------------------------------------------------------------------


def test_a_run_is_in_a_group_of_its_own_and_the_group_goes_with_it(grouped: KeptPlace) -> None:
    runtime = grouped.daemon()
    handles = [runtime.launch(grouped.spec(name, RUNS), 1, Exits()) for name in "ab"]
    eventually(lambda: all(is_placed(runtime, handle) for handle in handles), within_s=LONG_S)
    groups = [Path(f"/proc/{handle.pid}/cgroup").read_text() for handle in handles]
    assert groups[0] != groups[1]
    assert not any(handle.token in groups[0] for handle in handles), "the token is nobody else's business"
    assert runtime.sweeper.cgroups is not None
    folder = runtime.sweeper.cgroups.folder
    runtime.stop(handles[0], LONG_S)
    assert lives(handles[1].pid)
    eventually(lambda: [one.name[:2] for one in folder.iterdir() if one.is_dir()] == ["b."], within_s=LONG_S)
    runtime.stop(handles[1], LONG_S)
    runtime.close()
    assert not folder.exists()


def test_what_was_forked_before_the_move_is_moved_too(grouped: KeptPlace, tmp_path: Path) -> None:
    """The main process is moved after its spawn: the groups of a run are two."""
    runtime, pid_file = grouped.daemon(), tmp_path / "pid"
    cgroups, runtime.sweeper.cgroups = runtime.sweeper.cgroups, None
    handle = runtime.launch(grouped.spec("a", escape("setsid", pid_file)), 1, Exits())
    hidden = pid_in(pid_file)
    runtime.sweeper.cgroups = cgroups
    runtime.sweeper.place(handle.service, handle.token, handle.identity)
    eventually(lambda: has_group(hidden) and is_placed(runtime, handle), within_s=LONG_S)
    assert cgroups is not None
    assert eventually(lambda: cgroups.kill("a", handle.token, LONG_S), within_s=LONG_S)
    assert not lives(handle.pid)
    assert not lives(hidden)


def test_the_next_daemon_knows_the_group(grouped: KeptPlace, tmp_path: Path) -> None:
    """Nothing but the group shows whose this is: it left its session, its environment, its parent and all its files."""
    first, pid_file, go = grouped.daemon(), tmp_path / "pid", tmp_path / "go"
    first.launch(grouped.spec("b", RUNS), 1, Exits())
    handle = first.launch(grouped.spec("a", escape_without_trace(pid_file, go)), 1, Exits())
    eventually(lambda: is_placed(first, handle), within_s=LONG_S)
    go.touch()
    hidden = pid_in(pid_file)
    second = grouped.daemon()
    adopted = second.adopt(grouped.spec("a", RUNS), Exits())
    assert adopted is not None
    assert TokenScan().members(adopted.token)[0] == (adopted.identity,), "nobody finds it without its group"
    second.stop(adopted, LONG_S)
    assert not lives(hidden)
    assert second.clear("b", LONG_S)


def test_what_a_killed_daemon_left_behind_is_removed_and_what_lives_is_kept(grouped: KeptPlace) -> None:
    first = grouped.daemon()
    handle = first.launch(grouped.spec("a", RUNS), 1, Exits())
    eventually(lambda: is_placed(first, handle), within_s=LONG_S)
    assert first.sweeper.cgroups is not None
    folder = first.sweeper.cgroups.folder
    (folder / "empty.0123").mkdir()
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    (folder / "left.4567").mkdir()
    (folder / "left.4567" / "cgroup.procs").write_text(str(left.pid))
    os.setxattr(folder / "left.4567", "user.selfheal.proven", b"1")
    second = grouped.daemon()
    assert left.wait(LONG_S) == -signal.SIGKILL
    eventually(lambda: [one.name[:2] for one in folder.iterdir() if one.is_dir()] == ["a."], within_s=LONG_S)
    adopted = second.adopt(grouped.spec("a", RUNS), Exits())
    assert adopted is not None
    assert lives(adopted.pid)


def test_a_group_that_is_not_proven_is_never_killed(grouped: KeptPlace, tmp_path: Path) -> None:
    """The daemon was killed in the middle of a move: nobody knows whose number it was by then."""
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    cgroups = open_cgroups(tmp_path)
    assert cgroups is not None
    try:
        group = cgroups._group("a", "token")
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text(str(stranger.pid))
        cgroups.clear_leftovers([])
        assert not cgroups.kill("a", "token", 0.2)
        cgroups.close()  # all jobs are done
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        group.rmdir()
        cgroups.folder.rmdir()


def test_a_number_that_changed_hands_during_the_move_is_no_proof(grouped: KeptPlace, tmp_path: Path) -> None:
    cgroups = open_cgroups(tmp_path)
    assert cgroups is not None
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        identity = identity_of(stranger.pid)
        assert identity is not None
        cgroups.place("a", "token", replace(identity, start_ticks=identity.start_ticks - 1), lambda: ())
        cgroups.close()
        assert not has_group(stranger.pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_was_gone_right_after_the_move_is_no_proof(
    grouped: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may have been somebody else's by the time of the write."""
    monkeypatch.setattr("actors.runtimes.cgroups.is_held", lambda _pidfd: False)
    runtime = grouped.daemon()
    handle = runtime.launch(grouped.spec("a", RUNS), 1, Exits())
    eventually(lambda: has_group(handle.pid), within_s=LONG_S)
    assert runtime.sweeper.cgroups is not None
    assert not runtime.sweeper.cgroups.kill("a", handle.token, 0.2)
    assert lives(handle.pid)
    runtime.stop(handle, LONG_S)
    assert not lives(handle.pid), "found one by one"


def test_which_hierarchies_are_found(tmp_path: Path) -> None:
    mounts, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(
        "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n"
        "31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
        "32 30 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n"
    )
    own.write_text("4:memory:/x\n0::/user.slice/one.scope\n")
    unified = Path("/sys/fs/cgroup/unified")
    assert list(_bases(mounts, own)) == [unified, unified / "user.slice/one.scope"]
    assert list(_bases(tmp_path / "none", own)) == []
    assert open_cgroups(tmp_path) is not None or not list(_bases())


def test_groups_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF_VARIABLE, "off")
    assert open_cgroups(tmp_path) is None


# -- one by one -------------------------------------------------------------------------------------------------------


def test_what_was_seen_beside_its_parent_is_known_without_it(swept_place: ProcessPlace, tmp_path: Path) -> None:
    """It gave up its environment, its session, its files and its parent, but we had looked once before."""
    runtime, pid_file, go = swept_place.daemon(), tmp_path / "pid", tmp_path / "go"
    hide = f"echo \\$\\$ > {pid_file}.new; mv {pid_file}.new {pid_file}; while [ ! -e {go} ]; do sleep 0.01; done"
    closed = " ".join(f"{fd}>&-" for fd in range(3, 10))
    outer = f'env -i setsid /bin/sh -c "{hide}; exec sleep 1000" {closed} & wait'
    text = f"sh -c '{outer}' & while [ ! -e {go} ]; do sleep 0.01; done; kill -9 $!; echo ready; exec sleep 1000"
    handle = runtime.launch(swept_place.spec("a", script(text)), 1, Exits())
    hidden = pid_in(pid_file)
    runtime.note_descents()
    parent = read_line(hidden)
    go.touch()
    eventually(lambda: parent != (now := read_line(hidden)) and now and now.parent != parent.parent, within_s=LONG_S)  # type: ignore[union-attr]
    swept_place.wait_ready(handle)
    runtime.stop(handle, LONG_S)
    assert not lives(hidden)


@pytest.mark.parametrize("then", ["stop", "crash"])
def test_who_shows_nothing_is_the_only_services(kept_place: KeptPlace, tmp_path: Path, then: str) -> None:
    runtime, pid_file, go, on_exit = kept_place.daemon(), tmp_path / "pid", tmp_path / "go", Exits()
    handle = runtime.launch(kept_place.spec("a", escape_without_trace(pid_file, go)), 1, on_exit)
    go.touch()
    hidden = pid_in(pid_file)
    if then == "stop":
        runtime.stop(handle, LONG_S)
    else:
        kept_place.crash(handle)
        on_exit.one()
        assert lives(hidden)
        runtime.launch(kept_place.spec("a", RUNS), 2, Exits())
    assert not lives(hidden)


def test_who_may_be_anybodys_is_let_live(kept_place: KeptPlace, tmp_path: Path) -> None:
    """The stated limit: without groups, nobody can tell whose it is."""
    runtime, pid_file, go = kept_place.daemon(), tmp_path / "pid", tmp_path / "go"
    other = runtime.launch(kept_place.spec("b", RUNS), 1, Exits())
    handle = runtime.launch(kept_place.spec("a", escape_without_trace(pid_file, go)), 1, Exits())
    go.touch()
    hidden = pid_in(pid_file)
    try:
        runtime.stop(handle, LONG_S)
        assert lives(hidden)
        assert lives(other.pid)
    finally:
        os.kill(hidden, signal.SIGKILL)
