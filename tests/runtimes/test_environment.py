"""Environment files and secrets: what they may say, that they are read at each launch, that values are never told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.keeper.shim import argv_of
from actors.runtimes.base import LaunchError, LaunchSpec, RestartAtOnce
from actors.runtimes.environment import MAX_FILE_BYTES, read_variables
from actors.runtimes.resolving import resolve
from actors.runtimes.settings import EnvironmentFile, EnvironmentSources, ProcessSettings, SecretFile
from tests.runtimes.worlds import LONG_S, Exits, KeptPlace, ProcessPlace
from tests.support.eventually import eventually

CANARY = "canary-value"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A secret's file as it should be."""
    return written(tmp_path / "secret", CANARY + "\n")


@pytest.fixture(scope="session")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("env") / "env"


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def with_files(*paths: Path, environment: dict[str, str] | None = None) -> LaunchSpec:
    sources = EnvironmentSources(tuple(EnvironmentFile(path) for path in paths))
    return LaunchSpec("a", ("true",), environment=environment or {}, sources=sources)


def with_secret(secret: SecretFile) -> LaunchSpec:
    return LaunchSpec("a", ("true",), sources=EnvironmentSources(secrets={"DB_PASSWORD": secret}))


# -- files of variables -----------------------------------------------------------------------------------------------


def test_what_an_environment_file_may_say(tmp_path: Path) -> None:
    text = (
        "\ufeff# a comment\n; another\n\n"
        "PLAIN=one two  \n"
        "export EXPORTED=yes\n"
        " SPACED = around \n"
        "EMPTY=\n"
        'DOUBLE="a \\"b\\" \\\\ $HOME # no comment"\n'
        "SINGLE='a \"b\" \\ $HOME'\n"
        "EQUALS=a=b==\n"
        "LAST=of two\nLAST=last\r\n"
    )
    assert read_variables(with_files(written(tmp_path / "env", text))).values == {
        "PLAIN": "one two",
        "EXPORTED": "yes",
        "SPACED": "around",
        "EMPTY": "",
        "DOUBLE": 'a "b" \\ $HOME # no comment',
        "SINGLE": 'a "b" \\ $HOME',
        "EQUALS": "a=b==",
        "LAST": "last",
    }


@given(
    st.dictionaries(
        st.sampled_from(["A", "b_2", "_", "LONG_NAME"]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), max_size=30),
    )
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_quoted_comes_back_as_it_was(shared_file: Path, values: dict[str, str]) -> None:
    path = shared_file
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values.values())
    written(path, "".join(f'{name}="{value}"\n' for name, value in zip(values, quoted, strict=True)))
    assert read_variables(with_files(path)).values == values


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no equals sign", "is no NAME=VALUE"),
        ("2ND=x", "the name before = may hold letters, digits and _ only"),
        ("A B=x", "the name before = may hold letters, digits and _ only"),
        ("=x", "the name before = may hold letters, digits and _ only"),
        (f'A="{CANARY}', 'the quote " is not closed'),
        ("A='", "the quote ' is not closed"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_without_its_value(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path / "env", f"GOOD=1\n\n{line}\n")
    with pytest.raises(LaunchError) as refused:
        read_variables(with_files(path))
    assert str(refused.value).startswith(f"service 'a': environment file {path}, line 3: {words}")
    assert CANARY not in str(refused.value)
    assert refused.value.permanent


def test_the_order_is_files_then_environment_then_secrets(tmp_path: Path, private: Path) -> None:
    first = written(tmp_path / "1", "A=1\nB=1\nC=1\nD=1\n")
    second = written(tmp_path / "2", "B=2\nC=2\nD=2\n")
    spec = with_files(first, second, environment={"C": "3", "D": "3"})
    spec = replace(spec, sources=replace(spec.sources, secrets={"D": SecretFile(private)}))
    assert read_variables(spec).values == {"A": "1", "B": "2", "C": "3", "D": CANARY}


def test_a_missing_file_is_told_unless_it_is_optional(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"service 'a': environment file .*/none does not exist"):
        read_variables(with_files(tmp_path / "none"))
    optional = EnvironmentSources((EnvironmentFile(tmp_path / "none", is_optional=True),))
    assert read_variables(LaunchSpec("a", sources=optional)).values == {}


def test_a_folder_or_an_endless_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(LaunchError, match=f"environment file {path} is no regular file"):
            read_variables(with_files(path))
    endless = written(tmp_path / "endless", b"\n" * (MAX_FILE_BYTES + 1))
    with pytest.raises(LaunchError, match=f"endless is longer than {MAX_FILE_BYTES} bytes"):
        read_variables(with_files(endless))


def test_a_zero_byte_is_told(process_place: ProcessPlace, tmp_path: Path) -> None:
    """Neither the keeper nor the daemon may stumble over it."""
    runtime, path = process_place.daemon(), written(tmp_path / "env", b"A=a\0b\n")
    for spec in (with_files(path), replace(process_place.spec("a", ("true",)), environment={"A": "a\0b"})):
        with pytest.raises(LaunchError, match="the value of 'A' cannot be in an environment"):
            runtime.launch(spec, 1, Exits())
    with pytest.raises(LaunchError, match="its command holds a zero byte"):
        runtime.launch(process_place.spec("a", ("echo", "a\0b")), 1, Exits())
    on_exit = Exits()
    runtime.launch(process_place.spec("a", ("true",)), 1, on_exit)
    assert on_exit.one().code == 0


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b" two\nlines ", " two\nlines "),
        (b"", ""),
        (b"\xff\xfe", "\udcff\udcfe"),
    ],
)
def test_a_secret_is_the_file_without_one_line_end(tmp_path: Path, content: bytes, value: str) -> None:
    spec = with_secret(SecretFile(written(tmp_path / "s", content)))
    assert read_variables(spec).values == {"DB_PASSWORD": value}


def test_a_secret_may_be_passed_as_a_path(private: Path) -> None:
    spec = with_secret(SecretFile(private, is_path_passed=True))
    assert read_variables(spec).values == {"DB_PASSWORD": str(private)}


def test_a_missing_secret_is_told(tmp_path: Path) -> None:
    for secret in (SecretFile(tmp_path / "no"), SecretFile(tmp_path / "no", is_path_passed=True)):
        with pytest.raises(LaunchError, match=r"the file of secret DB_PASSWORD, .*/no, does not exist"):
            read_variables(with_secret(secret))


def test_what_every_user_can_read_is_no_secret(tmp_path: Path) -> None:
    """The folders count: pytest's own are closed to others, so this one is opened on purpose."""
    secret = written(tmp_path / "s", CANARY, 0o644)
    assert read_variables(with_secret(SecretFile(secret))).values["DB_PASSWORD"] == CANARY
    opened = [folder for folder in secret.resolve().parents if not folder.stat().st_mode & 0o001]
    before = [folder.stat().st_mode for folder in opened]
    try:
        for folder in opened:
            folder.chmod(folder.stat().st_mode | 0o001)
        with pytest.raises(LaunchError, match=r"DB_PASSWORD, .*/s, may be read by every user: chmod o-r it") as refused:
            read_variables(with_secret(SecretFile(secret)))
        assert CANARY not in str(refused.value)
        assert read_variables(with_secret(SecretFile(secret, may_be_world_readable=True))).values
        secret.chmod(0o640)
        assert read_variables(with_secret(SecretFile(secret))).values
    finally:
        for folder, mode in zip(opened, before, strict=True):
            folder.chmod(mode)


def test_values_are_in_no_text_of_what_holds_them(private: Path) -> None:
    assert CANARY not in repr(read_variables(with_secret(SecretFile(private))))


# -- launches ---------------------------------------------------------------------------------------------------------


def printing(place: ProcessPlace, secret: Path, then: str = "") -> LaunchSpec:
    spec = place.spec("a", ("sh", "-c", f'echo "$DB_PASSWORD"; {then}'))
    return replace(spec, sources=EnvironmentSources(secrets={"DB_PASSWORD": SecretFile(secret)}))


@pytest.mark.parametrize("asked", [ProcessSettings(), ProcessSettings(nice=1)], ids=["plain", "nice"])
def test_a_changed_file_counts_at_the_next_start(
    process_place: ProcessPlace, private: Path, asked: ProcessSettings
) -> None:
    runtime = process_place.daemon()
    for run, value in enumerate(("one", "two\u00fc", "three"), 1):
        written(private, value + "\n")
        on_exit = Exits()
        runtime.launch(replace(printing(process_place, private), settings=asked), run, on_exit)
        assert on_exit.one().code == 0
    assert (process_place.folder / "logs" / "a.log").read_text().split() == ["one", "two\u00fc", "three"]


def test_a_value_that_is_no_text_arrives_as_it_is(process_place: ProcessPlace, private: Path) -> None:
    written(private, b"\xff\x01\xc3\n")
    on_exit = Exits()
    process_place.daemon().launch(printing(process_place, private), 1, on_exit)
    assert on_exit.one().code == 0
    assert (process_place.folder / "logs" / "a.log").read_bytes() == b"\xff\x01\xc3\n"


def test_the_keeper_restarts_with_what_it_has_while_nothing_changed(kept_place: KeptPlace, private: Path) -> None:
    runtime, on_exit, spec = kept_place.daemon(), Exits(), printing(kept_place, private, "exec sleep 1000")
    handle = runtime.launch(spec, 1, on_exit)
    runtime.arm(handle, RestartAtOnce)
    log = kept_place.folder / "logs" / "a.log"
    eventually(lambda: log.read_text() == f"{CANARY}\n", within_s=LONG_S)
    kept_place.crash(handle)
    eventually(lambda: log.read_text() == f"{CANARY}\n" * 2, within_s=LONG_S)
    on_exit.one()
    adopted = runtime.adopt(spec, Exits())
    assert adopted is not None
    assert adopted.run == 2


def test_the_keeper_leaves_a_restart_with_changed_files_to_the_daemon(kept_place: KeptPlace, private: Path) -> None:
    runtime, on_exit, spec = kept_place.daemon(), Exits(), printing(kept_place, private, "exec sleep 1000")
    handle = runtime.launch(spec, 1, on_exit)
    runtime.arm(handle, RestartAtOnce)
    log = kept_place.folder / "logs" / "a.log"
    eventually(lambda: log.read_text() == f"{CANARY}\n", within_s=LONG_S)
    written(private, "changed")
    kept_place.crash(handle)
    on_exit.one()
    kept = runtime._nursery.kept("a")
    assert kept is None or kept.run == 1
    runtime.launch(spec, 2, Exits())
    eventually(lambda: log.read_text() == f"{CANARY}\nchanged\n", within_s=LONG_S)


def test_a_shim_shows_no_value_on_its_command_line(private: Path) -> None:
    resolved = resolve(replace(with_secret(SecretFile(private)), settings=ProcessSettings(nice=1)))
    assert resolved.environment == {"DB_PASSWORD": CANARY}
    assert CANARY not in repr(argv_of(resolved.attributes, 5, None, "/bin/true", ("true",)))


def test_a_frame_the_keeper_cannot_read_is_told_without_its_content(kept_place: KeptPlace) -> None:
    """A lone surrogate cannot be in an environment; Python's own error would show the whole value."""
    runtime = kept_place.daemon()
    spec = replace(kept_place.spec("a", ("true",)), environment={"A": CANARY + "\ud800"})
    with pytest.raises(LaunchError, match="cannot be in an environment"):
        runtime.launch(spec, 1, Exits())
    link = kept_place.nurseries[-1]._link
    assert link is not None
    ledger = str(kept_place.folder / "ledger.jsonl")
    link.say("hello", ledger=ledger, frozen_after_s=0.0, environment={"A": CANARY + "\ud800"})
    log = kept_place.folder / "keeper.log"
    eventually(lambda: "spoke nonsense" in log.read_text(), within_s=LONG_S)
    assert CANARY not in log.read_text()
