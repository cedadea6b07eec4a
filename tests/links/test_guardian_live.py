"""Guardian's side against the real daemon: the platform's words, its own alerts, and events through a kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pykka
import pytest
import zmq

from bridge_link.keys import ClientKey, read_key_file
from bridge_link.sockets import make_subscriber
from guardian_link import (
    Alert,
    AlertRefused,
    AsyncGuardianClient,
    AutomatedRecoverySystem,
    BadAlert,
    Event,
    GuardianAgent,
    GuardianClient,
    GuardianLinkActor,
    Handled,
)
from guardian_link.link_messages import ExecuteRecovery, Reply, Subscribe, WaitForExecution
from guardian_link.mapping import TYPE_OF_CONSTRAINT
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running, daemon, write_config

pytestmark = pytest.mark.timeout(180)
SERVICES = (
    "risk-manager",
    "reporter",
    "gui-gateway",
    "telemetry-daemon",
    "signal-generator",
    "transport-router",
    "calendar-ingestor",
)
"""Each test that recovers one has its own: the same trouble twice is one."""


@pytest.fixture(autouse=True)
def key_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is a real one: its local key is found in its state directory."""
    monkeypatch.delenv("SELFHEAL_KEY", raising=False)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guardian")
    with daemon(write_config(folder, dict.fromkeys(SERVICES, SLEEPER)), folder / "state") as running:
        running.until_ready()
        yield running


@pytest.fixture
def guardian(live: Running) -> Iterator[GuardianClient]:
    with GuardianClient(state_dir=live.state, timeout_s=20) as client:
        yield client


def until(stream: Any, **wanted: Any) -> list[Event]:
    """Events up to and with the one that has these values (of its own or its evidence)."""
    found: list[Event] = []
    while True:
        event = stream.get(30)
        assert event is not None, f"{wanted} did not come: {[one.text for one in found]}"
        found.append(event)
        if all(event.evidence.get(key, getattr(event, key, None)) == value for key, value in wanted.items()):
            return found


def test_an_alert_is_followed_from_its_decision_to_its_end(guardian: GuardianClient) -> None:
    with guardian.subscribe() as events:
        ack = guardian.send({"type": "COMPONENT_FAILURE", "component": "reporter", "severity": "HIGH", "message": "!"})
        found = until(events, event="execution_ended", execution_id=ack.execution_id)
    assert [one.seq for one in found] == list(range(found[0].seq, found[-1].seq + 1))
    words = [(one.event, one.evidence.get("status")) for one in found if ack.execution_id in one.evidence.values()]
    assert words == [("alert_decided", None), ("execution_started", None), ("execution_ended", "succeeded")]
    decided = found[0].evidence
    assert (decided["alert"], decided["outcome"], decided["service"]) == (ack.id, "run", "reporter")
    assert {"restart", "started", "ready"} <= {one.event for one in found if one.path == "root/services/reporter"}


def test_a_service_that_dies_and_comes_back_is_heard(live: Running, guardian: GuardianClient) -> None:
    path = "root/services/telemetry-daemon"
    with guardian.subscribe(topics=(path,)) as events:
        os.kill(live.pid("telemetry-daemon"), signal.SIGKILL)
        found = until(events, event="ready")
    assert [one.event for one in found] == ["exited", "restarting", "started", "ready"]
    assert found[0].evidence["signal"] == "9"
    assert {one.path for one in found} == {path}


def test_the_platforms_words_on_the_blocking_client(guardian: GuardianClient) -> None:
    error_data = {"error_message": "no heartbeat", "system": "service", "service_name": "risk-manager"}
    execution_id = guardian.execute_recovery("risk_silent", error_data)
    assert execution_id is not None
    assert guardian.wait(execution_id, timeout_s=60).is_recovered
    status = guardian.get_execution_status(execution_id)
    assert status is not None
    assert (status["runbook"], status["status"], status["target"]) == (
        "service_failure",
        "succeeded",
        "service:risk-manager",
    )
    figures = guardian.get_recovery_statistics()
    assert figures["total_executions"] >= 1
    assert figures["auto_execution_enabled"] is True
    assert guardian.get_execution_status("x-nobody") is None


def test_the_platforms_words_on_the_asyncio_client(live: Running) -> None:
    async def go() -> None:
        async with AsyncGuardianClient(state_dir=live.state, timeout_s=20) as guardian:
            async with guardian.subscribe(topics=("execution_ended",)) as events:
                execution_id = await guardian.execute_recovery("gui", {"service_name": "gui-gateway"})
                assert execution_id is not None
                ended = await asyncio.wait_for(anext(events), 60)
            assert ended.evidence["execution_id"] == execution_id
            assert (await guardian.wait(execution_id)).is_recovered
            status = await guardian.get_execution_status(execution_id)
            assert status is not None
            assert status["status"] == "succeeded"
            assert (await guardian.get_recovery_statistics())["total_executions"] >= 1
            with pytest.raises(BadAlert, match="severity"):
                await guardian.send({"type": "MODE_CHANGE", "severity": "PURPLE"})

    asyncio.run(go())


def test_service_down_is_answered_by_service_failure(guardian: GuardianClient) -> None:
    violation = {"constraint_type": "service_availability", "service": "signal-generator", "severity": "high"}
    execution_id = guardian.handle_constraint_violation(violation)
    assert execution_id is not None
    status = guardian.get_execution_status(execution_id)
    assert status is not None
    assert status["runbook"] == "service_failure"
    assert guardian.wait(execution_id).is_recovered


@pytest.mark.parametrize("kind", sorted(TYPE_OF_CONSTRAINT))
def test_every_constraint_is_taken_as_its_type(live: Running, guardian: GuardianClient, kind: str) -> None:
    with AutomatedRecoverySystem(state_dir=live.state, timeout_s=20) as system, guardian.subscribe() as events:
        system.trigger_recovery({"constraint_type": kind, "id": f"of {kind}", "description": "too much"})
        found = until(events, event="alert_decided", type=TYPE_OF_CONSTRAINT[kind])
    assert found[-1].evidence["severity"] == "high"


def test_guardians_mode_change_is_taken_as_it_is(guardian: GuardianClient) -> None:
    mode_change = {"timestamp": "2026-01-01T00:00:00", "type": "MODE_CHANGE", "message": "safe", "severity": "MEDIUM"}
    with guardian.subscribe() as events:
        alert_id = guardian.post(mode_change)
        found = until(events, alert=alert_id)
    assert (found[-1].evidence["type"], found[-1].evidence["outcome"]) == ("mode_change", "observed")


def test_recovery_off_is_an_event_and_the_agent_tells_people(live: Running, guardian: GuardianClient) -> None:
    told: list[Alert] = []
    with guardian.subscribe() as events, GuardianAgent(state_dir=live.state, alerting=told.append) as agent:
        live.call("recovery", "off")
        try:
            handled = agent.on_issue({"type": "service_failure", "service": "gui-gateway"})
        finally:
            live.call("recovery", "on")
        found = [one.event for one in until(events, event="recovery on")]
    assert (handled.outcome, handled.execution_id, handled.is_told) == ("recovery_off", None, True)
    eventually(lambda: [one.id for one in told] == [handled.alert.id])
    assert [word for word in found if word.startswith(("recovery", "alert"))] == [
        "recovery off",
        "alert_decided",
        "recovery on",
    ]


def test_the_agent_starts_a_recovery_and_tells_nobody(live: Running) -> None:
    class Agent(GuardianAgent):
        def map_issue(self, issue: Any) -> Any:
            return {"type": "service_failure", "service": issue["component"], "severity": issue["level"]}

    told: list[Alert] = []

    async def go(agent: GuardianAgent) -> list[Handled]:
        issues = ({"component": "transport-router", "level": level} for level in ("low", "medium"))
        return await asyncio.gather(*map(agent.handle_issue, issues))

    with Agent(state_dir=live.state, alerting=told.append) as agent, GuardianClient(state_dir=live.state) as client:
        below, above = asyncio.run(go(agent))
        assert above.execution_id is not None, above
        client.wait(above.execution_id)
    assert (above.outcome, above.is_told) == ("run", False)
    assert (below.outcome, below.is_told, below.why) == (None, True, "below the threshold medium")
    assert [one.severity for one in told] == ["low"]


def test_another_programs_actor_has_a_service_recovered(live: Running) -> None:
    told: list[Any] = []
    link, listener = GuardianLinkActor.start(state_dir=live.state), Listener.start(told)
    try:
        link.tell(ExecuteRecovery("by an actor", {"service_name": "calendar-ingestor"}, listener, "start"))
        started = eventually(lambda: told and told[0], within_s=30)
        assert isinstance(started, Reply)
        assert (started.tag, started.error) == ("start", None)
        link.tell(WaitForExecution(started.result, listener, tag="end"))
        assert eventually(lambda: len(told) > 1 and told[1], within_s=60).result.status == "succeeded"
    finally:
        link.stop()
        listener.stop()


def test_where_everything_is(live: Running, guardian: GuardianClient) -> None:
    where = guardian._ask({"ask": "where"})
    names = ("guardian", "bridge", "events")
    assert where == {name: (live.state / f"{name}.address").read_text().strip() for name in names}


@pytest.mark.parametrize("question", [{"after": -1}, {"after": True}, {"after": "1"}, {"limit": 0}])
def test_a_question_about_events_that_is_none_is_refused(guardian: GuardianClient, question: dict[str, Any]) -> None:
    with pytest.raises(AlertRefused, match="no whole number"):
        guardian._ask({"ask": "events", **question})


def made_key(live: Running, name: str, role: str, folder: Path) -> Path:
    file = folder / f"{name}.key"
    done = live.call("keys", "new", name, "--role", role, "--out", str(file))
    assert done.returncode == 0, done.stderr
    return file


def test_who_has_no_role_for_it_may_not_follow(live: Running, guardian: GuardianClient, tmp_path: Path) -> None:
    """Neither by asking nor by listening: of those who listen only who may ask comes in."""
    file = made_key(live, "mql4", "bridge", tmp_path)
    with (
        GuardianClient(state_dir=live.state, key_file=file, timeout_s=20) as client,
        pytest.raises(AlertRefused, match="may not send QUERY"),  # once the daemon has looked at its table
    ):
        next(client.subscribe(after=0))
    address = str(guardian.events().address)
    local, bridge = read_key_file(live.state / "keys" / "local.key"), read_key_file(file)
    with zmq.Context() as context, ExitStack() as stack:
        refused, bare, heard = (stack.enter_context(subscribed(context, address, key)) for key in (bridge, None, local))
        eventually(lambda: guardian.post({"type": "noise"}) and heard.poll(200), within_s=30)
        assert not refused.poll(300)
        assert not bare.poll(0)


def subscribed(context: zmq.Context[Any], address: str, key: ClientKey | None) -> zmq.Socket[bytes]:
    socket = make_subscriber(context, key)
    socket.connect(address)
    return socket


def test_trap_16_a_revoked_key_ends_a_living_subscription(
    live: Running, guardian: GuardianClient, tmp_path: Path
) -> None:
    file = made_key(live, "leaver", "viewer", tmp_path)
    address = str(guardian.events().address)
    with (
        GuardianClient(state_dir=live.state, key_file=file, timeout_s=20) as client,
        client.subscribe(after=0) as stream,
        zmq.Context() as context,
    ):
        assert stream.get(30) is not None, "let in once the daemon has looked at its table"
        with subscribed(context, address, read_key_file(file)) as ear:
            eventually(lambda: guardian.post({"type": "noise"}) and ear.poll(200), within_s=30)
            assert live.call("keys", "revoke", "leaver").returncode == 0
            with pytest.raises(AlertRefused, match="revoked"):
                deque(stream, maxlen=0)

            def is_silent() -> bool:
                while ear.poll(0):
                    ear.recv_multipart()
                guardian.post({"type": "noise"})
                return not ear.poll(500)

            eventually(is_silent, within_s=30)
    with guardian.subscribe() as events:
        until(events, alert=guardian.post({"type": "noise"}))


def test_the_command_line_shows_events(live: Running, guardian: GuardianClient, tmp_path: Path) -> None:
    with guardian.subscribe() as events:
        alert_id = guardian.post({"type": "shown", "message": "on the command line"})
        last = until(events, alert=alert_id)[-1]
    shown = live.json("events", "--after", str(last.seq - 1))
    assert [(one["seq"], one["event"], one["evidence"]["alert"]) for one in shown["events"][:1]] == [
        (last.seq, "alert_decided", alert_id)
    ]
    words = [sys.executable, "-m", "supervisors.cli", "events", "--follow", "--json", "--after", str(last.seq - 1)]
    out, problems = tmp_path / "out", tmp_path / "problems"
    with out.open("w") as stdout, problems.open("w") as stderr:
        following = subprocess.Popen([*words, "--state", str(live.state)], stdout=stdout, stderr=stderr)
    try:
        eventually(lambda: f'"seq":{last.seq},' in out.read_text().replace(" ", ""), within_s=30)
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0, problems.read_text()
    finally:
        following.kill()
        following.wait()


def test_trap_2_a_kill_of_the_daemon_in_mid_stream_loses_and_doubles_no_event(tmp_path: Path) -> None:
    """A client and an actor follow; the actor is told alerts. The daemon is killed and comes back somewhere else."""
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": SLEEPER})
    alerts = [Alert(type="noise", message=str(number), source="storm") for number in range(400)]
    wanted = {one.id for one in alerts}
    told: list[Any] = []
    link = GuardianLinkActor.start(state_dir=state, outbox=tmp_path / "outbox.db")
    listener = Listener.start(told)
    link.tell(Subscribe(listener, after=0))
    try:
        with daemon(config, state) as first:
            for one in alerts[:200]:
                link.tell(one)
            eventually(lambda: alerts[20].id in decided(told), within_s=60)
            first.process.kill()
            first.process.wait()
        for one in alerts[200:]:
            link.tell(one)
        with daemon(config, state), GuardianClient(state_dir=state) as client, client.subscribe(after=0) as events:
            followed: list[Event] = []
            while decided(followed) != wanted:
                event = events.get(60)
                assert event is not None, f"{len(decided(followed))} decided"
                followed.append(event)
            eventually(lambda: decided(told) == wanted, within_s=60)
    finally:
        listener.stop()
        link.stop()
    heard = [one for one in told if isinstance(one, Event)]
    for found in (heard, followed):
        assert [(one.seq, one.event, one.path) for one in found] == _events(state)[: len(found)]
        assert [one.seq for one in found] == list(range(1, len(found) + 1))
        ids = [alert for one in found for alert in told_of(one)]
        assert sorted(ids) == sorted(wanted), "each once"
    assert sum(one.event == "journal_opened" for one in heard) == 2


class Listener(pykka.ThreadingActor):
    def __init__(self, told: list[Any]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Any) -> None:
        self._told.append(message)


def decided(found: list[Any]) -> set[str]:
    """The alerts whose decision is among these events."""
    return {alert for one in list(found) if isinstance(one, Event) for alert in told_of(one)}


def told_of(event: Event) -> list[str]:
    match event.event:
        case "alert_decided":
            return [event.evidence["alert"]]
        case "alerts_decided":
            return list(event.evidence["alerts"])
        case _:
            return []


def _events(state: Path) -> list[tuple[int, str, str]]:
    database = sqlite3.connect(f"file:{state / 'journal.db'}?mode=ro", uri=True)
    try:
        return database.execute("SELECT seq, event, path FROM events ORDER BY seq").fetchall()
    finally:
        database.close()
