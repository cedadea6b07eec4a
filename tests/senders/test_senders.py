"""The shipped senders, each in its language, against the real daemon with CURVE: what a stranger's client must do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge_link.keys import find_key
from bridge_link.wire import Kind
from tests.links.guarded import heard, raw_client, said
from tests.senders.conftest import GetSender
from tests.senders.held_answers import HeldAnswers
from tests.senders.programs import LANGUAGES, SPEAKING, ended, new_key, stored
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, write_config

pytestmark = pytest.mark.xdist_group("senders")
TEXT = 'Ü 行情 😀 \\ " \t \x7f'
ABOUT_WEB = ("--type", "service_failure", "--service", "web", "--severity", "critical")


def id_for(*words: str) -> str:
    return "-".join(("sender", *(word.strip("-") for word in words)))


def address_of(place: Running) -> str:
    return (place.state / "guardian.address").read_text().strip()


def kill_all(processes: dict[str, subprocess.Popen[str]]) -> None:
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("language", "encoding"), SPEAKING)
def test_trap_25_an_alert_is_stored_under_its_clients_name_and_decided_once(
    language: str, encoding: str, sender_of: GetSender, place: Running, key_file: Path
) -> None:
    sender, message_id = sender_of(language), id_for(language, encoding)
    words = (*ABOUT_WEB, "--id", message_id, encoding, "--key-file", str(key_file), "--address", address_of(place))
    first = sender.run(*words, "--message", TEXT)
    assert (first.code, first.errors) == (0, "")
    (alert,) = stored(place, message_id)
    assert alert["client"] == "desk"
    assert {"type": "service_failure", "service": "web", "severity": "critical", "message": TEXT}.items() <= (
        alert["body"].items()
    )
    assert alert["body"]["source"]
    decided = f"decided {alert['outcome']} {alert['execution_id'] or ''}".rstrip()
    assert first.lines == [f"stored {message_id}", decided]

    again = sender.run(*words, "--message", TEXT)
    assert (again.code, again.lines) == (0, [f"stored {message_id} (duplicate)", decided])
    other = sender.run(*words, "--message", "another body")
    assert (other.code, other.lines) == (1, [])
    assert other.errors.startswith("refused conflict: ")
    assert stored(place, message_id) == [alert]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_users_own_programs_need_no_words(language: str, sender_of: GetSender, place: Running) -> None:
    message_id = id_for(language, "local")
    environ = {"SELFHEAL_STATE": str(place.state)}
    sent = sender_of(language).run("--type", "noise", "--id", message_id, environ=environ)
    assert (sent.code, sent.lines) == (0, [f"stored {message_id}", "decided no_match"])
    assert [alert["client"] for alert in stored(place, message_id)] == ["local"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_unknown_key_gets_nothing_in(language: str, sender_of: GetSender, place: Running, stranger: Path) -> None:
    message_id = id_for(language, "stranger")
    words = ("--type", "noise", "--id", message_id, "--state", str(place.state), "--timeout-s", "1")
    sent = sender_of(language).run(*words, "--key-file", str(stranger))
    assert (sent.code, sent.lines) == (4, [])
    assert sent.errors.startswith(f"not reachable: {address_of(place)}: ")
    assert stored(place, message_id) == []


@pytest.fixture(scope="module")
def stranger(place: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client key of another daemon's, that knows this daemon's public key."""
    folder = tmp_path_factory.mktemp("elsewhere")
    file = new_key(folder / "state", "desk", folder)
    server = (place.state / "keys" / "local.key").read_text().splitlines()[-1]
    assert server.startswith("server ")
    lines = [line for line in file.read_text().splitlines() if not line.startswith("server ")]
    file.write_text("\n".join((*lines, server)) + "\n")
    return file


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_cannot_be_sent_is_said(language: str, sender_of: GetSender, tmp_path: Path) -> None:
    sender = sender_of(language)
    off = tmp_path / "keys" / "local.key"
    off.parent.mkdir()
    here = ("--state", str(tmp_path))
    no_key = sender.run("--type", "noise", *here)
    assert no_key.code == 4
    assert no_key.errors.startswith(f"no key: {off}")
    off.write_text("name desk\npublic short\n")
    off.chmod(0o644)
    open_to_all = sender.run("--type", "noise", *here)
    assert (open_to_all.code, "chmod 600" in open_to_all.errors) == (2, language != "csharp"), "C# cannot see modes"
    off.chmod(0o600)
    assert sender.run("--type", "noise", *here).code == 2
    off.write_bytes(b"\xef\xbb\xbfcurve off\r\n")
    nobody = sender.run("--type", "noise", *here, "--timeout-s", "0.3")
    assert (nobody.code, nobody.lines) == (4, [])
    for wrong in ((), ("--type", "noise", "--id", "short"), ("--type", "noise", "--timeout-s", "soon")):
        assert sender.run(*wrong, *here).code == 2, wrong
    large = sender.run("--type", "noise", "--message", "x" * 65_536, *here)
    assert large.code == 1
    assert large.errors.startswith("refused too_large: ")


@pytest.mark.timeout(120)
def test_trap_25_a_daemon_killed_between_storing_and_answering_has_each_alert_once(
    sender_of: GetSender, tmp_path: Path
) -> None:
    """The answers of the first daemon are held back until it is dead; the next one is asked under the same ids."""
    senders = {language: sender_of(language) for language in LANGUAGES}
    config, state = write_config(tmp_path, {"web": SLEEPER}), tmp_path / "state"
    processes: dict[str, subprocess.Popen[str]] = {}
    held = HeldAnswers(lambda: urlsplit((state / "guardian.address").read_text().strip()).port or 0)
    try:
        with daemon(config, state) as first:
            for language, sender in senders.items():
                words = (*ABOUT_WEB, "--id", id_for(language, "killed"), "--timeout-s", "60")
                processes[language] = sender.begin(*words, "--state", str(state), "--address", held.address)
            for language in senders:
                eventually(lambda name=language: stored(first, id_for(name, "killed")), within_s=30)  # type: ignore[misc]
            assert all(process.poll() is None for process in processes.values()), "nobody was answered"
            first.process.kill()
            first.process.wait()
        held.let_through()
        with daemon(config, state) as second:
            for language, process in processes.items():
                message_id = id_for(language, "killed")
                sent = ended(process)
                (alert,) = stored(second, message_id)
                decided = f"decided {alert['outcome']} {alert['execution_id'] or ''}".rstrip()
                assert (sent.code, sent.lines) == (0, [f"stored {message_id} (duplicate)", decided]), sent.errors
    finally:
        held.close()
        kill_all(processes)


def is_kept_out(place: Running, key: Path) -> bool:
    """The daemon has seen that the key was revoked."""
    with raw_client(address_of(place), find_key(key)) as socket:
        said(socket, Kind.QUERY, {"ask": "statistics"})
        return heard(socket, 700) is None


@pytest.mark.timeout(120)
def test_trap_4_a_refused_sender_gets_in_when_its_key_is_allowed(sender_of: GetSender, tmp_path: Path) -> None:
    """A refused handshake leaves a dead socket: only a new one gets in."""
    senders = {language: sender_of(language) for language in LANGUAGES}
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {}), state) as place:
        key = new_key(state, "late", tmp_path)
        table = state / "keys" / "clients.json"
        with_late = table.read_bytes()
        done = place.call("keys", "revoke", "late")
        assert done.returncode == 0, done.stderr
        eventually(lambda: is_kept_out(place, key), within_s=20)
        processes = {
            language: sender.begin(
                *("--type", "noise", "--id", id_for(language, "late"), "--timeout-s", "40"),
                *("--state", str(state), "--key-file", str(key)),
            )
            for language, sender in senders.items()
        }
        holds_for(lambda: all(process.poll() is None for process in processes.values()), 2.0, every_s=0.1)
        copy = tmp_path / "clients.json"
        copy.write_bytes(with_late)
        copy.chmod(0o600)
        shutil.move(copy, table)
        for language, process in processes.items():
            sent = ended(process)
            assert (sent.code, sent.lines[:1]) == (0, [f"stored {id_for(language, 'late')}"]), sent.errors
            assert [alert["client"] for alert in stored(place, id_for(language, "late"))] == ["late"]
