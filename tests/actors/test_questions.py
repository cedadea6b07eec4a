"""Questions of clients: bounded, each answered, and a fault of ours is never called the asker's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.iopool import IoPool
from actors.journal.schema import JournalTrouble
from actors.questions import MOST_AT_ONCE, MOST_OF_ONE, BadQuestion, Questions
from bridge_link.wire import Kind, Message
from tests.support.eventually import eventually

QUESTION = Message(Kind.QUERY, "question-1", {"ask": "statistics"})


@pytest.fixture
def io() -> Iterator[IoPool]:
    pool = IoPool()
    yield pool
    pool.close()


def asked(io: IoPool, ask: Callable[[Mapping[str, Any]], Any]) -> Message:
    answers: list[Message] = []
    Questions(io, ask).take("viewer-1", QUESTION, answers.append)
    return eventually(lambda: answers)[0]


def fails(error: Exception) -> Callable[[Mapping[str, Any]], Any]:
    def ask(_question: Mapping[str, Any]) -> Any:
        raise error

    return ask


def test_it_is_answered(io: IoPool) -> None:
    answer = asked(io, lambda question: question["ask"])
    assert (answer.kind, answer.id, answer.body) == (Kind.ANSWER, "question-1", {"ok": True, "result": "statistics"})


def test_a_question_that_is_none_is_refused_for_good(io: IoPool) -> None:
    body = asked(io, fails(BadQuestion("ask for events"))).body
    assert (body["code"], body["text"], body["permanent"]) == ("malformed", "ask for events", True)


@pytest.mark.parametrize("error", [KeyError("seq"), ValueError("odd"), TypeError("no"), JournalTrouble("away")])
def test_whatever_else_goes_wrong_is_asked_again(io: IoPool, error: Exception) -> None:
    body = asked(io, fails(error)).body
    assert (body["code"], body["permanent"]) == ("busy", False)
    assert body["retry_after_ms"] > 0


def test_a_fault_is_logged_with_its_traceback_once_and_a_journal_that_is_away_is_none(io: IoPool) -> None:
    answers: list[Message] = []
    with capture_logs() as logs:
        for error in (KeyError("seq"), JournalTrouble("away")):
            questions = Questions(io, fails(error))
            for _ in range(3):
                before = len(answers)
                questions.take("viewer-1", QUESTION, answers.append)
                eventually(lambda before=before: len(answers) > before)  # type: ignore[misc]
    assert [type(one["exc_info"]) for one in logs] == [KeyError]


def test_a_flood_of_questions_is_told_to_wait_and_others_are_answered(io: IoPool) -> None:
    gate = threading.Event()
    answers: dict[str, list[Message]] = {}

    def ask(_question: Mapping[str, Any]) -> bool:
        return gate.wait(30)

    questions = Questions(io, ask)

    def take(client: str) -> list[Message]:
        got: list[Message] = answers.setdefault(client, [])
        questions.take(client, QUESTION, got.append)
        return got

    try:
        for _ in range(MOST_OF_ONE):
            assert take("flood-1") == []
        (refused,) = take("flood-1")
        assert (refused.body["code"], refused.body["permanent"]) == ("busy", False)
        assert refused.body["retry_after_ms"] > 0
        for number in range(MOST_AT_ONCE - MOST_OF_ONE):
            assert take(f"other-{number}") == []
        (refused,) = take("one too many")
        assert refused.body["code"] == "busy"
    finally:
        gate.set()
    eventually(lambda: len(answers["flood-1"]) == MOST_OF_ONE + 1)
    eventually(lambda: not questions._asked)
    assert asked(io, ask).kind is Kind.ANSWER


def test_a_question_the_pool_does_not_take_is_not_counted(io: IoPool) -> None:
    io.close()
    questions = Questions(io, fails(AssertionError()))
    for _ in range(MOST_OF_ONE + 1):
        with pytest.raises(RuntimeError, match="closed"):
            questions.take("viewer-1", QUESTION, lambda _: None)


def test_an_answer_that_cannot_be_given_frees_its_place(io: IoPool) -> None:
    questions = Questions(io, lambda _: 1)

    def broken(_answer: Message) -> None:
        raise OSError("the link is gone")

    with capture_logs() as logs:
        questions.take("viewer-1", QUESTION, broken)
        eventually(lambda: logs)
        eventually(lambda: not questions._asked)
