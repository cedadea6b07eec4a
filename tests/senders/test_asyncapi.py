"""``docs/wire.asyncapi.yaml`` is whole and describes what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
import zmq
from jsonschema import Draft7Validator

from bridge_link import BridgeClient
from bridge_link.wire import Kind, Message
from runbooks.matching import Outcome
from runbooks.model import Status
from runbooks.ports import BridgeRequest, BridgeState
from tests.bridge.desk import desk
from tests.links.guarded import heard, raw_client, said
from tests.support.eventually import eventually
from tests.support.plain_links import key_file

__all__ = ["key_file"]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "wire.asyncapi.yaml").read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_every_kind_is_described_and_no_other() -> None:
    kinds = {kind.value.decode() for kind in Kind}
    assert set(DOCUMENT["components"]["messages"]) == kinds
    channels = [set(channel["messages"]) for channel in DOCUMENT["channels"].values()]
    assert sorted(kind for channel in channels for kind in channel) == sorted(kinds)
    spoken = [ref for operation in DOCUMENT["operations"].values() for ref in references(operation["messages"])]
    assert sorted(ref.rpartition("/")[2] for ref in spoken) == sorted(kinds)


def test_outcomes_and_golden_bodies_are_described() -> None:
    assert {one.value for one in Outcome} == set(SCHEMAS["DECISION"]["properties"]["outcome"]["enum"])
    vectors = json.loads((ROOT / "tests/links/golden.json").read_text(encoding="utf-8"))
    for vector in vectors["messages"]:
        if not vector["body"]:  # can be read, and says nothing
            assert problems(vector["kind"], vector["body"]), vector["name"]
            continue
        assert problems(vector["kind"], vector["body"]) == [], vector["name"]
    ends = {one.value for one in Status if one.is_terminal}
    assert ends == set(SCHEMAS["OUTCOME"]["properties"]["status"]["enum"])
    codes = {vector["code"] for vector in vectors["refused"]}
    assert codes <= set(SCHEMAS["NACK"]["properties"]["code"]["enum"])


def test_the_pages_lists_are_whole() -> None:
    page = " ".join((ROOT / "docs" / "wire.md").read_text(encoding="utf-8").split())

    def listed(begin: str, end: str) -> list[str]:
        words = page.partition(begin)[2].partition(end)[0]
        return sorted(words.replace("at its end ", "").replace(" or ", ", ").split(", "))

    assert listed('"reason": TEXT}`; outcome is ', ";") == sorted(one.value for one in Outcome)
    assert listed("An execution's status is ", ". ") == sorted(one.value for one in Status)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("ALERT", {"type": 7}),
        ("ALERTS", {"alerts": {}}),
        ("STORED", {"status": "perhaps"}),
        ("DECIDED", {"decided": {"alert-001": {"outcome": "perhaps"}}}),
        ("NACK", {"code": "busy"}),
        ("EVENT", {"seq": 0}),
        ("QUERY", {"ask": "events", "after": -1}),
        ("QUERY", {"ask": "execution"}),
        ("QUERY", {"ask": "weather"}),
        ("HELLO", {"name": "mql4"}),
        ("HELLO", {"name": "mql4", "session": "s", "commands": "all"}),
        ("CMD", {"command": "work", "parameters": {}}),
        ("CMD", {"ask": True, "asked_before": True, "command": "work"}),
        ("CMD", {"command": "work", "parameters": {}, "instead_of": ["short"], "asked_before": False}),
        ("REPLY", {"state": "perhaps"}),
        ("REPLY", {"state": "failed", "error": 130}),
        ("ANSWER", {"ok": False}),
        ("OUTCOME", {"execution_id": "x-1", "status": "running"}),
    ],
)
def test_what_it_does_not_describe_is_found(kind: str, body: dict[str, Any]) -> None:
    assert problems(kind, body)


def problems(kind: str, body: dict[str, Any]) -> list[str]:
    schema = {"$ref": f"#/components/schemas/{kind}", "components": DOCUMENT["components"]}
    return [error.message for error in Draft7Validator(schema).iter_errors(body)]


def test_what_a_real_endpoint_and_the_daemon_say_to_each_other_is_described() -> None:
    with desk() as daemon, raw_client(daemon.address, None) as mql4:
        with BridgeClient(daemon.address, name="python", commands={"work": lambda _: 7}, facts=lambda: {"n": 1}):
            request = BridgeRequest("x-0001.work.2", ("x-0001.work.1",))
            ended = daemon.commands.command("python", "work", {"n": [1, None]}, request, 20.0)
            assert ended.text == "7"
            eventually(lambda: {one.kind for one in daemon.heard} >= {Kind.HELLO, Kind.HEARTBEAT, Kind.REPLY})
            for one in daemon.heard:
                assert problems(one.kind.value.decode(), dict(one.body)) == [], one
        said(mql4, Kind.HELLO, {"name": "mql4", "session": "session-1"})
        assert answered(mql4, Kind.ANSWER).body == {"ok": True, "result": {"is_configured": False}}
        with ThreadPoolExecutor() as pool:
            request = BridgeRequest("x-0002.work.1")
            for ask in (lambda: daemon.asked(request), lambda: daemon.order(request, n=1)):
                waits = pool.submit(ask)
                assert answered(mql4, Kind.COMMAND).id == "x-0002.work.1"
                said(mql4, Kind.REPLY, {"state": "done"}, "x-0002.work.1")
                assert waits.result(20).state is BridgeState.DONE


def answered(socket: zmq.Socket[bytes], kind: Kind) -> Message:
    message = heard(socket, 20_000)
    assert message is not None
    assert message.kind is kind
    assert problems(kind.value.decode(), dict(message.body)) == []
    return message
