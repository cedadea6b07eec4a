"""The daemon answers once what lived before it is taken on, and never keeps anybody waiting for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest

from actors.board import Board, NodeKind, NodeState, NodeStatus
from actors.ledger import ManualStop, Phase, Proof, ServiceRecord
from supervisors.api.app import create_app
from supervisors.opening import Opening, expected
from tests.outside.fake_manager import FakeManager
from tests.support.eventually import eventually

LONG_S = 30.0
PROOF = Proof(1.0, 2.0, "boot")


def status(path: str, state: NodeState) -> NodeStatus:
    return NodeStatus(path, NodeKind.SERVICE, state)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def opening(board: Board) -> Iterator[Opening]:
    made = Opening(board, ["a", "b"], limit_s=LONG_S)
    yield made
    made.close()


def test_it_opens_when_all_that_lived_is_settled(board: Board, opening: Opening) -> None:
    for state in (NodeState.STOPPED, NodeState.WAITING, NodeState.STARTING):
        board.publish(status("a", state))
    board.publish(status("a", NodeState.READY))
    for state in (NodeState.STOPPED, NodeState.WAITING, NodeState.STARTING):  # stopped: not started yet
        board.publish(status("b", state))
    assert not opening.is_open.is_set()
    board.publish(status("b", NodeState.UNKNOWN))
    assert opening.is_open.is_set()


def test_nobody_waits_for_long(board: Board) -> None:
    opening = Opening(board, ["a"], limit_s=0.05)
    eventually(opening.is_open.is_set, within_s=LONG_S)


def test_where_nothing_lived_it_is_open_at_once(board: Board) -> None:
    assert Opening(board, []).is_open.is_set()


def test_only_what_was_ready_and_is_wanted_is_waited_for() -> None:
    ready = ServiceRecord("ready", phase=Phase.LAUNCHED, proof=PROOF)
    records = {
        "ready": ready,
        "unproven": ServiceRecord("unproven", phase=Phase.LAUNCHED),
        "ended": ServiceRecord("ended", phase=Phase.EXITED, proof=PROOF),
        "stopped": ServiceRecord("stopped", phase=Phase.LAUNCHED, proof=PROOF, stopped=ManualStop("ann", 1.0)),
        "paused": ServiceRecord("paused", phase=Phase.LAUNCHED, proof=PROOF, paused=ManualStop("ann", 1.0)),
        "gone": ServiceRecord("gone", phase=Phase.LAUNCHED, proof=PROOF),
    }
    assert expected(records, records.keys() - {"gone"}) == {"ready"}


def test_requests_wait_until_it_is_open() -> None:
    is_open = threading.Event()

    async def ask() -> int:
        transport = httpx.ASGITransport(create_app(FakeManager(), is_open))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            asked = asyncio.create_task(client.get("/v1/tree"))
            done, _ = await asyncio.wait({asked}, timeout=0.3)
            assert not done
            is_open.set()
            return (await asked).status_code

    assert asyncio.run(ask()) == 200
