"""Key files: what is written, what is refused and why, and where a client looks."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.access.keyring import Keyring, utc_now
from actors.access.table import BadTable, Line, Table
from bridge_link.errors import KeyMissing, KeyRefused
from bridge_link.keys import find_key, new_client_key, new_pair, read_key_file, write_key_file
from bridge_link.private_files import write_private

needs_modes = pytest.mark.skipif(os.name != "posix", reason="files have no modes here")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "guardian-1.key"
    write_key_file(path, new_client_key("guardian-1", new_pair().public))
    return path


def test_a_key_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    key = new_client_key("guardian-1", new_pair().public)
    write_key_file(tmp_path / "k", key)
    assert read_key_file(tmp_path / "k") == key
    first, *lines = (tmp_path / "k").read_text().splitlines()
    assert first == "# selfheal client key: secret"
    assert lines == [f"name {key.name}", f"public {key.public}", f"secret {key.secret}", f"server {key.server}"]
    assert key.secret not in repr(key)


def test_editors_of_other_systems_do_no_harm(file: Path) -> None:
    key = read_key_file(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_text().replace("\n", "\r\n").encode() + b"\r\nlater words\r\n")
    assert read_key_file(file) == key


@needs_modes
def test_trap_18_nobody_else_can_read_what_is_written(file: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "open", "x")
        Keyring(tmp_path).prepare(utc_now())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    made = [file, tmp_path / "open", *(tmp_path / "keys").iterdir()]
    assert len(made) == 6
    assert {stat.S_IMODE(one.stat().st_mode) for one in made} == {0o600}


@needs_modes
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o610])
def test_trap_18_a_key_that_others_may_use_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(KeyRefused, match=f"{mode:04o}.*chmod 600 {file}"):
        read_key_file(file)


@needs_modes
def test_trap_18_a_link_is_refused_also_for_writing(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.key"
    link.symlink_to(file)
    with pytest.raises(KeyRefused, match="symbolic link"):
        read_key_file(link)
    before = file.read_text()
    with pytest.raises(FileExistsError):
        write_key_file(link, new_client_key("other", new_pair().public))
    assert file.read_text() == before
    dangling = tmp_path / "dangling.key"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_key_file(dangling, new_client_key("other", new_pair().public))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_trap_18_another_users_key_is_refused(file: Path) -> None:
    os.chown(file, 12345, 12345)
    with pytest.raises(KeyRefused, match="belongs to user 12345"):
        read_key_file(file)


def test_trap_18_a_pipe_is_no_key_and_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key", 0o600)
    with pytest.raises(KeyRefused, match="not a regular file"):
        read_key_file(tmp_path / "pipe.key")


@needs_modes
def test_trap_18_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    Keyring(tmp_path).prepare(utc_now())
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(KeyRefused, match=r"0755.*chmod 700"):
        Keyring(tmp_path).prepare(utc_now())


def _without(word: str) -> Callable[[str], str]:
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if not line.startswith(word))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_without("secret"), "has no secret"),
        (_without("server"), "has no server"),
        (lambda text: text + "name twice\n", "'name' stands twice"),
        (lambda text: text.replace("server ", "server x"), "'server' is no key"),
        (lambda text: text.replace("public ", "public x"), "'public' is no key"),
        (lambda text: text.replace("name guardian-1", "name ../x"), "no client name"),
        (lambda text: _without("public")(text) + f"public {new_pair().public}\n", "does not belong to 'secret'"),
        (lambda _text: "", "has no name and no public and no secret and no server"),
    ],
)
def test_what_is_wrong_in_a_key_file_is_said(file: Path, spoil: Callable[[str], str], why: str) -> None:
    file.write_text(spoil(file.read_text()))
    with pytest.raises(KeyRefused, match=why) as refused:
        read_key_file(file)
    assert str(file) in str(refused.value)


def test_bytes_are_no_key_file(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KeyRefused, match="is no text"):
        read_key_file(file)


def test_where_a_client_looks(tmp_path: Path, file: Path) -> None:
    state = tmp_path / "state"
    given, local = read_key_file(file), Keyring(state).prepare(utc_now())
    environ = {"SELFHEAL_KEY": str(file), "SELFHEAL_STATE": str(tmp_path / "nowhere")}
    found = find_key(None, state, {})
    assert found is not None
    assert (found.name, found.server) == ("local", local.public)
    assert find_key(None, None, {"SELFHEAL_STATE": str(state)}) == found
    assert find_key(None, state, environ) == given, "the environment's word before the state directory's key"
    assert find_key(state / "keys" / "local.key", None, environ) == found, "the argument before all"


def test_a_missing_key_says_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing, match=rf"\$SELFHEAL_KEY is not set.*{tmp_path}/keys/local.key"):
        find_key(None, tmp_path, {})
    with pytest.raises(KeyMissing, match=rf"{tmp_path}/k, the file \$SELFHEAL_KEY names"):
        find_key(None, tmp_path, {"SELFHEAL_KEY": str(tmp_path / "k")})
    with pytest.raises(KeyMissing, match=f"{tmp_path}/k, the key file that was given"):
        find_key(tmp_path / "k", None, {})


# -- the keyring ------------------------------------------------------------------------------------------------------


def test_keys_stay_over_restarts_and_the_local_one_is_in_the_table(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    server, local = keyring.prepare(utc_now()), find_key(None, tmp_path, {})
    assert local is not None
    assert keyring.prepare(utc_now()) == server
    assert find_key(None, tmp_path, {}) == local
    line = keyring.table().line("local")
    assert line is not None
    assert (line.public, line.roles) == (local.public, ("guardian", "bridge", "operator", "viewer"))


def test_a_revoked_local_key_stays_revoked_until_it_is_removed(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    keyring.prepare(utc_now())
    keyring.change_table(lambda table: table.with_revoked("local", utc_now()))
    keyring.prepare(utc_now())
    line = keyring.table().line("local")
    assert line is not None
    assert line.revoked_at is not None
    (tmp_path / "keys" / "local.key").unlink()
    keyring.prepare(utc_now())
    line = keyring.table().line("local")
    assert line is not None
    assert line.revoked_at is None


def test_a_new_server_key_reaches_the_local_key(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    old = keyring.prepare(utc_now())
    before = find_key(None, tmp_path, {})
    (tmp_path / "keys" / "server.key").unlink()
    new = keyring.prepare(utc_now())
    after = find_key(None, tmp_path, {})
    assert before is not None
    assert after is not None
    assert (new != old, after.server, after.public) == (True, new.public, before.public)


def test_after_a_time_without_keys_there_is_a_new_local_key(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    keyring.prepare(utc_now())
    keyring.say_curve_is_off()
    assert find_key(None, tmp_path, {}) is None
    keyring.prepare(utc_now())
    found, line = find_key(None, tmp_path, {}), keyring.table().line("local")
    assert found is not None
    assert line is not None
    assert line.public == found.public


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    left = tmp_path / "keys" / ".guardian-1.key.0123.new"
    left.write_text("half a key")
    Keyring(tmp_path).prepare(utc_now())
    assert not left.exists()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda _text: "{", "EOF"),
        (lambda _text: "[]", "an object"),
        (lambda text: text.replace('"viewer"', '"king"'), "guardian.*viewer"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version"),
        (lambda text: text.replace('"max_rate_per_s": null', '"max_rate_per_s": 0'), "max_rate_per_s"),
        (lambda text: text.replace('"not_after": null', '"not_after": "2027-01-01T00:00:00"'), "not_after"),
        (lambda text: text.replace('"name"', '"nam"'), "nam"),
    ],
)
def test_a_broken_table_says_what_and_where(tmp_path: Path, spoil: Callable[[str], str], why: str) -> None:
    keyring = Keyring(tmp_path)
    keyring.prepare(utc_now())
    keyring.table_file.write_text(spoil(keyring.table_file.read_text()))
    with pytest.raises(BadTable, match=f"(?s){keyring.table_file}.*{why}"):
        keyring.table()


def test_a_name_or_key_that_stands_twice_is_no_table() -> None:
    public = new_pair().public
    one = Line(name="a", public=public, roles=("viewer",), made_at=utc_now()).model_dump(mode="json")
    with pytest.raises(BadTable, match="the name 'a' stands twice"):
        Table.parsed(json.dumps({"clients": [one, one | {"public": new_pair().public}]}))
    with pytest.raises(BadTable, match=r"the public .* stands twice"):
        Table.parsed(json.dumps({"clients": [one, one | {"name": "b"}]}))
