"""What a launch can meet in the world is a refusal in words, never an error that nobody expects."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from actors.keeper.words import MAX_FRAME_BYTES
from actors.runtimes.base import LaunchError, LaunchSpec, TruthUnknown
from actors.runtimes.environment import _at_once, read_variables
from actors.runtimes.launching import Spawner
from actors.runtimes.resolving import resolve
from actors.runtimes.settings import EnvironmentFile, EnvironmentSources, ProcessSettings, SecretFile
from config.models import SystemConfig
from supervisors.app import respawn_facts
from tests.runtimes.worlds import RUNS, Exits, KeptPlace, ProcessPlace


def optional(path: Path) -> LaunchSpec:
    return LaunchSpec("a", ("true",), sources=EnvironmentSources((EnvironmentFile(path, is_optional=True),)))


def refusal_of(spec: LaunchSpec) -> str:
    with pytest.raises(LaunchError) as refused:
        read_variables(spec)
    assert refused.value.permanent
    return str(refused.value)


def test_an_optional_file_that_may_not_be_looked_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As below a folder that the daemon's user may not enter (which root may)."""

    def closed(path: object, *_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.open", closed)
    monkeypatch.setattr("io.open", closed)
    monkeypatch.setattr("os.stat", closed)
    assert refusal_of(optional(tmp_path / "env")).endswith(f"{tmp_path / 'env'} cannot be read: Permission denied")


def test_an_optional_file_whose_name_is_too_long_is_told(tmp_path: Path) -> None:
    assert refusal_of(optional(tmp_path / ("x" * 300))).endswith("cannot be read: File name too long")


def test_an_optional_file_below_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_variables(optional(tmp_path / "file" / "env")).values == {}


def test_a_zero_byte_in_the_name_of_a_file_is_told(tmp_path: Path) -> None:
    assert refusal_of(optional(tmp_path / "a\0b")).endswith("cannot be read: no name of a file")
    secrets = EnvironmentSources(secrets={"A": SecretFile(tmp_path / "a\0b")})
    assert refusal_of(LaunchSpec("a", ("true",), sources=secrets)).endswith("cannot be read: no name of a file")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Nobody writes into it: to open it would take for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    return path


def secret_in(path: Path) -> LaunchSpec:
    return LaunchSpec("a", ("true",), sources=EnvironmentSources(secrets={"A": SecretFile(path)}))


@pytest.mark.parametrize("spec_of", [optional, secret_in])
def test_a_pipe_holds_up_no_launch(spec_of: Callable[[Path], LaunchSpec], pipe: Path) -> None:
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.append(refusal_of(spec_of(pipe))), daemon=True)
    reader.start()
    reader.join(10.0)
    assert [text[-len("is no regular file") :] for text in told] == ["is no regular file"]


def test_a_pipe_that_takes_the_place_of_a_file_holds_up_no_launch(pipe: Path, tmp_path: Path) -> None:
    """Between the look and the opening."""
    assert os.read(_at_once(str(pipe), os.O_RDONLY), 1) == b""


@pytest.mark.parametrize("number", ["4294967295", "4294967297", "9" * 5000])
@pytest.mark.parametrize("key", ["user", "group", "groups"])
def test_a_number_that_is_nobodys_is_told(key: str, number: str) -> None:
    """4294967295 is -1, "no change", to the kernel: the service would stay root."""
    given = ProcessSettings(**{key: (number,) if key == "groups" else number})  # type: ignore[arg-type]
    settings = given if key == "user" else replace(given, user="0")
    with pytest.raises(LaunchError, match=r"is no number of a (user|group): the biggest is 4294967294"):
        resolve(LaunchSpec("a", ("true",), settings=settings))


@pytest.fixture
def deleted_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    here, gone = Path.cwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    yield
    os.chdir(here)


@pytest.mark.usefixtures("deleted_cwd")
def test_a_relative_command_in_a_deleted_directory_is_told() -> None:
    with pytest.raises(LaunchError, match=r"service 'a': run\.sh is relative, and the daemon's own working directory"):
        Spawner().program(LaunchSpec("a", ("./run.sh",)))
    assert Spawner().program(LaunchSpec("a", ("./run.sh",), working_dir=Path("/srv"))) == "/srv/run.sh"


@pytest.mark.usefixtures("deleted_cwd")
def test_a_daemon_in_a_deleted_directory_can_say_how_to_start_it_again() -> None:
    assert respawn_facts(SystemConfig(), is_ours=True)["cwd"] == "/"


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (LaunchSpec("a", ("true", "\ud800")), "command"),
        (LaunchSpec("a", ("true", "\0")), "command"),
        (LaunchSpec("a", ("true",), working_dir=Path("/a\0b")), "working_dir"),
    ],
    ids=["no text", "zero byte", "directory"],
)
def test_what_no_program_can_be_given_is_told(spec: LaunchSpec, what: str) -> None:
    with pytest.raises(LaunchError, match=f"its {what} holds a zero byte or no text"):
        Spawner().program(spec)


def test_a_program_that_may_not_even_be_looked_for_is_told(process_place: ProcessPlace) -> None:
    with pytest.raises(LaunchError, match=r"cannot start /.*: File name too long"):
        process_place.daemon().launch(process_place.spec("a", ("/" + "x" * 300,)), 1, Exits())


def test_more_than_the_keeper_can_be_told_is_that_services_failure(kept_place: KeptPlace, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 take six each on the way; the limit of a frame is not the limit of a file."""
    runtime, files = kept_place.daemon(), []
    for number in range(3):
        path = tmp_path / f"{number}.env"
        path.write_bytes(b"A%d=" % number + b"\xff" * 1_000_000)
        files.append(EnvironmentFile(path))
    spec = replace(kept_place.spec("a", RUNS), sources=EnvironmentSources(tuple(files)))
    with pytest.raises(
        LaunchError, match=f"too long for the keeper: a frame of .* over the limit of {MAX_FRAME_BYTES}"
    ):
        runtime.launch(spec, 1, Exits())
    handle = runtime.launch(kept_place.spec("b", RUNS), 1, Exits())
    assert kept_place.is_alive(handle)


def no_descriptor(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/proc")


@pytest.mark.parametrize("where", ["actors.runtimes.procfs._list_pids", "psutil.pids"])
def test_without_a_descriptor_for_the_process_table_nobody_knows(
    process_place: ProcessPlace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    process_place.daemon()._ledger.intent("a", 1, "process", "t")
    runtime = process_place.daemon()
    monkeypatch.setattr(where, no_descriptor)
    words = "service 'a': cannot look at /proc: Too many open files"
    with pytest.raises(TruthUnknown, match=words):
        runtime.adopt(process_place.spec("a", RUNS), Exits())
    with pytest.raises(LaunchError, match=words):
        runtime.launch(process_place.spec("a", RUNS), 2, Exits())
    with pytest.raises(TruthUnknown, match=words):
        runtime.clear("a", 1.0)
    monkeypatch.undo()
    assert process_place.is_alive(runtime.launch(process_place.spec("a", RUNS), 2, Exits()))
