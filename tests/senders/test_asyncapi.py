"""``docs/wire.asyncapi.yaml`` is whole and describes what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from bridge_link.wire import Kind
from runbooks.matching import Outcome

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
    assert {one.value for one in Outcome} <= set(SCHEMAS["DECISION"]["properties"]["outcome"]["enum"])
    vectors = json.loads((ROOT / "tests/links/golden.json").read_text(encoding="utf-8"))
    for vector in vectors["messages"]:
        assert problems(vector["kind"], vector["body"]) == [], vector["name"]
    codes = {vector["code"] for vector in vectors["refused"]}
    assert codes <= set(SCHEMAS["NACK"]["properties"]["code"]["enum"])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("ALERT", {"type": 7}),
        ("ALERTS", {"alerts": {}}),
        ("STORED", {"status": "perhaps"}),
        ("DECIDED", {"decided": {"alert-001": {"outcome": "perhaps"}}}),
        ("NACK", {"code": "busy"}),
        ("EVENT", {"seq": 0}),
    ],
)
def test_what_it_does_not_describe_is_found(kind: str, body: dict[str, Any]) -> None:
    assert problems(kind, body)


def problems(kind: str, body: dict[str, Any]) -> list[str]:
    schema = {"$ref": f"#/components/schemas/{kind}", "components": DOCUMENT["components"]}
    return [error.message for error in Draft7Validator(schema).iter_errors(body)]
