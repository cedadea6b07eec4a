"""Both ends of a link over real sockets: lost answers, restarts, refusals, and an end that never hangs."""

from __future__ import annotations

import asyncio
import enum
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from bridge_link import BridgeClient, CommunicationBridge
from bridge_link.channel import _Socket
from bridge_link.client import find_address
from bridge_link.errors import BadAddress, BindFailed, LinkTimeout
from bridge_link.pump import Incoming, RouterPump
from bridge_link.wire import Kind, Message, decode, encode, nack, new_id
from guardian_link import (
    Alert,
    AlertRefused,
    AsyncGuardianClient,
    AutomatedRecoverySystem,
    DaemonUnreachable,
    GuardianClient,
    OutcomeTimeout,
    Severity,
)
from guardian_link.errors import OutboxFull
from tests.links.scripted_daemon import ScriptedDaemon, daemon, obliging
from tests.support.eventually import eventually


def alert(**changes: Any) -> Alert:
    return Alert(**({"type": "service_failure", "service": "risk-manager"} | changes))


def test_send_waits_for_the_disk_and_for_the_decision() -> None:
    with daemon() as (_, address), GuardianClient(address) as guardian:
        ack = guardian.send(alert())
    assert (ack.status, ack.execution_id) == ("stored", "x-1")
    assert ack.decision is not None
    assert ack.decision.outcome == "run"


def test_trap_2_the_sender_may_come_first_and_the_daemon_may_restart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    with GuardianClient(address) as guardian:
        ids = [guardian.post(alert()) for _ in range(20)]
        first = ScriptedDaemon(lambda incoming, _: obliging(incoming, 1) if incoming.message.id in ids[:10] else [])
        first.open(address)
        eventually(lambda: {one.id for one in first.seen} >= set(ids[:10]))
        first.pump.close()
        second = ScriptedDaemon(obliging)
        second.open(address)
        try:
            eventually(lambda: {one.id for one in second.seen} >= set(ids[10:]), within_s=20)
        finally:
            second.pump.close()


def test_trap_2_a_lost_acknowledgement_is_asked_for_again() -> None:
    def forgetful(incoming: Incoming, times: int) -> list[Message]:
        return obliging(incoming, times) if times >= 2 else []

    with daemon(forgetful) as (scripted, address), GuardianClient(address) as guardian:
        ack = guardian.send(alert(), timeout_s=10)
    assert ack.status == "duplicate"
    assert len(scripted.seen) == 2


def test_a_decision_that_does_not_come_in_time_is_none() -> None:
    def undecided(incoming: Incoming, times: int) -> list[Message]:
        return obliging(incoming, times)[:1]

    with daemon(undecided) as (_, address), GuardianClient(address) as guardian:
        ack = guardian.send(alert(), timeout_s=0.3)
    assert (ack.status, ack.decision, ack.execution_id) == ("stored", None, None)


def test_the_same_alert_sent_by_several_threads_is_answered_to_each() -> None:
    same = alert()
    with daemon() as (_, address), GuardianClient(address) as guardian, ThreadPoolExecutor(4) as pool:
        acks = list(pool.map(guardian.send, [same] * 4))
    assert [ack.execution_id for ack in acks] == ["x-1"] * 4


def test_trap_9_a_permanent_refusal_is_final_and_the_next_alert_flows() -> None:
    bad = alert()

    def picky(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.id == bad.id:
            return [nack(bad.id, "conflict", "another body under this id", permanent=True)]
        return obliging(incoming, times)

    with daemon(picky) as (scripted, address), GuardianClient(address) as guardian:
        with pytest.raises(AlertRefused, match="another body under this id"):
            guardian.send(bad)
        assert guardian.send(alert()).status == "stored"
    assert len(scripted.seen) == 2


def test_a_busy_daemon_is_asked_again_when_it_said() -> None:
    def busy_once(incoming: Incoming, times: int) -> list[Message]:
        if times == 1:
            return [nack(incoming.message.id, "busy", "later", permanent=False, retry_after_ms=50)]
        return obliging(incoming, times)

    with daemon(busy_once) as (scripted, address), GuardianClient(address) as guardian:
        assert guardian.send(alert()).status == "duplicate"
    assert len(scripted.seen) == 2


def test_trap_3_a_wedged_daemon_is_noticed_although_its_heartbeats_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq's own thread goes on answering: only the missing acknowledgement shows it."""
    goes_on = threading.Event()

    def wedged(incoming: Incoming, times: int) -> list[Message]:
        goes_on.wait(30)
        return obliging(incoming, times)

    with daemon(wedged) as (scripted, address), GuardianClient(address) as guardian:
        monkeypatch.setattr("bridge_link.channel.SILENCE_S", 0.3)
        with pytest.raises(DaemonUnreachable, match=f"{address}: no answer within 1 s"):
            guardian.send(alert(), timeout_s=1.0)
        goes_on.set()
        assert guardian.send(alert(), timeout_s=20).decision is not None
        assert scripted.pump.counters.failed == 0


def test_nobody_there_is_said_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    with GuardianClient(address) as guardian, pytest.raises(DaemonUnreachable, match=address):
        guardian.send(alert(), timeout_s=0.2)


def test_trap_5_closing_with_nobody_there_does_not_hang() -> None:
    guardian = GuardianClient("tcp://127.0.0.1:9")
    guardian.post(alert())
    began = time.monotonic()
    guardian.close()
    assert time.monotonic() - began < 2


def test_trap_9_a_wrong_message_is_answered_and_the_link_goes_on() -> None:
    with daemon() as (scripted, address), zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(address)
        raw.send_multipart([b"SH1", b"ALERT", b"m", b"0123456789abcdef", b"\xc1"])
        assert raw.poll(5000)
        refusal = decode(raw.recv_multipart())
        assert (refusal.kind, refusal.id, refusal.body["permanent"]) == (Kind.NACK, "0123456789abcdef", True)
        raw.send_multipart([b"junk"])
        raw.send_multipart([b"x"] * 50)
        message = Message(Kind.ALERT, new_id(), alert().to_body())
        raw.send_multipart(encode(message))
        eventually(lambda: message.id in {one.id for one in scripted.seen})
        assert scripted.pump.counters.malformed == 3


@pytest.mark.parametrize("encoding", [b"m", b"j"])
def test_a_refusal_comes_in_the_encoding_of_what_it_refuses(encoding: bytes) -> None:
    with daemon() as (_, address), zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(address)
        raw.send_multipart([b"SH1", b"ALERT", encoding, b"0123456789abcdef", b"\xc1"])
        assert raw.poll(5000)
        assert raw.recv_multipart()[2] == encoding


def test_an_oversized_alert_gets_a_permanent_refusal() -> None:
    with daemon() as (scripted, address), zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(address)
        raw.send_multipart([b"SH1", b"ALERT", b"j", b"0123456789abcdef", b'{"type": "' + b"x" * 70_000 + b'"}'])
        assert raw.poll(5000)
        refusal = decode(raw.recv_multipart())
        assert (refusal.kind, refusal.body["code"], refusal.body["permanent"]) == (Kind.NACK, "too_large", True)
        assert scripted.seen == []


def test_an_oversized_frame_ends_that_peer_only() -> None:
    with daemon() as (_, address), zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(address)
        raw.send_multipart([b"SH1", b"ALERT", b"m", b"0123456789abcdef", b"x" * 10_000_000])
        with GuardianClient(address) as guardian:
            assert guardian.send(alert()).status == "stored"


def test_trap_7_an_answer_to_a_peer_that_is_gone_does_not_end_the_pump() -> None:
    with daemon() as (scripted, address):
        scripted.pump.send(b"nobody", Message(Kind.STORED, new_id(), {}))
        eventually(lambda: scripted.pump.counters.unroutable == 1)
        with GuardianClient(address) as guardian:
            assert guardian.send(alert()).status == "stored"


def test_a_handler_that_raises_is_counted_and_the_pump_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(incoming: Incoming, times: int) -> list[Message]:
        if times == 1:
            raise RuntimeError("handler broke")
        return obliging(incoming, times)

    with daemon(broken) as (scripted, address), GuardianClient(address) as guardian:
        assert guardian.send(alert(), timeout_s=10).status == "duplicate"
        assert scripted.pump.counters.failed == 1
    assert "handler broke" in caplog.text


def test_an_answer_that_is_too_large_is_named_in_the_log_and_not_written_out(caplog: pytest.LogCaptureFixture) -> None:
    with daemon() as (scripted, _):
        scripted.pump.send(
            b"nobody", Message(Kind.ANSWER, "too-large-1", {"result": "x" * 16_000, "rest": ["y"] * 5000})
        )
        eventually(lambda: scripted.pump.counters.failed == 1)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "ANSWER too-large-1" in line
    assert len(line) < 500


def test_a_taken_port_is_named() -> None:
    with daemon() as (_, address):
        second = RouterPump(address, lambda _: None)
        with pytest.raises(BindFailed, match=address):
            second.start()
        assert not second.is_alive


@pytest.mark.parametrize(
    "address",
    ["tcp://0.0.0.0:5570", "tcp://*:5570", "tcp://10.1.2.3:1", "ipc:///x", "127.0.0.1:5570", "tcp://127.0.0.1"],
)
def test_only_loopback_addresses_are_taken(address: str) -> None:
    with pytest.raises(BadAddress):
        RouterPump(address, lambda _: None).start()
    with pytest.raises(BadAddress):
        GuardianClient(address)


def test_wait_hears_the_outcome_and_says_when_it_does_not_come() -> None:
    state = {"status": "running"}

    def slow(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.kind is Kind.QUERY:
            return [Message(Kind.ANSWER, incoming.message.id, {"ok": True, "result": {"id": "x-1", **state}})]
        return obliging(incoming, times)

    with daemon(slow) as (scripted, address), GuardianClient(address) as guardian:
        guardian.send(alert())
        with pytest.raises(OutcomeTimeout, match="x-1"):
            guardian.wait("x-1", timeout_s=0.2)
        state["status"] = "rolled_back"
        outcome = guardian.wait("x-1", timeout_s=5)
        assert (outcome.status, outcome.is_recovered) == ("rolled_back", False)
        assert scripted.seen


def test_a_pushed_outcome_is_heard_at_once() -> None:
    peers: list[bytes] = []

    def pushing(incoming: Incoming, times: int) -> list[Message]:
        peers.append(incoming.peer)
        if incoming.message.kind is Kind.QUERY:
            outcome = {"execution_id": "x-1", "status": "succeeded", "detail": "back"}
            still = {"ok": True, "result": {"id": "x-1", "status": "running"}}
            return [Message(Kind.ANSWER, incoming.message.id, still), Message(Kind.OUTCOME, new_id(), outcome)]
        return obliging(incoming, times)

    with daemon(pushing) as (_, address), GuardianClient(address) as guardian:
        assert guardian.wait("x-1", timeout_s=5).detail == "back"
    assert len(peers) == 1


def test_the_seeds_own_snippet_works_with_one_changed_import() -> None:
    class RiskAgent:
        def __init__(self, address: str) -> None:
            self.recovery_system = AutomatedRecoverySystem(address)

        async def handle_alert(self, alert_data: Mapping[str, Any]) -> str | None:
            return await self.recovery_system.execute_recovery(alert_data["error_id"], alert_data)

    test_alert = {
        "error_id": "db_connection_test",
        "error_message": "Database connection failed",
        "system": "database",
        "service_name": "api_server",
    }
    with daemon() as (scripted, address):
        agent = RiskAgent(address)
        assert asyncio.run(agent.handle_alert(test_alert)) == "x-1"
        assert agent.recovery_system.get_recovery_statistics()["total_executions"] == 3
        status = agent.recovery_system.get_execution_status("x-1")
        assert status is not None
        assert status["status"] == "succeeded"
        agent.recovery_system.close()
    body = scripted.seen[0].body
    assert (body["type"], body["service"], body["message"], body["dedup_key"]) == (
        "database_connection_failure",
        "api_server",
        "Database connection failed",
        "db_connection_test",
    )


def test_the_asyncio_client_does_the_same() -> None:
    async def go(address: str) -> str | None:
        async with AsyncGuardianClient(address) as guardian:
            ack = await guardian.send(alert())
            outcome = await guardian.wait("x-1", timeout_s=5)
            assert outcome.is_recovered
            return ack.execution_id

    with daemon() as (_, address):
        assert asyncio.run(go(address)) == "x-1"


def test_the_bridge_mixin_hands_errors_over_and_beats() -> None:
    class Bridge(CommunicationBridge):
        bridge_name = "mql4"

    with daemon() as (scripted, address):
        bridge = Bridge()
        bridge.bridge_address = address
        error = {"system": "mql4", "error_code": 4051, "error_message": "Invalid function parameter value"}
        assert bridge.handle_bridge_error("MQL4Error", error) == "x-1"
        eventually(lambda: any(one.kind is Kind.HEARTBEAT and one.body["name"] == "mql4" for one in scripted.seen))
        assert bridge._bridge_client is not None
        bridge._bridge_client.close()


def test_a_bridge_error_nobody_takes_is_said() -> None:
    error = {"system": "mql4", "error_message": "x"}
    with (
        daemon(lambda *_: []) as (_, address),
        BridgeClient(address, name="mql4") as bridge,
        pytest.raises(LinkTimeout),
    ):
        bridge.send_error(error, timeout_s=0.2)


def test_a_command_is_answered_under_its_id_and_run_once() -> None:
    command = Message(Kind.COMMAND, new_id(), {"command": "reconnect", "parameters": {"symbol": "EURUSD"}})
    ran: list[Mapping[str, Any]] = []

    def commanding(incoming: Incoming, _: int) -> list[Message]:
        return [command] if incoming.message.kind is Kind.HEARTBEAT else []

    def reconnect(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        ran.append(parameters)
        return {"did": parameters["symbol"]}

    def replies() -> list[Message]:
        return [one for one in scripted.seen if one.kind is Kind.REPLY]

    with (
        daemon(commanding) as (scripted, address),
        BridgeClient(address, name="mql4", commands={"reconnect": reconnect}, beat_every_s=0.05),
    ):
        eventually(lambda: len([one for one in replies() if one.body["state"] == "done"]) > 3)
    assert ran == [{"symbol": "EURUSD"}]
    assert {one.id for one in replies()} == {command.id}
    assert replies()[-1].body == {"state": "done", "result": {"did": "EURUSD"}}


def test_where_an_address_is_looked_for(tmp_path: Path) -> None:
    assert find_address("guardian", "tcp://127.0.0.1:1", tmp_path, {}) == "tcp://127.0.0.1:1"
    assert find_address("guardian", None, None, {"SELFHEAL_GUARDIAN": "tcp://127.0.0.1:2"}) == "tcp://127.0.0.1:2"
    (tmp_path / "guardian.address").write_text("tcp://127.0.0.1:3\n")
    assert find_address("guardian", None, tmp_path, {}) == "tcp://127.0.0.1:3"
    assert find_address("guardian", None, None, {"SELFHEAL_STATE": str(tmp_path)}) == "tcp://127.0.0.1:3"
    with pytest.raises(BadAddress, match=str(tmp_path / "bridge.address")):
        find_address("bridge", None, tmp_path, {})


def test_impatient_questions_do_not_hide_a_dead_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives up before the silence is long enough for a new socket; together they are."""
    monkeypatch.setattr("bridge_link.channel.SILENCE_S", 1.0)
    opened: list[None] = []
    original = _Socket.open

    def counting(link: _Socket, fileno: int) -> Any:
        opened.append(None)
        return original(link, fileno)

    monkeypatch.setattr(_Socket, "open", counting)
    with daemon(lambda *_: []) as (_, address), GuardianClient(address, timeout_s=0.1) as guardian:

        def is_made_anew() -> bool:
            with pytest.raises(DaemonUnreachable):
                guardian.statistics()
            channel = guardian._reach._channel
            eventually(lambda: channel is not None and not channel._pending)  # it is given up before the next comes
            return len(opened) > 1

        eventually(is_made_anew)


def test_a_posted_alert_follows_a_daemon_that_moves(tmp_path: Path) -> None:
    """Without an outbox too: it is known where the daemon is now, not where it was."""
    file = tmp_path / "guardian.address"
    with daemon(lambda *_: []) as (deaf, old), daemon() as (scripted, new):
        file.write_text(old)
        with GuardianClient(state_dir=tmp_path, timeout_s=0.3) as guardian:
            alert_id = guardian.post(alert())
            eventually(lambda: deaf.seen)
            file.write_text(new)

            def is_there() -> bool:
                with suppress(DaemonUnreachable):  # it looks again where the daemon is when it is asked something
                    guardian.statistics()
                return alert_id in {one.id for one in scripted.seen}

            eventually(is_there, within_s=20)
            eventually(lambda: guardian.unacknowledged == 0)


def test_without_an_outbox_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardian_link.client.MOST_POSTED", 3)
    with daemon(lambda *_: []) as (_, address), GuardianClient(address) as guardian:
        for _ in range(3):
            guardian.post(alert())
        with pytest.raises(OutboxFull, match="3 alerts wait already"):
            guardian.post(alert())


def test_the_platforms_class_keeps_what_the_daemon_does_not_take(tmp_path: Path) -> None:
    late: list[Alert] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    box = tmp_path / "outbox.db"
    with AutomatedRecoverySystem(address, outbox=box, on_late=late.append, timeout_s=0.1) as system:
        with pytest.raises(DaemonUnreachable):
            asyncio.run(system.execute_recovery("silent", {"service_name": "a"}))
        eventually(lambda: [one.dedup_key for one in late] == ["silent"])
    with daemon() as (scripted, there), AutomatedRecoverySystem(there, outbox=box) as system:
        assert system.trigger_recovery({"constraint_type": "cpu_usage_limit"}) == "x-1"
        eventually(lambda: {one.body.get("dedup_key") for one in scripted.seen} >= {"silent"})
        assert system.wait("x-1").is_recovered


def test_an_objects_constraint_is_read_with_its_enums() -> None:
    class Limit(enum.Enum):
        POSITION = "position_limit"

    class Violation:
        constraint_type = Limit.POSITION
        severity = Severity.CRITICAL
        message = "too long"

    with daemon() as (scripted, address), GuardianClient(address) as guardian:
        assert guardian.handle_constraint_violation(Violation()) == "x-1"
    body = scripted.seen[0].body
    assert (body["type"], body["severity"], body["message"]) == ("position_limit_exceeded", "critical", "too long")
