"""Golden vectors both ways: each language reads what we write, and we read what it writes, in both encodings alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge_link.wire import MAGIC, Kind, decode
from tests.senders.conftest import GetSender
from tests.senders.programs import EXACT_NUMBERS, LANGUAGES, MSGPACK_TOO, SPEAKING

pytestmark = pytest.mark.xdist_group("senders")
FILE = Path(__file__).resolve().parents[1] / "links" / "golden.json"
TEXTS = {
    "odd letters": 'Ü 行情 😀 \\ " / \b \f \n \r \t \x01 \x7f',
    "256 bytes, a str16": "é" * 128,
    "much": "行" * 5000,
}


def vectors(language: str) -> list[dict[str, Any]]:
    """In the order of the file, those a language can read."""
    messages: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["messages"]
    return [one for one in messages if one["content_type"] == "j" or language in MSGPACK_TOO]


@pytest.mark.parametrize("language", LANGUAGES)
def test_trap_25_golden_vectors_are_read_and_written(language: str, sender_of: GetSender) -> None:
    done = sender_of(language).run("--golden", str(FILE))
    assert done.code == 0, done.errors
    wanted = vectors(language)
    assert len(done.lines) == len(wanted) >= 12
    for line, vector in zip(done.lines, wanted, strict=True):
        kind, message_id, *bodies = line.split(" ")
        written = dict(zip((b"m", b"j"), bodies, strict=True))
        if language not in MSGPACK_TOO:
            assert written.pop(b"m") == "-"
        if language not in EXACT_NUMBERS and "whole numbers" in vector["name"]:
            continue
        for encoding, body in written.items():
            message = decode([MAGIC, kind.encode(), encoding, message_id.encode(), bytes.fromhex(body)])
            assert (message.kind.value.decode(), message.id) == (vector["kind"], vector["id"])
            assert message.body == vector["body"], (vector["name"], encoding)


@pytest.mark.parametrize(("language", "encoding"), SPEAKING)
@pytest.mark.parametrize("name", TEXTS)
def test_trap_25_the_frames_of_an_alert(language: str, encoding: str, name: str, sender_of: GetSender) -> None:
    words = ("--type", "service_failure", "--service", "a", "--message", TEXTS[name], "--id", "golden-0002", encoding)
    done = sender_of(language).run(*words, "--frames")
    assert done.code == 0, done.errors
    message = decode([bytes.fromhex(line) for line in done.lines])
    assert (message.kind, message.id, f"--{message.content_type.name.lower()}") == (Kind.ALERT, "golden-0002", encoding)
    body = dict(message.body)
    assert body.pop("source")
    assert body == {"type": "service_failure", "service": "a", "severity": "high", "message": TEXTS[name]}
