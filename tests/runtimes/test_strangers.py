"""No signal reaches a process that is not ours, whatever the records say and however numbers are used again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.ledger import Ledger
from actors.runtimes.procfs import identity_of, read_line
from tests.runtimes.worlds import LONG_S, RUNS, Exits, KeptPlace, ProcessPlace
from tests.support.eventually import eventually

WITNESS = """
import signal, sys
def seen(number, frame):
    with open(sys.argv[1], "a") as file:
        print(signal.Signals(number).name, file=file, flush=True)
for one in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(one, seen)
print("ready", flush=True)
while True:
    signal.pause()
"""


@dataclass
class Witness:
    """A stranger that writes down each signal it gets."""

    process: subprocess.Popen[str]
    seen: Path

    def assert_untouched(self) -> None:
        assert self.process.poll() is None
        assert not self.seen.exists(), self.seen.read_text()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    seen = tmp_path / "seen"
    process = subprocess.Popen(
        [sys.executable, "-c", WITNESS, str(seen)], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield Witness(process, seen)
    process.kill()
    process.wait()
    process.stdout.close()


def facts(pid: int, **other: Any) -> dict[str, Any]:
    identity = identity_of(pid)
    assert identity is not None
    return {"pid": pid, "start_ticks": identity.start_ticks, "boot_id": identity.boot_id} | other


def forge(place: ProcessPlace, identity: dict[str, Any], token: str = "f") -> None:  # noqa: S107  no password
    ledger = Ledger(place.folder / "ledger.jsonl")
    ledger.intent("a", 1, "process", token)
    ledger.launched("a", 1, identity, 0.0)
    ledger.close()


def come_and_go(place: ProcessPlace) -> None:
    """A daemon does all it can with what is recorded: adopt, clear, launch the next run, stop it, clear again."""
    runtime, spec = place.daemon(), place.spec("a", RUNS)
    assert runtime.adopt(spec, Exits()) is None
    runtime.clear("a", 1.0)
    handle = runtime.launch(spec, 2, Exits())
    place.wait_ready(handle)
    runtime.stop(handle, 5.0)
    runtime.clear("a", 1.0)


def test_the_witness_sees_a_signal(witness: Witness) -> None:
    os.kill(witness.process.pid, signal.SIGTERM)
    eventually(witness.seen.exists, within_s=LONG_S)
    with pytest.raises(AssertionError, match="SIGTERM"):
        witness.assert_untouched()


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param({"start_ticks": 1}, id="other-ticks"),
        pytest.param({"boot_id": "another-boot"}, id="other-boot"),
    ],
)
def test_a_number_that_was_used_again_is_a_stranger(
    process_place: ProcessPlace, witness: Witness, lie: dict[str, Any]
) -> None:
    forge(process_place, facts(witness.process.pid, **lie))
    come_and_go(process_place)
    witness.assert_untouched()


def test_a_record_of_one_who_carries_another_token_is_wrong(process_place: ProcessPlace, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    other = subprocess.Popen(
        [sys.executable, "-c", WITNESS, str(seen)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SELFHEAL_TOKEN": "of another daemon"},
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        forge(process_place, facts(other.pid))
        come_and_go(process_place)
        Witness(other, seen).assert_untouched()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()  # type: ignore[union-attr]


def test_a_record_of_one_who_leads_no_session_is_wrong(process_place: ProcessPlace) -> None:
    """A main process of ours always does."""
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        forge(process_place, facts(stranger.pid))
        come_and_go(process_place)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("whose", ["init", "ours", "our-parents"])
def test_a_record_of_init_or_of_ourselves_is_wrong(process_place: ProcessPlace, whose: str) -> None:
    pid = {"init": 1, "ours": os.getpid(), "our-parents": os.getppid()}[whose]
    caught: list[int] = []
    before = {one: signal.signal(one, lambda number, _: caught.append(number)) for one in (signal.SIGTERM,)}
    try:
        forge(process_place, facts(pid))
        come_and_go(process_place)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert caught == []
    assert read_line(pid) is not None


def test_a_record_of_the_keeper_is_wrong(kept_place: KeptPlace) -> None:
    kept_place.daemon()
    (keeper,) = kept_place.keepers()
    forge(kept_place, facts(keeper))
    come_and_go(kept_place)
    assert kept_place.keepers() == {keeper}


def test_a_stolen_token_kills_neither_ourselves_nor_the_keeper(tmp_path: Path) -> None:
    """The daemon is itself the service of an outer one, and the record holds that one's token."""
    driver = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from tests.runtimes.test_strangers import come_and_go, facts, forge
from tests.runtimes.worlds import KeptPlace
place = KeptPlace(Path(sys.argv[1]))
place.daemon()
(keeper,) = place.keepers()
forge(place, facts(keeper), "outer")
come_and_go(place)
assert place.keepers() == {{keeper}}
place.close()
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", driver, str(tmp_path)],
        env={**os.environ, "SELFHEAL_TOKEN": "outer"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


# -- numbers wrap -----------------------------------------------------------------------------------------------------

WRAP = """
import os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from actors.runtimes.base import LaunchSpec
from actors.runtimes.family import signal_process
from actors.runtimes.procfs import is_alive
from tests.runtimes.test_strangers import RUNS, WITNESS, Exits
from tests.runtimes.worlds import ProcessPlace
place = ProcessPlace(Path(sys.argv[1]))
runtime, on_exit = place.daemon(), Exits()
handle = runtime.launch(LaunchSpec("a", RUNS), 1, on_exit)
old = handle.identity
os.kill(old.pid, signal.SIGKILL)
on_exit.one()
while os.path.exists(f"/proc/{old.pid}"):
    pass
while time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") < old.start_ticks + 2:
    pass  # a number comes again after many others: never within the same tick
Path("/proc/sys/kernel/ns_last_pid").write_text(str(old.pid - 1))
seen = Path(sys.argv[1]) / "seen"
stranger = subprocess.Popen([sys.executable, "-c", WITNESS, str(seen)], start_new_session=True, stdout=subprocess.PIPE)
assert stranger.stdout.readline() == b"ready\\n"
assert stranger.pid == old.pid, (stranger.pid, old.pid)
runtime.stop(handle, 0.2)
runtime.kill(handle)
assert not is_alive(old) and not signal_process(old, signal.SIGKILL)
later = place.daemon()
assert later.adopt(LaunchSpec("a", RUNS), Exits()) is None
later.clear("a", 0.2)
later.stop(later.launch(LaunchSpec("a", RUNS), 2, Exits()), 5.0)
assert stranger.poll() is None and not seen.exists()
stranger.kill()
stranger.wait()
print("the number came again")
"""


def test_a_number_that_comes_again_in_a_namespace_is_a_stranger(tmp_path: Path) -> None:
    """Really the same number, in a pid namespace where the next one can be chosen."""
    if os.getuid() != 0:
        pytest.skip("needs root to make a pid namespace")
    if not Path("/proc/sys/kernel/ns_last_pid").exists():
        pytest.skip("this kernel does not let one choose the next number")
    done = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *(sys.executable, "-c", WRAP, str(tmp_path), str(Path(__file__).resolve().parents[2])),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "the number came again\n"), done.stderr
