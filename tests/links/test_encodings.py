"""Each client is spoken to in its own encoding, and what does not fit in it never vanishes: real links with keys."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from actors.answers import Asker, Refusal, Replies
from actors.bridge_commands import BridgeCommands
from actors.fitting import fitted
from bridge_link.batch import MOST_ALERTS
from bridge_link.errors import WireError
from bridge_link.keys import find_key
from bridge_link.wire import ContentType, Kind, Message, decode, encode, new_id
from runbooks.ports import BridgeAnswer, BridgeRequest, BridgeState, PortError
from tests.links.guarded import raw_client
from tests.recovery.place import Place, recovering

LONG = "行" * 5000
"""15,000 bytes in msgpack, 30,000 in JSON."""
JSON, MSGPACK = ContentType.JSON, ContentType.MSGPACK
Socket = zmq.Socket[bytes]


@dataclass(frozen=True)
class There:
    place: Place
    state: Path


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    state = tmp_path_factory.mktemp("encodings") / "state"
    with recovering(state) as place:
        yield There(place, state)


@pytest.fixture(autouse=True)
def key_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's parts are real ones: keys are found as everywhere."""
    monkeypatch.delenv("SELFHEAL_KEY", raising=False)


@pytest.fixture
def dealer(there: There) -> Iterator[Socket]:
    """A client of the bridge link that sends nothing by itself."""
    with raw_client((there.state / "bridge.address").read_text().strip(), find_key(None, there.state)) as socket:
        yield socket


def say(socket: Socket, kind: Kind, body: dict[str, Any], encoding: ContentType, message_id: str = "") -> str:
    message = Message(kind, message_id or new_id(), body, encoding)
    socket.send_multipart(encode(message))
    return message.id


def hear(socket: Socket) -> Message:
    assert socket.poll(10_000), "nothing came"
    return decode(socket.recv_multipart())


@pytest.fixture
def commands(there: There) -> BridgeCommands:
    """As runbooks have them."""
    return BridgeCommands(there.place.recovery.sessions, lambda _endpoint: True)


@pytest.mark.parametrize("encoding", [JSON, MSGPACK])
@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.HEARTBEAT])
def test_a_command_comes_in_the_encoding_its_endpoint_speaks(
    kind: Kind, encoding: ContentType, dealer: Socket, commands: BridgeCommands
) -> None:
    name, request = f"{kind.name.lower()}-{encoding.name.lower()}", BridgeRequest(f"x-{new_id()}.work.1")
    said = say(dealer, kind, {"name": name, "session": new_id()}, encoding)
    if kind is Kind.HELLO:
        answer = hear(dealer)
        assert (answer.kind, answer.id, answer.content_type) == (Kind.ANSWER, said, encoding)
    with ThreadPoolExecutor() as pool:
        done = pool.submit(commands.command, name, "reconnect", {"to": LONG}, request, 20.0)
        asked = hear(dealer)
        assert (asked.kind, asked.id, asked.content_type) == (Kind.COMMAND, request.id, encoding)
        assert (asked.body["command"], asked.body["parameters"]) == ("reconnect", {"to": LONG})
        say(dealer, Kind.REPLY, {"state": "done", "result": "connected"}, encoding, request.id)
        assert done.result(20) == BridgeAnswer(BridgeState.DONE, "connected", "connected")


def test_a_command_that_fits_into_msgpack_only_is_refused_at_once_to_who_speaks_json(
    dealer: Socket, commands: BridgeCommands
) -> None:
    parameters = {"one": LONG, "two": LONG, "three": LONG}
    say(dealer, Kind.HELLO, {"name": "narrow", "session": "session-narrow"}, JSON)
    assert hear(dealer).kind is Kind.ANSWER
    began = time.monotonic()
    with pytest.raises(PortError, match="'load' cannot be sent to it: the body has 90"):
        commands.command("narrow", "load", parameters, BridgeRequest("x-narrow.work.1"), 60.0)
    assert time.monotonic() - began < 30, "it was waited for"
    say(dealer, Kind.HELLO, {"name": "narrow", "session": "session-narrow"}, MSGPACK)
    assert hear(dealer).kind is Kind.ANSWER
    with ThreadPoolExecutor() as pool:
        done = pool.submit(commands.command, "narrow", "load", parameters, BridgeRequest("x-narrow.work.1"), 20.0)
        asked = hear(dealer)
        assert (asked.body["parameters"], asked.body["asked_before"]) == (parameters, False)
        say(dealer, Kind.REPLY, {"state": "done"}, MSGPACK, asked.id)
        assert done.result(20).state is BridgeState.DONE


@pytest.mark.parametrize(("encoding", "rows"), [(JSON, 2), (MSGPACK, 4)])
def test_an_answer_that_does_not_fit_comes_with_fewer_rows(dealer: Socket, encoding: ContentType, rows: int) -> None:
    ids = [f"{encoding.name.lower()}-{n:04}" for n in range(8)]
    for one in ids:
        say(dealer, Kind.ALERT, {"type": "noise", "message": LONG}, encoding, one)
        kinds = {hear(dealer).kind, hear(dealer).kind}
        assert kinds == {Kind.STORED, Kind.DECIDED}, one
    asked = say(dealer, Kind.QUERY, {"ask": "alerts", "limit": 6}, encoding)
    answer = hear(dealer)
    assert (answer.kind, answer.id, answer.content_type) == (Kind.ANSWER, asked, encoding)
    assert (answer.body["ok"], answer.body["is_cut"]) == (True, True)
    assert [one["id"] for one in answer.body["result"]] == ids[: -1 - rows : -1], "the newest"


def test_what_is_cut_and_what_cannot_be() -> None:
    def answered(result: Any) -> Message:
        return decode(fitted(Message(Kind.ANSWER, "question-1", {"ok": True, "result": result}, JSON)))

    assert answered([1, 2]).body == {"ok": True, "result": [1, 2]}
    steps = answered({"id": "x-1", "steps": [LONG] * 4, "few": [1, 2]})
    assert steps.body == {"ok": True, "result": {"id": "x-1", "steps": [LONG] * 2, "few": [1, 2]}, "is_cut": True}
    for hopeless in ({str(number): LONG for number in range(9)}, [{str(number): LONG for number in range(9)}]):
        refusal = answered(hopeless)
        assert (refusal.kind, refusal.id, refusal.content_type) == (Kind.NACK, "question-1", JSON)
        assert (refusal.body["code"], refusal.body["permanent"]) == ("too_large", True)
        assert refusal.body["text"].startswith("the answer cannot be sent in json: ")
    with pytest.raises(WireError):
        fitted(Message(Kind.COMMAND, "command-1", {"to": LONG * 3}, JSON))


@pytest.mark.parametrize("encoding", [JSON, MSGPACK])
def test_a_row_that_no_message_holds_keeps_no_other_from_going(encoding: ContentType) -> None:
    def answered(result: Any) -> Message:
        return decode(fitted(Message(Kind.ANSWER, "question-1", {"ok": True, "result": result}, encoding)))

    deep: Any = "deep"
    for _ in range(300):
        deep = [deep]
    bad: dict[str, Any] = {"NUL \0": "half \ud800", "large": 2**70, "endless": float("inf"), "of ours": b"bytes"}
    shown = {"NUL �": "half ?", "large": str(2**70), "endless": "inf", "of ours": "b'bytes'"}
    good = [{"id": number} for number in range(3)]
    assert answered([bad, *good]).body == {"ok": True, "result": [shown, *good]}, "cleaned, and no row is missing"
    assert answered({"rows": [bad, *good]}).body == {"ok": True, "result": {"rows": [shown, *good]}}
    (depths, *others) = answered([{"labels": deep}, *good]).body["result"]
    assert "…" in str(depths)
    assert others == good
    long = answered({"text": "行" * 9000}).body["result"]["text"]
    assert long.startswith("行" * 5000)
    assert long.endswith("…")
    giant = {str(number): "x" * 16_000 for number in range(9)}
    for rows in ([giant, *good], [*good, giant]):
        assert answered(rows).body == {"ok": True, "result": good, "is_cut": True}
    assert answered({"rows": [giant, *good]}).body == {"ok": True, "result": {"rows": good}, "is_cut": True}


@pytest.mark.parametrize("encoding", [JSON, MSGPACK])
@pytest.mark.parametrize("letter", ["行", "\N{GRINNING FACE}", "\x01", "x"])
def test_the_answers_about_many_alerts_fit_whatever_their_reasons_hold(letter: str, encoding: ContentType) -> None:
    sent: list[Message] = []

    class Pump:
        def send(self, _peer: bytes, message: Message) -> None:
            sent.append(message)

        def send_frames(self, answers: Iterable[tuple[bytes, list[bytes]]]) -> None:
            sent.extend(decode(frames) for _, frames in answers)

    replies, pump = Replies(), Pump()
    ids = [f"{n:064}" for n in range(MOST_ALERTS)]
    for one in ids:
        asker = Asker(pump, b"peer", one, "batch-0001", encoding)
        replies.refused(asker, Refusal("malformed", letter * 9000, permanent=True))
        replies.decided(asker, {"outcome": "queued", "execution_id": "x" * 18, "reason": letter * 9000})
    replies.decided(Asker(pump, b"peer", "alert-0001", None, encoding), {"outcome": "run", "reason": letter * 9000})
    replies.send()
    by_kind = {(one.kind, one.id): one.body for one in sent}
    refused, decided = by_kind[Kind.STORED, "batch-0001"]["refused"], by_kind[Kind.DECIDED, "batch-0001"]["decided"]
    assert (list(refused), list(decided)) == (ids, ids)
    least = 20
    assert all(told["text"].startswith(letter * least) for told in refused.values())
    assert all(told["reason"].startswith(letter * least) for told in decided.values())
    assert by_kind[Kind.DECIDED, "alert-0001"]["reason"] == letter * 4000
