from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.plan import bind, resolved
from runbooks.templating import BadTemplate, fill, fill_argv, has_stray_brace, placeholders
from tests.runbooks.files import COMMAND, GOOD, runbook

NASTY = [
    "x; touch OWNED",
    "$(id)",
    "`id`",
    "a && b",
    "%PATH%",
    "{other}",
    "{{service}}",
    "' OR 1",
    '"',
    "a b",
    "|",
    "\\",
]
texts = st.sampled_from(NASTY) | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(texts)
def test_a_value_stays_one_item_and_is_never_looked_at_again(value: str) -> None:
    values = {"service": value, "other": "SECRET"}
    assert fill_argv(("prog", "--name={service}", "{other}"), values) == ("prog", f"--name={value}", "SECRET")


@pytest.mark.parametrize("value", NASTY)
def test_a_program_gets_the_very_text(value: str) -> None:
    argv = fill_argv((sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", "{service}"), {"service": value})
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.strip() == ascii([value])


def test_types_braces_and_urls() -> None:
    values = {"port": 8080, "on": True, "name": "a/b?c#d @"}
    assert fill("{port}", values) == 8080
    assert fill("p{port} {on} {{port}}", values) == "p8080 true {port}"
    filled = fill({"url": "http://h:{port}/{name}", "body": {"port": "{port}", "list": ["{name}"]}}, values)
    assert filled == {
        "url": "http://h:8080/a%2Fb%3Fc%23d%20%40",
        "body": {"port": 8080, "list": ("a/b?c#d @",)},
    }
    assert list(placeholders({"a": ["{x}{y}", {"b": "{{z}}"}]})) == ["x", "y"]
    assert has_stray_brace("{Name}")
    assert not has_stray_brace("{name} {{")


def test_an_option_cannot_be_smuggled_in() -> None:
    with pytest.raises(BadTemplate, match="read as an option"):
        fill_argv(("rm", "{service}"), {"service": "-rf"})
    assert fill_argv(("kill", "{n}"), {"n": -9}) == ("kill", "-9")


def test_a_name_without_a_value_is_an_error() -> None:
    with pytest.raises(BadTemplate, match="gone"):
        fill("x{gone}", {})


def test_bound_plans_hold_no_placeholder() -> None:
    plan = bind(runbook(GOOD, actions=[*GOOD["actions"], COMMAND]), {"service": "a"})
    assert plan.target == "service:a"
    plan = resolved(plan)
    assert list(placeholders([str(plan.actions), str(plan.success_criteria)])) == []
    assert plan.actions[1].call is not None
    assert plan.actions[1].call.arguments["argv"] == ("echo", "a")


@pytest.mark.parametrize("item", ["{x}", "{x}.log", "{y}{x}"])
def test_no_value_makes_an_item_an_option(item: str) -> None:
    with pytest.raises(BadTemplate, match="would be read as an option"):
        fill_argv(("rm", item), {"x": "-rf", "y": ""})
    assert fill_argv(("rm", item, "--x={x}", "-{x}"), {"x": "a", "y": ""})[2:] == ("--x=a", "-a")


@pytest.mark.parametrize(("url", "value"), [("http://h/{x}", ".."), ("http://h/a/{x}/b", "."), ("http://h/{x}.", ".")])
def test_no_value_leads_upwards_in_an_address(url: str, value: str) -> None:
    with pytest.raises(BadTemplate, match="another place"):
        fill({"url": url}, {"x": value})


def test_half_a_character_stands_in_no_address() -> None:
    with pytest.raises(BadTemplate, match="half a character"):
        fill({"url": "http://h/?q={x}&"}, {"x": "\ud800"})


def test_an_address_may_hold_steps_of_its_own_and_values_with_dots() -> None:
    assert fill({"url": "http://h/../{x}?{x}"}, {"x": "a..b"}) == {"url": "http://h/../a..b?a..b"}
    assert fill({"url": "http://h/{x}"}, {"x": "../b"}) == {"url": "http://h/..%2Fb"}
