"""A secret reaches the call that names it, and nothing else: not the journal, a log, an error, argv or the API."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from runbooks.engine_words import Answer
from runbooks.model import CallType
from runbooks.notices import Webhook
from runbooks.ports import PortError, Ports
from runbooks.secret_files import LocalSecrets, SecretFile, redacted
from tests.actions.place import do, look, ports_of
from tests.actions.web import web

CANARY = 'canary/5e1f "öne" + two'
NAMED = {"secret": "token"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(CANARY + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def ports(tmp_path: Path, secret: Path) -> Ports:
    return ports_of(tmp_path / "state", secrets={"token": SecretFile(secret)}, file_roots=(tmp_path,))


def shapes(value: str = CANARY) -> list[str]:
    return [value, quote(value, safe=""), json.dumps(value)[1:-1], base64.b64encode(value.encode()).decode()]


def is_clean(said: object) -> bool:
    return not any(shape in str(said) for shape in shapes())


def test_it_reaches_header_and_body_and_no_answer(ports: Ports) -> None:
    with web() as it:
        it.answer = json.dumps({"you sent": CANARY, CANARY: 1, "coded": shapes()}).encode()
        plain = {"secret": "token", "more": 1}
        body = {"password": NAMED, "deep": [{"again": NAMED}], "text": "token", "no secret": plain}
        done = do(ports, CallType.HTTP_REQUEST, url=it.base, body=body)
        assert done.ok, done
        sent = json.loads(it.seen[0].body)
        assert sent == {"password": CANARY, "deep": [{"again": CANARY}], "text": "token", "no secret": plain}
        assert is_clean((done.output, done.result)), done
        assert "[secret token]" in done.output
        assert "[secret token]" in done.result
        it.status = 500
        failed = do(ports, CallType.HTTP_REQUEST, url=it.base, body=body)
        assert not failed.ok
        assert is_clean(failed.error)


def test_it_reaches_a_header(ports: Ports, secret: Path) -> None:
    secret.write_text("plain-canary-77")
    with web() as it:
        assert do(ports, CallType.HTTP_REQUEST, url=it.base, headers={"Authorization": NAMED}).ok
        assert it.seen[0].headers["Authorization"] == "plain-canary-77"


def test_it_reaches_a_programs_environment_and_never_its_arguments(ports: Ports) -> None:
    show = "import os, sys; print(sys.argv, os.environ['TOKEN'], file=sys.stderr); sys.exit(3)"
    failed = do(ports, CallType.COMMAND, argv=(sys.executable, "-c", show, "x"), environment={"TOKEN": NAMED})
    assert "[secret token]" in failed.error
    assert is_clean(failed.error)
    argv = (sys.executable, "-c", "import sys; print(sys.argv)", "{'secret': 'token'}")
    literal = do(ports, CallType.COMMAND, argv=argv)
    assert is_clean(literal.output)
    assert "secret" in literal.output


def test_while_it_runs_no_process_shows_it_in_its_arguments(ports: Ports) -> None:
    scan = (
        "import os, pathlib\n"
        "token = os.environ['TOKEN'].encode()\n"
        "lines = [p.read_bytes() for p in pathlib.Path('/proc').glob('[0-9]*/cmdline') if p.parent.exists()]\n"
        "print(any(token in line for line in lines))\n"
    )
    done = do(ports, CallType.COMMAND, argv=(sys.executable, "-c", scan), environment={"TOKEN": NAMED})
    assert (done.ok, done.output) == (True, "False"), done


def test_a_look_that_fails_says_nothing_of_it(ports: Ports) -> None:
    asked = look(ports, CallType.COMMAND_OK, argv=("/no/such/program",), environment={"TOKEN": NAMED})
    assert is_clean(asked.detail)
    refused = do(ports, CallType.HTTP_REQUEST, url={"secret": "token"})
    assert not refused.ok
    assert is_clean(refused.error), refused.error


def test_it_is_read_anew_at_each_call_and_a_wrong_file_is_said(ports: Ports, secret: Path) -> None:
    show = "import os; print(len(os.environ['TOKEN']))"

    def length() -> Any:
        return do(ports, CallType.COMMAND, argv=(sys.executable, "-c", show), environment={"TOKEN": NAMED}).result[
            "output"
        ]

    assert length() == len(CANARY)
    secret.write_text("other-value")
    assert length() == len("other-value")
    unknown = do(ports, CallType.HTTP_REQUEST, url="http://127.0.0.1:1", body={"secret": "other"})
    assert "there is no secret 'other' in the configuration's `secrets`" in unknown.error


def test_a_file_that_every_user_can_read_holds_no_secret() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "token"
        file.write_text("value")
        file.chmod(0o644)
        with pytest.raises(PortError, match="may be read by every user: chmod o-r it"):
            LocalSecrets({"x": SecretFile(file)}).value("x")
        assert LocalSecrets({"x": SecretFile(file, may_be_world_readable=True)}).value("x") == "value"
        file.chmod(0o640)
        assert LocalSecrets({"x": SecretFile(file)}).value("x") == "value"


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is empty"), (b"\xff\xfe", "no UTF-8"), (b"x" * 70000, "is longer than")]
)
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(PortError, match=said):
        LocalSecrets({"x": SecretFile(file)}).value("x")
    with pytest.raises(PortError, match="cannot be read: No such file"):
        LocalSecrets({"x": SecretFile(tmp_path / "gone")}).value("x")


def test_a_webhooks_secret_address_and_header(tmp_path: Path, secret: Path) -> None:
    with web() as it:
        secret.write_text(f"{it.base}/hook/CANARY-88")
        channel = Webhook({"secret": "token"}, {"X-Key": {"secret": "token"}})
        ports = ports_of(tmp_path / "s", secrets={"token": SecretFile(secret)}, channels={"ops": channel})
        with capture_logs() as lines:
            done = do(ports, CallType.NOTIFY, channel="ops", message="x")
        assert done.ok, done
        assert it.seen[0].path == "/hook/CANARY-88"
        it.status = 500
        other = ports_of(tmp_path / "t", secrets={"token": SecretFile(secret)}, channels={"ops": channel})
        failed = do(other, CallType.NOTIFY, channel="ops", message="x")
        assert "CANARY-88" not in f"{done} {failed} {lines}"
    for file in (*(tmp_path / "s").rglob("*"), *(tmp_path / "t").rglob("*")):
        assert file.is_dir() or b"CANARY-88" not in file.read_bytes()


def test_what_was_read_once_is_redacted_whoever_says_it_and_so_are_parts_of_an_address(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://me:pass-canary@h/hook/canary-path?k=1")
    (tmp_path / "url").chmod(0o600)
    secrets = LocalSecrets({"url": SecretFile(tmp_path / "url")})
    assert "canary" in secrets.redact("canary")
    said = "404: /hook/canary-path?k=1 and /hook/canary-path for pass-canary at h"
    assert secrets.redact(said) == said, "nobody has read it"
    secrets.value("url")
    assert secrets.redact(said) == "404: [secret url] and [secret url] for [secret url] at h"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.yaml", "db:\n  password: hunter2\n  password: hunter3\n"),
        ("a.yaml", "db: [hunter2\n"),
        ("a.json", '{"db": "hunter2" 1}'),
        ("a.toml", "db = hunter2\n"),
        ("a.ini", "[db hunter2\n"),
        ("a.ini", " password hunter2\n"),
        ("a.service", "[db]\npassword hunter2\n"),
        ("a.service", "[db]\n= hunter2\n"),
        ("a.yaml", "db: {password: hunter2}\n"),
        ("a.json", '{"db": {"password": "hunter2"}}'),
        ("a.toml", "[db]\npassword = 'hunter2'\n"),
        ("a.ini", "[db]\npassword = hunter2\n"),
    ],
)
def test_what_stands_in_a_file_where_a_secret_belongs_is_not_quoted(
    ports: Ports, tmp_path: Path, file: str, content: str
) -> None:
    (tmp_path / file).write_text(content)
    said = look(ports, CallType.CONFIGURATION_IS, file=str(tmp_path / file), set={"db.password": NAMED})
    assert said.answer is not Answer.YES
    assert said.detail
    assert "hunter" not in said.detail


def test_redacting() -> None:
    secrets = {"a": "abc", "longer": "abcdef"}
    assert redacted("x abcdef abc", {"longer": "abcdef"}) == "x [secret longer] abc"
    assert redacted({"abc": ["abcdef", 1, None]}, secrets) == {"[secret a]": ["[secret longer]", 1, None]}
    assert redacted("nothing", {}) == "nothing"
