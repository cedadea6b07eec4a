"""The MQL4 sender without MetaTrader: what it puts on the wire by design (``frames.json``), and its own text compiled
as C++ with stand-ins for MQL4's functions and mql-zmq, over the real libzmq.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge_link.keys import CURVE_OFF, find_key
from bridge_link.pump import Incoming, RouterPump
from bridge_link.wire import ContentType, Kind, Message, decode, nack
from guardian_link.messages import facts_of
from tests.links.guarded import heard, raw_client
from tests.senders.conftest import GetSender
from tests.senders.programs import FOLDER, stored
from tests.system.running import Running

pytestmark = pytest.mark.xdist_group("senders")
FRAMES: list[dict[str, Any]] = json.loads((FOLDER / "mql4" / "frames.json").read_text(encoding="utf-8"))["frames"]


def frames_of(example: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(one) for one in example["frames_hex"]]


@pytest.mark.parametrize("example", FRAMES, ids=[one["name"] for one in FRAMES])
def test_the_frames_mean_the_alert(example: dict[str, Any]) -> None:
    frames = frames_of(example)
    assert all(frame.isascii() for frame in frames)
    assert decode(frames) == Message(Kind.ALERT, example["id"], example["alert"], ContentType.JSON)
    posted = {key: value for key, value in example["post"].items() if value}
    whole = {key: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for key, value in posted.items()}
    assert example["alert"] == whole | {"source": "mt4"}


def test_the_daemon_takes_them(place: Running) -> None:
    address = (place.state / "guardian.address").read_text().strip()
    for example in FRAMES:  # each from a client of its own: no OUTCOME comes between
        with raw_client(address, find_key(None, place.state)) as socket:
            socket.send_multipart(frames_of(example))
            for kind in (Kind.STORED, Kind.DECIDED):
                answer = heard(socket, 20_000)
                assert answer is not None
                assert (answer.kind, answer.id, answer.content_type) == (kind, example["id"], ContentType.JSON), answer
        (alert,) = stored(place, example["id"])
        assert alert["body"] == facts_of(example["alert"])


def lines_of(*alerts: dict[str, str]) -> str:
    """Alerts as the expert reads them."""
    fields = [[one[key] for key in ("type", "service", "severity", "message")] for one in alerts]
    return "".join("\t".join(text.encode("utf-16-be", "surrogatepass").hex() for text in one) + "\n" for one in fields)


def noise(message: str) -> dict[str, str]:
    return {"type": "noise", "service": "", "severity": "low", "message": message}


def test_its_own_text_makes_these_bodies_and_cuts_where_the_limits_are(sender_of: GetSender) -> None:
    texts = {"x" * 9000: "x" * 8192, "行" * 8000: "行" * 5461, "\N{GRINNING FACE}" * 5000: "\N{GRINNING FACE}" * 4096}
    given = lines_of(*(one["post"] for one in FRAMES), *map(noise, texts))
    done = sender_of("mql4").run("bodies", given=given)
    assert done.code == 0, done.errors
    bodies = [line.encode("ascii") for line in done.lines]
    assert bodies[: len(FRAMES)] == [frames_of(one)[4] for one in FRAMES]
    messages = [decode([b"SH1", b"ALERT", b"j", b"mql4-0001", body]).body["message"] for body in bodies[len(FRAMES) :]]
    assert messages == list(texts.values())


def test_its_own_text_is_answered_by_the_real_daemon(sender_of: GetSender, place: Running, key_file: Path) -> None:
    address = (place.state / "guardian.address").read_text().strip()
    alerts = [noise("first \N{GRINNING FACE}"), noise("") | {"type": "no type"}, noise("third")]
    done = sender_of("mql4").run(address, str(key_file), "20", given=lines_of(*alerts))
    assert done.code == 0, (done.lines, done.errors)
    ids, said = zip(*(line.split(" ", 1) for line in done.lines), strict=True)
    assert (said[0], said[2]) == ("no_match", "no_match")
    assert said[1].startswith("refused malformed: type: 'no type' is no name")
    (first,), nothing, (third,) = (stored(place, one) for one in ids)
    assert [first["body"]["message"], nothing, third["body"]["message"]] == [alerts[0]["message"], [], "third"]
    assert first["client"] == "desk"


def test_its_own_text_sends_again_later_and_later_and_when_it_is_told(sender_of: GetSender, tmp_path: Path) -> None:
    """Four times there is no answer; after 6 s of that a new socket; then a refusal for now; then it is stored."""
    heard: list[tuple[float, bytes, str]] = []

    def take(incoming: Incoming) -> None:
        message = incoming.message
        heard.append((time.monotonic(), incoming.peer, message.id))
        decided = {"outcome": "run", "execution_id": "x-1", "reason": ""}
        answers = {
            5: [nack(message.id, "busy", "later", permanent=False, retry_after_ms=600)],
            6: [Message(Kind.STORED, message.id, {"status": "stored"}), Message(Kind.DECIDED, message.id, decided)],
        }
        for answer in answers.get(len(heard), []):
            pump.send(incoming.peer, replace(answer, content_type=message.content_type))

    (tmp_path / "off.key").write_text(CURVE_OFF, encoding="utf-8-sig")
    pump = RouterPump("tcp://127.0.0.1:0", take)
    pump.start()
    try:
        done = sender_of("mql4").run(str(pump.address), str(tmp_path / "off.key"), "30", given=lines_of(noise("one")))
    finally:
        pump.close()
    times, peers, ids = zip(*heard, strict=True)
    assert (done.code, done.lines) == (0, [f"{ids[0]} run x-1"]), done.errors
    assert (len(set(ids)), len(ids)) == (1, 6)
    assert peers[0] == peers[3] != peers[4] == peers[5]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    least = (0.4, 0.8, 1.6, 3.2, 0.6)
    assert all(gap > 0.9 * wanted for gap, wanted in zip(gaps, least, strict=True)), gaps
