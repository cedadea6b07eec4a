"""What is decided about a type whatever was before is what the decider would say, and nothing else is so decided."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.deciding.words import History, Outcome
from runbooks.matching import decide, foregone
from runbooks.model import Runbook
from runbooks.parse import SHIPPED, Library, load_library
from runbooks.predicates import types_asked
from tests.runbooks.files import runbook

SHIPPED_BOOKS = load_library((SHIPPED,))
ASKED = sorted(set().union(*(types_asked(one.match) for one in SHIPPED_BOOKS.runbooks)))
OF_ANY_TYPE = runbook(match={"field": "/service", "op": "eq", "value": "a"})
MORE = {"service": st.sampled_from(["a", "b"]), "severity": st.sampled_from(["low", "critical"]), "message": st.text()}


@given(st.sampled_from([*ASKED, "noise", "", "service_failure "]), st.fixed_dictionaries({}, optional=MORE))
def test_it_is_what_the_decider_says(kind: str, more: dict[str, Any]) -> None:
    said = foregone(kind, SHIPPED_BOOKS)
    if said is not None:
        assert said == decide({"type": kind, **more}, SHIPPED_BOOKS, History(), 1.0)
        assert said.outcome is Outcome.NO_MATCH
    assert (said is None) == (kind in ASKED)


def test_a_runbook_for_alerts_of_any_type_leaves_nothing_foregone() -> None:
    books = Library((*SHIPPED_BOOKS.runbooks, OF_ANY_TYPE))
    assert decide({"type": "noise", "service": "a"}, books, History(), 1.0).outcome is Outcome.RUN
    assert foregone("noise", books) is None


def test_without_runbooks_it_says_so() -> None:
    said = foregone("noise", Library())
    assert said == decide({"type": "noise"}, Library(), History(), 1.0)
    assert said is not None
    assert said.reason == "there are no runbooks"


def test_rules_that_break_are_left_to_the_decider_which_says_it() -> None:
    class Broken:
        @property
        def runbooks(self) -> tuple[Runbook, ...]:
            raise LookupError("a broken shelf")

    assert foregone("noise", Broken()) is None
    assert decide({"type": "noise"}, Broken(), History(), 1.0).outcome is Outcome.REJECTED


@pytest.mark.parametrize("kind", ["service_failure", "bridge_mql4_failure"])
def test_the_shipped_runbooks_are_never_passed_by(kind: str) -> None:
    assert foregone(kind, SHIPPED_BOOKS) is None
