"""The quick way from a dictionary to an alert's facts says what the thorough one says, whatever came before."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from guardian_link import messages
from guardian_link.messages import Alert, BadAlert, facts_of

TEXTS = st.sampled_from(
    ["service_failure", "web", "high", "HIGH", " low ", "COMPONENT_FAILURE", "x y", "", "a" * 600, "a" * 9000]
)
VALUES = TEXTS | st.sampled_from([None, 0, 1, True, 1.5, [], ["web"], {}, {"state": "firing"}, {"a": None}])
KEYS = st.sampled_from(
    ["type", "service", "severity", "message", "source", "dedup_key", "labels", "system", "error_message"]
)
GOOD = st.fixed_dictionaries(
    {"type": st.sampled_from(["service_failure", "other"]), "service": st.sampled_from(["web", "db"])},
    optional={"severity": st.sampled_from(["low", "high"]), "labels": st.just({"state": "firing"}), "message": TEXTS},
)


def said(raw: Any) -> object:
    try:
        return facts_of(raw)
    except BadAlert as bad:
        return str(bad)


def said_thoroughly(raw: Any) -> object:
    try:
        return Alert.from_mapping(raw, id="any-id-will-do").to_body()
    except BadAlert as bad:
        return str(bad)


@given(st.lists(GOOD | st.dictionaries(KEYS, VALUES) | VALUES, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_the_quick_way_says_what_the_thorough_one_says(raws: list[Any]) -> None:
    for raw in [*raws, *raws]:  # the second time its names are known
        assert repr(said(raw)) == repr(said_thoroughly(raw))


def test_names_are_remembered_within_bounds() -> None:
    for number in range(messages.MOST_NAMES + 10):
        facts_of({"type": "service_failure", "service": f"s{number}"})
    facts_of({"type": "service_failure", "service": "web", "source": "x" * 1000})
    assert 0 < len(messages._known_names) <= messages.MOST_NAMES
    assert all(len(source) < 1000 for *_, source in messages._known_names)
