"""Patterns come from files, texts from outside: no pattern may cost more than a moment, whatever the text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks import patterns
from runbooks.model import FieldTest, Op
from runbooks.patterns import BadPattern, check_pattern, finds, fits
from runbooks.predicates import MATCHED_CHARS, holds
from tests.runbooks.files import GOOD, changed, problems

CATASTROPHIC = (r"(a+)+$", r"(a|a)*b", r"(.*a){25}!", r"(\w+\s?)*!", r"(a*)*b", r"(x+x+)+y", r".{1000}z")
EVIL = "a" * MATCHED_CHARS


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_no_pattern_stalls_a_decision(pattern: str) -> None:
    """Python's own engine needs longer than the age of the universe for most of these."""
    check_pattern(pattern)
    began = time.perf_counter()
    holds(FieldTest("/message", Op.MATCHES, pattern), {"message": EVIL})
    assert time.perf_counter() - began < 2


@settings(deadline=None)  # the limit below is the one meant
@given(st.sampled_from(["a", "a*", "[ab]", "(a|b)", "a{1,30}", ".", "(.*)"]), st.integers(1, 40))
def test_what_is_taken_is_quick(part: str, times: int) -> None:
    pattern = f"({part})" * times + "!"
    try:
        check_pattern(pattern)
    except BadPattern:
        return
    began = time.perf_counter()
    finds(pattern, EVIL)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing )"),
        (r"(a)\1", "no back references"),
        ("(?=a)", "no look-around"),
        ("a{1001}", "repetition"),
        (r"(\pL{1,50}){1,20}", "too large"),
        ("a" * 1001, "more than 1000 characters"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_file_is_read(pattern: str, why: str) -> None:
    with pytest.raises(BadPattern, match=re.escape(why)):
        check_pattern(pattern)
    raw = changed("/match", {"field": "/message", "op": "matches", "value": pattern})
    assert why in problems(raw)["/match"]
    raw = changed("/parameters/service/pattern", pattern)
    assert why in problems(raw)["/parameters/service/pattern"]


def test_finding_ignores_case_and_fitting_does_not() -> None:
    assert finds("connection FAILED", "the Connection failed")
    assert finds("ÜBER", "über")
    assert fits("[a-z]+", "abc")
    assert not fits("[a-z]+", "ABC")
    assert not fits("[a-z]+", "abc\n")
    assert not fits("abc", "abcd")


@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_any_text_can_be_searched(text: str) -> None:
    assert finds("", text)
    assert finds("x", text + "x")


def test_a_pattern_is_compiled_once() -> None:
    finds("just this one", "a")
    before = patterns._compiled.cache_info().misses
    finds("just this one", "b")
    assert patterns._compiled.cache_info().misses == before


def test_the_good_file_stays_good() -> None:
    assert problems(GOOD) == {}
