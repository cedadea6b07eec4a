from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model import AllOf, AnyOf, FieldTest, Not, Op, Parameter, ParameterType
from runbooks.parameters import BadParameter, checked, resolve
from runbooks.predicates import MISSING, holds, pointed, specificity, why_not

FACTS: dict[str, Any] = {"type": "a", "n": 95, "flag": True, "labels": {"x/y": "z", "list": [1, 2]}, "none": None}


@pytest.mark.parametrize(
    ("field", "op", "value", "is_so"),
    [
        ("/type", Op.EQ, "a", True),
        ("/type", Op.NE, "b", True),
        ("/type", Op.IN, ["b", "a"], True),
        ("/n", Op.GE, 95, True),
        ("/n", Op.GT, 95, False),
        ("/n", Op.LE, 95, True),
        ("/n", Op.LT, 95, False),
        ("/type", Op.MATCHES, "^A$", True),
        ("/n", Op.MATCHES, "9", False),
        ("/type", Op.GE, 1, False),
        ("/flag", Op.EQ, 1, False),
        ("/flag", Op.GE, 1, False),
        ("/labels/x~1y", Op.EQ, "z", True),
        ("/labels/list/1", Op.EQ, 2, True),
        ("/labels/list/2", Op.EXISTS, False, True),
        ("/none", Op.EXISTS, True, False),
        ("/gone", Op.NE, "b", False),
        ("/gone", Op.EXISTS, False, True),
        ("/type/deeper", Op.EQ, "a", False),
    ],
)
def test_comparisons(field: str, op: Op, value: Any, is_so: bool) -> None:
    assert holds(FieldTest(field, op, value), FACTS) is is_so
    assert (why_not(FieldTest(field, op, value), FACTS) == "") is is_so


def test_joining() -> None:
    yes, no = FieldTest("/type", Op.EQ, "a"), FieldTest("/type", Op.EQ, "b")
    assert holds(AllOf((yes, Not(no))), FACTS)
    assert not holds(AllOf((yes, no)), FACTS)
    assert holds(AnyOf((no, yes)), FACTS)
    assert specificity(AllOf((yes, AnyOf((yes, AllOf((yes, yes))))))) == 2
    assert why_not(AllOf((yes, no)), FACTS) == "/type is 'a', wanted eq 'b'"
    assert "is missing" in why_not(FieldTest("/gone", Op.EQ, 1), FACTS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, st.text().map(lambda text: "/" + text), st.sampled_from([Op.EQ, Op.NE, Op.EXISTS]), json_values)
def test_no_alert_makes_it_raise(facts: Any, pointer: str, op: Op, value: Any) -> None:
    assert holds(FieldTest(pointer, op, value), facts) in (True, False)
    pointed(facts, pointer)


def test_a_pointer_finds_nothing_in_a_text() -> None:
    assert pointed("text", "/0") is MISSING


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (ParameterType.SERVICE, "risk-manager", "x; touch OWNED"),
        (ParameterType.SERVICE, "a.b_c", "-rf"),
        (ParameterType.SERVICE, "a", "a\n"),
        (ParameterType.HOST, "127.0.0.1", "evil/path@host"),
        (ParameterType.INTEGER, 5, True),
        (ParameterType.INTEGER, -5, "5"),
        (ParameterType.NUMBER, 1.5, "1.5"),
        (ParameterType.BOOLEAN, False, 0),
        (ParameterType.STRING, "any text; $(really)", "nul\x00"),
        (ParameterType.STRING, "", "line\nbreak"),
    ],
)
def test_types(kind: ParameterType, good: Any, bad: Any) -> None:
    assert checked(Parameter("p", kind), good) == good
    with pytest.raises(BadParameter, match="'p'"):
        checked(Parameter("p", kind), bad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_below_no_limit_and_above_none_is_no_number(bad: float) -> None:
    for kind in (ParameterType.NUMBER, ParameterType.DURATION):
        with pytest.raises(BadParameter, match="is no"):
            checked(Parameter("p", kind, minimum=0, maximum=100), bad)


def test_limits_and_absence() -> None:
    number = Parameter("n", ParameterType.INTEGER, "/n", minimum=1, maximum=9)
    for bad in (0, 10):
        with pytest.raises(BadParameter):
            resolve((number,), {"n": bad})
    choice = Parameter("c", ParameterType.STRING, "/c", required=True, choices=("a", "b"), pattern="[a-z]")
    assert resolve((number, choice), {"c": "a", "n": 5}) == {"c": "a", "n": 5}
    for facts in ({}, {"c": None}, {"c": ""}, {"c": "z"}):
        with pytest.raises(BadParameter):
            resolve((choice,), facts)
    assert resolve((Parameter("d", ParameterType.STRING, "/d", default="x"), number), {}) == {"d": "x"}
