"""Many calls at once in asyncio: alerts are kept first, none waits for another, the loop's own threads stay free."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message
from guardian_link import Alert, AsyncGuardianClient, AutomatedRecoverySystem, DaemonUnreachable, GuardianAgent
from guardian_link.async_calls import AT_ONCE, apart
from guardian_link.errors import OutcomeTimeout
from guardian_link.outbox import Outbox
from tests.links.scripted_daemon import daemon, obliging, together
from tests.links.test_guardian_agent import nobody
from tests.support.eventually import eventually

ALERT = {"type": "service_failure", "service": "risk-manager"}
MANY = 100
LONG_S = 30.0


async def until(look: Callable[[], object]) -> None:
    await apart(lambda: eventually(look, within_s=LONG_S))


@contextmanager
def no_default_threads() -> Iterator[ThreadPoolExecutor]:
    """The loop's own pool, of one thread, which is taken."""
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        pool.submit(release.wait, LONG_S)
        try:
            yield pool
        finally:
            release.set()


def running(incoming: Incoming, times: int) -> list[Message]:
    """An execution never ends."""
    if incoming.message.kind is Kind.QUERY:
        return [Message(Kind.ANSWER, incoming.message.id, {"ok": True, "result": {"status": "running"}})]
    return obliging(incoming, times)


def test_every_recovery_that_is_awaited_is_on_disk_before_one_waits(tmp_path: Path) -> None:
    async def go(system: AutomatedRecoverySystem, box: Outbox) -> list[object]:
        with no_default_threads() as pool:
            recoveries = [asyncio.ensure_future(system.execute_recovery(f"e{n}", ALERT)) for n in range(MANY)]
            await until(lambda: len(box) == MANY)
            assert not any(one.done() for one in recoveries)
            assert pool._work_queue.qsize() == 0, "the loop's own threads are other people's"
            system.close()
            return await asyncio.gather(*recoveries, return_exceptions=True)

    box = Outbox(tmp_path / "outbox.db")
    with AutomatedRecoverySystem(nobody(), outbox=tmp_path / "outbox.db", timeout_s=LONG_S) as system:
        found = asyncio.run(go(system, box))
    assert {type(one) for one in found} == {DaemonUnreachable}
    assert [one.dedup_key for one in box.waiting(MANY)] == [f"e{n}" for n in range(MANY)], "in the order of the calls"
    box.close()


def test_a_recovery_whose_caller_is_cancelled_is_kept_all_the_same(tmp_path: Path) -> None:
    async def go(system: AutomatedRecoverySystem) -> None:
        tasks = [asyncio.ensure_future(system.execute_recovery(f"e{n}", ALERT)) for n in range(MANY)]
        await asyncio.sleep(0)
        for one in tasks:
            one.cancel()
        assert {type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}

    with AutomatedRecoverySystem(nobody(), outbox=tmp_path / "outbox.db") as system:
        asyncio.run(go(system))
    box = Outbox(tmp_path / "outbox.db")
    assert len(box) == MANY
    box.close()


def test_all_that_are_awaited_are_on_their_way_at_once(tmp_path: Path) -> None:
    """None is decided before the last one has come: whoever waited for another's decision would wait for ever."""

    async def go(system: AutomatedRecoverySystem, guardian: AsyncGuardianClient) -> None:
        half = MANY // 2
        recoveries = [system.execute_recovery(f"e{n}", ALERT) for n in range(half)]
        async with guardian:
            sent = [guardian.send(ALERT) for _ in range(half)]
            found = await asyncio.gather(*recoveries, *sent)
        assert found[:half] == ["x-1"] * half
        assert [one.execution_id for one in found[half:]] == ["x-1"] * half  # type: ignore[union-attr]

    with (
        daemon(together(MANY)) as (_, address),
        AutomatedRecoverySystem(address, outbox=tmp_path / "outbox.db", timeout_s=LONG_S) as system,
    ):
        asyncio.run(go(system, AsyncGuardianClient(address, timeout_s=LONG_S)))
        assert system._client is not None
        assert system._client.outbox is not None
        system._client._desk.close()  # what has been answered is noted with the round that answered
        assert len(system._client.outbox) == 0


def test_whoever_waits_for_an_end_holds_up_no_alert_and_is_let_go(tmp_path: Path) -> None:
    async def go(guardian: AsyncGuardianClient) -> list[BaseException | object]:
        with no_default_threads():
            waits = [asyncio.ensure_future(guardian.wait(f"x-{n}", LONG_S * 2)) for n in range(AT_ONCE + 8)]
            await asyncio.sleep(0)
            began = time.monotonic()
            assert (await guardian.send(ALERT)).execution_id == "x-1"
            assert await guardian.post(ALERT)
            assert await guardian.get_recovery_statistics() == {"status": "running"}
            await guardian.close()
            assert time.monotonic() - began < LONG_S / 3
            return await asyncio.gather(*waits, return_exceptions=True)

    with daemon(running) as (_, address):
        found = asyncio.run(go(AsyncGuardianClient(address, outbox=tmp_path / "outbox.db", timeout_s=LONG_S)))
    assert {type(one) for one in found} == {DaemonUnreachable}


def test_the_time_of_a_wait_counts_from_its_call() -> None:
    async def go(guardian: AsyncGuardianClient) -> list[object]:
        async with guardian:
            waits = [guardian.wait(f"x-{n}", 1.5) for n in range(AT_ONCE * 3)]
            return await asyncio.gather(*waits, return_exceptions=True)

    with daemon(running) as (_, address):
        began = time.monotonic()
        found = asyncio.run(go(AsyncGuardianClient(address, timeout_s=LONG_S)))
    assert time.monotonic() - began < 1.5 * 2.5, "a third of them at a time would take three times as long"
    assert {type(one) for one in found} == {OutcomeTimeout}
    assert {str(one)[-12:] for one in found} == {"within 1.5 s"}


def test_a_stream_needs_none_of_the_loops_threads() -> None:
    async def go(guardian: AsyncGuardianClient) -> None:
        with no_default_threads():
            async with guardian, asyncio.timeout(LONG_S), guardian.subscribe(after=0) as stream:
                assert stream.trouble is None

    with daemon(lambda *_: []) as (_, address):
        asyncio.run(go(AsyncGuardianClient(address)))


def test_every_issue_of_a_crowd_is_told_in_time() -> None:
    """Nobody is there. What waited for its turn behind the others' decisions was told seconds later."""
    told: dict[str, float] = {}
    count = 200

    async def go(agent: GuardianAgent) -> None:
        issues = (ALERT | {"severity": "high", "message": str(n)} for n in range(count))
        handled = await asyncio.gather(*map(agent.handle_issue, issues))
        assert {(one.is_told, one.outcome) for one in handled} == {(True, None)}

    def tell(alert: Alert) -> None:
        told[alert.message] = time.monotonic()

    with GuardianAgent(nobody(), alerting=tell) as agent:
        began = time.monotonic()
        asyncio.run(go(agent))
        assert set(told) == {str(n) for n in range(count)}
        assert max(told.values()) - began < 2.0, "a second, and as much again for a busy machine"
