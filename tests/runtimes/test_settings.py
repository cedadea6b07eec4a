"""Limits, nice, umask and users of real processes, as children of the daemon and of a keeper."""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import actors
from actors.runtimes.base import LaunchError, LaunchSpec, RestartAtOnce
from actors.runtimes.settings import Limit, ProcessSettings
from tests.runtimes.worlds import LONG_S, RUNS, Exits, KeptPlace, ProcessPlace
from tests.support.eventually import eventually

NOBODY = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
NICE = ProcessSettings(nice=7)


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def lines_of(
    place: ProcessPlace, text: str, settings: ProcessSettings, environment: Mapping[str, str] | None = None
) -> list[str]:
    """What a script prints that runs with these settings."""
    on_exit = Exits()
    spec = replace(place.spec("a", script(text)), settings=settings, environment=environment or {})
    place.daemon().launch(spec, 1, on_exit)
    assert on_exit.one().code == 0
    return (place.folder / "logs" / "a.log").read_text().splitlines()


# -- what is given ----------------------------------------------------------------------------------------------------


def test_limits_are_set_soft_and_hard(process_place: ProcessPlace) -> None:
    limits = (Limit("nofile", 64, 128), Limit("core", 0, 0), Limit("fsize", 1024**3, -1), Limit("as", 2**32, 2**33))
    text = "cat /proc/self/limits"
    found = {
        line[:25].strip(): line[25:].split()[:2] for line in lines_of(process_place, text, ProcessSettings(limits))
    }
    assert found["Max open files"] == ["64", "128"]
    assert found["Max core file size"] == ["0", "0"]
    assert found["Max file size"] == [str(1024**3), "unlimited"]
    assert found["Max address space"] == [str(2**32), str(2**33)]


def test_nice_and_umask(process_place: ProcessPlace) -> None:
    assert lines_of(process_place, "nice; umask", ProcessSettings(nice=7, umask=0o027)) == ["7", "0027"]


@as_root
def test_a_service_runs_as_its_user_with_its_groups_and_home(process_place: ProcessPlace) -> None:
    entry = pwd.getpwnam(NOBODY)
    groups = " ".join(str(group) for group in os.getgrouplist(NOBODY, entry.pw_gid))
    text = "id -u; id -g; id -G; echo $HOME $USER; grep -E '^(Uid|Gid):' /proc/self/status"
    lines = lines_of(process_place, text, ProcessSettings(user=NOBODY))
    assert lines[:4] == [str(entry.pw_uid), str(entry.pw_gid), groups, f"{entry.pw_dir} {NOBODY}"]
    assert [line.split()[1:] for line in lines[4:]] == [[str(entry.pw_uid)] * 4, [str(entry.pw_gid)] * 4]


@as_root
def test_group_and_groups_by_number_and_a_home_of_its_own(process_place: ProcessPlace) -> None:
    settings = ProcessSettings(user="12345", group="23456", groups=("34567",))
    lines = lines_of(process_place, "id -u; id -g; id -G; echo $HOME", settings, {"HOME": "/here"})
    assert lines == ["12345", "23456", "23456 34567", "/here"]


def test_the_user_that_runs_the_daemon_needs_no_privileges(process_place: ProcessPlace) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    assert lines_of(process_place, "id -u", ProcessSettings(user=me, nice=3)) == [str(os.getuid())]


@as_root
def test_limits_are_raised_before_the_user_is_changed(process_place: ProcessPlace) -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == resource.RLIM_INFINITY:
        settings = ProcessSettings((Limit("core", -1, -1),), nice=-5, user=NOBODY)
        assert lines_of(process_place, "ulimit -c; nice", settings) == ["unlimited", "-5"]
    assert lines_of(process_place, "nice", ProcessSettings(nice=-5, user=NOBODY))[-1] == "-5"


@pytest.mark.parametrize("settings", [ProcessSettings(), NICE], ids=["plain", "nice"])
def test_nothing_is_inherited_that_was_not_meant(process_place: ProcessPlace, settings: ProcessSettings) -> None:
    """Only standard streams and the service's own lock; no signal blocked, SIGPIPE not ignored."""
    text = "for fd in /proc/self/fd/*; do readlink $fd; done; grep -E '^Sig(Blk|Ign)' /proc/self/status"
    leak = os.open(process_place.folder, os.O_RDONLY)
    try:
        lines = lines_of(process_place, text, settings)
    finally:
        os.close(leak)
    targets = [line for line in lines if line.startswith(("/", "pipe", "socket", "anon"))]
    allowed = re.compile(r"/dev/null|.*/logs/a\.log|.*/locks/a\.lock|/proc/\d+/fd")
    assert len(targets) >= 3
    assert [target for target in targets if not allowed.fullmatch(target)] == []
    masks = dict(line.split() for line in lines if line.startswith("Sig"))
    assert int(masks["SigBlk:"], 16) == 0
    assert int(masks["SigIgn:"], 16) & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0


def test_a_service_with_settings_is_stopped_and_told_like_any_other(process_place: ProcessPlace) -> None:
    runtime, on_exit = process_place.daemon(), Exits()
    handle = runtime.launch(replace(process_place.spec("a", RUNS), settings=NICE), 1, on_exit)
    process_place.wait_ready(handle)
    assert os.getsid(handle.pid) == handle.pid
    assert runtime.stop(handle, LONG_S).signal == signal.SIGTERM
    assert len(on_exit.seen) == 1
    runtime.launch(replace(process_place.spec("a", script("exit 9")), settings=NICE), 2, second := Exits())
    assert second.one().code == 9


def test_the_keeper_s_own_restart_keeps_the_settings(kept_place: KeptPlace) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    spec = replace(kept_place.spec("a", script("nice; exec sleep 1000")), settings=NICE)
    handle = runtime.launch(spec, 1, on_exit)
    runtime.arm(handle, RestartAtOnce)
    log = kept_place.folder / "logs" / "a.log"
    eventually(lambda: log.read_text() == "7\n", within_s=LONG_S)
    kept_place.crash(handle)
    eventually(lambda: log.read_text() == "7\n7\n", within_s=LONG_S)
    on_exit.one()
    adopted = runtime.adopt(spec, Exits())
    assert adopted is not None
    assert adopted.run == 2


def test_forks_in_the_keeper_reach_many_at_once(kept_place: KeptPlace) -> None:
    """Eight daemon threads ask for services with settings at the same time: each gets its own."""
    runtime = kept_place.daemon()
    exits = [Exits() for _ in range(8)]

    def launch(number: int) -> None:
        spec = replace(kept_place.spec(f"s{number}", script(f"exit {number}")), settings=NICE)
        runtime.launch(spec, 1, exits[number])

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert [one.one().code for one in exits] == list(range(8))


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(place: ProcessPlace, spec: LaunchSpec) -> str:
    runtime, on_exit = place.daemon(), Exits()
    with pytest.raises(LaunchError) as refused:
        runtime.launch(spec, 1, on_exit)
    assert refused.value.permanent
    assert on_exit.seen == []
    handle = runtime.launch(place.spec("a", RUNS), 2, Exits())  # nothing was left behind
    assert place.is_alive(handle)
    return str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ProcessSettings(user="no-such-user"), "service 'a': there is no user 'no-such-user' on this system"),
        (ProcessSettings(group="no-such-group"), "service 'a': there is no group 'no-such-group' on this system"),
        (ProcessSettings(user="54321"), "service 'a': user 54321 has no entry in the user database: say its `group`"),
        (
            ProcessSettings((Limit("nofile", 2**40, 2**40),)),
            "service 'a': cannot set its limit nofile: Operation not permitted",
        ),
    ],
)
def test_what_cannot_be_given_is_told(process_place: ProcessPlace, settings: ProcessSettings, words: str) -> None:
    assert refusal(process_place, replace(process_place.spec("a", RUNS), settings=settings)).startswith(words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("./missing",), "missing does not exist"),
        (("./plain",), "may not be run: is it executable"),
        (("./lost-interpreter",), "names an interpreter that does not exist"),
        (("./no-format",), "has no format the system can run"),
        (("echo", "x" * 300_000), "too long"),
    ],
)
def test_a_program_that_cannot_run_is_told_with_settings_too(
    process_place: ProcessPlace, tmp_path: Path, command: tuple[str, ...], words: str
) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for name, content in (("lost-interpreter", "#!/no/such/shell\n"), ("no-format", "\0\1\2")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    assert words in refusal(process_place, LaunchSpec("a", command, tmp_path, settings=NICE))


def test_a_missing_working_directory_is_told_with_settings_too(process_place: ProcessPlace, tmp_path: Path) -> None:
    text = refusal(process_place, LaunchSpec("a", RUNS, tmp_path / "nowhere", settings=NICE))
    assert re.search(r"working directory .*nowhere does not exist", text)


@as_root
@pytest.mark.parametrize("at_fault", ["directory", "program"])
def test_the_directory_and_the_program_are_asked_for_as_the_user(
    process_place: ProcessPlace, tmp_path: Path, at_fault: str
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    shutil.copy("/bin/true", private / "program")
    settings = ProcessSettings(user=NOBODY)
    if at_fault == "directory":
        spec, words = (
            LaunchSpec("a", RUNS, private, settings=settings),
            f"working directory {private} may not be entered",
        )
    else:
        program = str(private / "program")
        spec, words = LaunchSpec("a", (program,), settings=settings), f"program {program} may not be run"
    assert f"{words} by user nobody" in refusal(process_place, spec)


UNPRIVILEGED = """
import sys
from pathlib import Path
from actors.keeper.client import Hello
from actors.ledger import Ledger
from actors.exit_watcher import ExitWatcher
from actors.clock import SystemClock
from actors.runtimes.base import LaunchError, LaunchSpec
from actors.runtimes.kept import KeeperNursery
from actors.runtimes.launching import Spawner
from actors.runtimes.process import ProcessRuntime
from actors.runtimes.settings import Limit, ProcessSettings
folder, world = Path(sys.argv[1]), sys.argv[2]
ledger = Ledger(folder / "ledger.jsonl")
nursery = None
if world == "kept":
    nursery = KeeperNursery(folder, Hello(ledger.path, {}, 0.0, {}), ExitWatcher(), Spawner({}), SystemClock())
    nursery.ensure()
runtime = ProcessRuntime(ledger, environment={}, nursery=nursery)
for settings in (
    ProcessSettings(user="nobody"),
    ProcessSettings(group="nogroup"),
    ProcessSettings(groups=("1",)),
    ProcessSettings(nice=-5),
    ProcessSettings((Limit("core", 0, 0),), nice=5),
):
    try:
        runtime.launch(LaunchSpec("a", ("/bin/true",), settings=settings), 1, lambda status: None)
        print("started")
    except LaunchError as refused:
        print(refused.permanent, refused)
if nursery is not None:
    nursery.leave()
runtime.close()
"""


@pytest.mark.parametrize("world", ["local", "kept"])
def test_without_privileges_the_refusal_names_what_was_refused(tmp_path: Path, world: str) -> None:
    """Root without the capabilities is as good as no root, and can still read this file."""
    drop: Callable[[], list[str]] = lambda: (  # noqa: E731
        ["setpriv", "--bounding-set=-setuid,-setgid,-sys_nice,-sys_resource"] if os.geteuid() == 0 else []
    )
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("no setpriv to drop root's capabilities with")
    done = subprocess.run(
        [*drop(), sys.executable, "-c", UNPRIVILEGED, str(tmp_path), world],
        cwd=Path(actors.__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=True,
    )
    root = ": the daemon must run as root for that"
    assert done.stdout.splitlines() == [
        f"True service 'a': cannot set its user: Operation not permitted{root}",
        f"True service 'a': cannot set its group: Operation not permitted{root}",
        f"True service 'a': cannot set its groups: Operation not permitted{root}",
        f"True service 'a': cannot set its nice: Permission denied{root}",
        "started",
    ], done.stderr
