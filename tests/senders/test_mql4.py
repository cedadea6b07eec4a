"""What the MQL4 sender puts on the wire by design (``frames.json``): there is no MetaTrader here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge_link.keys import find_key
from bridge_link.wire import ContentType, Kind, Message, decode
from guardian_link.messages import facts_of
from tests.links.guarded import heard, raw_client
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
    for example in FRAMES:
        with raw_client(address, find_key(None, place.state)) as socket:
            socket.send_multipart(frames_of(example))
            for kind in (Kind.STORED, Kind.DECIDED):
                answer = heard(socket, 20_000)
                assert answer is not None
                assert (answer.kind, answer.id, answer.content_type) == (kind, example["id"], ContentType.JSON), answer
        (alert,) = stored(place, example["id"])
        assert alert["body"] == facts_of(example["alert"])
