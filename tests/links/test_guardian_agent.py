"""The base agent: what nobody recovers is told to people within a second, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack
from guardian_link import Alert, GuardianAgent, Handled
from guardian_link.alerting import AT_ONCE
from tests.links.scripted_daemon import ScriptedDaemon, daemon, obliging
from tests.support.eventually import eventually

TOLD_WITHIN_S = 2.0
"""A second, and as much again for a machine that is busy with other tests; without the fallback it would be five."""
ISSUE = {"type": "COMPONENT_FAILURE", "component": "database", "severity": "HIGH", "message": "gone"}


class Told:
    """An alerting that keeps what it was told."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def __call__(self, alert: Alert) -> None:
        self.alerts.append(alert)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def agent(told: Told) -> Iterator[Callable[..., GuardianAgent]]:
    with ExitStack() as stack:

        def make(address: str | None = None, kind: type[GuardianAgent] = GuardianAgent, **more: Any) -> GuardianAgent:
            return stack.enter_context(kind(address, **({"alerting": told} | more)))

        yield make


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def deciding(outcome: str) -> Callable[[Incoming, int], list[Message]]:
    def script(incoming: Incoming, times: int) -> list[Message]:
        stored, *_ = obliging(incoming, times)
        return [stored, Message(Kind.DECIDED, incoming.message.id, {"outcome": outcome, "reason": "so it is"})]

    return script


def in_time(call: Callable[[], Handled]) -> Handled:
    began = time.monotonic()
    handled = call()
    assert time.monotonic() - began < TOLD_WITHIN_S
    return handled


def test_a_recovery_that_starts_is_told_to_nobody(agent: Callable[..., GuardianAgent], told: Told) -> None:
    with daemon() as (scripted, address):
        handled = agent(address).on_issue(ISSUE)
    assert (handled.outcome, handled.execution_id, handled.is_told, handled.why) == ("run", "x-1", False, "")
    assert scripted.seen[0].body["type"] == "database_connection_failure"
    assert told.alerts == []


@pytest.mark.parametrize("outcome", ["recovery_off", "no_match", "rejected", "cooling"])
def test_what_the_daemon_does_not_recover_is_told(
    agent: Callable[..., GuardianAgent], told: Told, outcome: str
) -> None:
    with daemon(deciding(outcome)) as (_, address):
        handled = in_time(lambda: agent(address).on_issue(ISSUE))
    assert (handled.outcome, handled.is_told, handled.why) == (outcome, True, f"{outcome}: so it is")
    eventually(lambda: told.alerts == [handled.alert])


@pytest.mark.parametrize("outcome", ["queued", "duplicate"])
def test_a_recovery_that_waits_or_runs_already_is_one(
    agent: Callable[..., GuardianAgent], told: Told, outcome: str
) -> None:
    with daemon(deciding(outcome)) as (_, address):
        assert not agent(address).on_issue(ISSUE).is_told
    assert told.alerts == []


def test_a_daemon_that_refuses_is_no_end_of_an_alert(
    agent: Callable[..., GuardianAgent], told: Told, tmp_path: Path
) -> None:
    def refuse(incoming: Incoming, _times: int) -> list[Message]:
        return [nack(incoming.message.id, "forbidden", "not from you", permanent=True)]

    with daemon(refuse) as (_, address):
        one = agent(address, outbox=tmp_path / "outbox.db")
        handled = in_time(lambda: one.on_issue(ISSUE))
    assert (handled.is_told, handled.why) == (True, "forbidden: not from you")
    eventually(lambda: told.alerts == [handled.alert])
    assert one._client is not None
    assert one._client.outbox is not None
    assert [letter.alert for letter in one._client.outbox.dead()] == [handled.alert]


def test_nobody_there_is_told_in_time_and_kept_until_the_daemon_comes(
    agent: Callable[..., GuardianAgent], told: Told, tmp_path: Path
) -> None:
    address = nobody()
    one = agent(address, outbox=tmp_path / "outbox.db")
    handled = [in_time(lambda: one.on_issue(ISSUE)) for _ in range(2)]
    assert [each.is_told for each in handled] == [True, True]
    eventually(lambda: told.alerts == [each.alert for each in handled])
    scripted = ScriptedDaemon(obliging)
    scripted.open(address)
    try:
        ids = {each.alert.id for each in handled}
        eventually(lambda: {message.id for message in scripted.seen} >= ids, within_s=30)
    finally:
        scripted.pump.close()


def test_a_daemon_nobody_knows_of_and_one_that_is_silent_are_told(
    agent: Callable[..., GuardianAgent], told: Told, tmp_path: Path
) -> None:
    unknown = in_time(lambda: agent(state_dir=tmp_path).on_issue(ISSUE))
    assert "is the daemon running?" in unknown.why
    with daemon(lambda *_: []) as (_, address):
        silent = in_time(lambda: agent(address).on_issue(ISSUE))
    eventually(lambda: {alert.id for alert in told.alerts} == {unknown.alert.id, silent.alert.id})


def test_a_daemon_that_stores_and_does_not_decide_is_told(agent: Callable[..., GuardianAgent], told: Told) -> None:
    with daemon(lambda incoming, times: obliging(incoming, times)[:1]) as (_, address):
        handled = in_time(lambda: agent(address).on_issue(ISSUE))
    assert handled.why == "the daemon has it and did not decide in time"
    eventually(lambda: told.alerts == [handled.alert])


def test_an_outbox_that_hangs_holds_nobody_up(agent: Callable[..., GuardianAgent], told: Told, tmp_path: Path) -> None:
    with daemon() as (_, address):
        one = agent(address, outbox=tmp_path / "outbox.db")
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            handled = in_time(lambda: one.on_issue(ISSUE))
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert handled.why == "the alert could not be handed over in time"
        eventually(lambda: told.alerts == [handled.alert])


def test_an_alerting_that_raises_is_said_and_the_log_has_the_alert(
    agent: Callable[..., GuardianAgent], caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True]

    def alerting(_alert: Alert) -> None:
        if broken[0]:
            raise OSError("no route to the pager")

    one = agent(nobody(), alerting=alerting)
    assert one.on_issue(ISSUE | {"severity": "LOW"}).is_told
    eventually(lambda: "no route to the pager" in str(one.trouble))
    assert "ALERT database_connection_failure severity=low" in caplog.text
    broken[0] = False
    one.on_issue(ISSUE | {"severity": "LOW"})
    eventually(lambda: one.trouble is None)


def test_an_alerting_that_blocks_is_bounded_and_the_log_has_the_rest(
    agent: Callable[..., GuardianAgent], caplog: pytest.LogCaptureFixture
) -> None:
    release, begun = threading.Event(), threading.Semaphore(0)

    def alerting(_alert: Alert) -> None:
        begun.release()
        release.wait(60)

    one = agent(nobody(), alerting=alerting)
    low = {"type": "low_thing", "severity": "low"}
    for _ in range(AT_ONCE):
        in_time(lambda: one.on_issue(low))
    in_time(lambda: one.on_issue(low | {"type": "one_too_many"}))
    assert "one_too_many" in caplog.text
    assert f"{AT_ONCE} calls of the alerting are under way" in str(one.trouble)
    assert sum(thread.name == "alerting" for thread in threading.enumerate()) == AT_ONCE
    release.set()
    eventually(lambda: not any(thread.name == "alerting" for thread in threading.enumerate()))
    in_time(lambda: one.on_issue(low))
    assert all(begun.acquire(timeout=10) for _ in range(AT_ONCE + 1))


@pytest.mark.parametrize("issue", [{}, {"type": "x y z"}, None, 7, {"type": "a", "severity": "PURPLE"}])
def test_what_is_no_alert_is_told_as_it_is(agent: Callable[..., GuardianAgent], told: Told, issue: Any) -> None:
    handled = agent(nobody()).on_issue(issue)
    assert handled.is_told
    assert handled.why.startswith("it is no alert: ")
    eventually(lambda: [alert.type for alert in told.alerts] == ["unreadable_issue"])
    assert repr(issue)[:20] in told.alerts[0].message


def test_a_mapping_of_the_users_own_that_raises_is_told(agent: Callable[..., GuardianAgent], told: Told) -> None:
    class Agent(GuardianAgent):
        def map_issue(self, issue: Any) -> Any:
            return {"type": issue["kind"]}

    handled = agent(nobody(), Agent).on_issue({"what": "no kind"})
    assert "'kind'" in handled.why
    eventually(lambda: [alert.type for alert in told.alerts] == ["unreadable_issue"])


@pytest.mark.parametrize(("threshold", "sent"), [("low", 4), ("medium", 3), ("critical", 1)])
def test_from_the_threshold_up_recovery_starts(
    agent: Callable[..., GuardianAgent], told: Told, threshold: str, sent: int
) -> None:
    with daemon() as (scripted, address):
        one = agent(address, severity_threshold=threshold)
        for severity in ("LOW", "medium", "high", "CRITICAL"):
            one.on_issue(ISSUE | {"severity": severity})
    assert len(scripted.seen) == sent
    eventually(lambda: len(told.alerts) == 4 - sent)


def test_a_threshold_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="severity_threshold: 'loud' is not one of low, medium, high, critical"):
        GuardianAgent(severity_threshold="loud")


def test_many_issues_in_asyncio_are_told_together_and_the_loop_stays_free(
    agent: Callable[..., GuardianAgent], told: Told
) -> None:
    async def go(one: GuardianAgent) -> int:
        issues = asyncio.gather(*(one.handle_issue(ISSUE) for _ in range(20)))
        turns = 0
        while not issues.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert all(handled.is_told for handled in await issues)
        return turns

    began = time.monotonic()
    assert asyncio.run(go(agent(nobody()))) > 10
    assert time.monotonic() - began < TOLD_WITHIN_S
    eventually(lambda: len(told.alerts) == 20)
