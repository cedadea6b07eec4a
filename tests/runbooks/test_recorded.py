"""Recorded alerts are read quickly, and read as the strict parser reads them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisors.cli.recorded import read_json
from supervisors.cli.spool import spooled

HARD = (
    "-0", "-0.0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "nan", "-NaN", '"\\ud800"',
    '"\\ud83d\\ude00"', '"a\x01b"', '"\t"', '"\x7f"', '{"a":1,"b":0,"a":2}', "01", "1.", ".5", "+1", "1" * 4300,
    "1" * 4301, "18446744073709551616", "5e-324", "1.7976931348623157e308", "\ufeff{}", "{}\x0b", " {} \n", '"\\u0000"',
    '"\\x"',
    "[1,]", '{"a":1,}', "[" * 199 + "]" * 199, "[" * 500 + "]" * 500, "", " ", "{", "'a'", "\x00{}", "{}\x00", "{} {}",
    '{"a" : [true, false, null]}', "9007199254740993.0", "1.0000000000000000000000000000000000000001", "tru",
    '"\u2028"', '"\ud800"',
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def strictly(text: str) -> str:
    try:
        return repr(json.loads(text))
    except ValueError as bad:
        return str(bad)


def quickly(text: str) -> str:
    try:
        return repr(read_json(text))
    except ValueError as bad:
        return str(bad)


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_what_is_hard_to_read(text: str) -> None:
    assert quickly(text) == strictly(text)
    assert quickly(f'{{"labels": {text}}}') == strictly(f'{{"labels": {text}}}')


@given(JSON, st.booleans(), st.integers(0, 40), st.characters())
@settings(max_examples=150, deadline=None)
def test_whatever_is_written(value: object, is_plain: bool, at: int, odd: str) -> None:
    """Good texts, and those in which one character is another."""
    text = json.dumps(value, ensure_ascii=is_plain)
    assert quickly(text) == strictly(text)
    broken = text[:at] + odd + text[at + 1 :]
    assert quickly(broken) == strictly(broken)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**25), st.integers(-340, 310))
@settings(max_examples=150, deadline=None)
def test_every_bit_of_a_number(bits: int, digits: int, exponent: int) -> None:
    for text in (
        repr(struct.unpack("d", struct.pack("Q", bits))[0]),
        f"{digits}e{exponent}",
        f"0.{digits}",
        f"{digits}",
    ):
        assert quickly(text) == strictly(text)


def test_only_the_alerts_asked_for_are_read(tmp_path: Path) -> None:
    lines = [json.dumps({"received_at": number, "type": f"t{number}"}) for number in range(4)]
    path = tmp_path / "alerts.jsonl"
    path.write_text("\n\n".join([*lines, "no alert"]) + "\n \n")
    with spooled(path) as spool:
        found = list(spool.alerts({1, 3}))
    assert [(one.at, one.facts["type"]) for one in found] == [(1.0, "t1"), (3.0, "t3")]
