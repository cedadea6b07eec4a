"""Commands to a bridge endpoint: at most once in effect, whoever dies, and the honest answer when nobody can tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from actors.access.rules import Denied
from actors.bridge_sessions import HELD_S
from actors.intake import AlertIntake, IntakeParts
from bridge_link.client import BridgeClient
from bridge_link.commands import MOST_AT_ONCE
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, decode
from runbooks.ports import BridgeRequest, BridgeState, BridgeWell, PortError
from tests.bridge.desk import desk, endpoint, once_done
from tests.support.eventually import eventually, holds_for
from tests.support.plain_links import key_file

__all__ = ["key_file"]

ONE = BridgeRequest("x-0001.work.1")
TWO = BridgeRequest("x-0001.work.2", (ONE.id,))


def test_done_failed_unknown_names_and_asked_again(tmp_path: Path) -> None:
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e") as mql4:
        assert daemon.asked(ONE).state is BridgeState.NEVER
        done = daemon.order(ONE, n=1)
        assert (done.state, "'n': 1" in done.text) == (BridgeState.DONE, True)
        assert daemon.asked(ONE).state is BridgeState.DONE
        assert daemon.order(ONE, n=1) == done, "asked again under its name it is answered from the table"
        assert mql4.done() == ["1"]
        failed = daemon.order(BridgeRequest("x-0002.work.1"), n=2, fails=True)
        assert (failed.state, failed.text) == (BridgeState.FAILED, "RuntimeError: it cannot")
        eventually(lambda: getattr(daemon.sessions.session("mql4"), "commands", None) is not None)
        with pytest.raises(PortError, match="has no command 'play'; it has work"):
            daemon.commands.command("mql4", "play", {}, BridgeRequest("x-0003.work.1"), 5)


def test_nobody_speaks_for_the_endpoint() -> None:
    with desk() as daemon, pytest.raises(PortError, match="nobody speaks for it; nothing was sent"):
        daemon.order(ONE, 0.1)


def test_a_command_waits_for_an_endpoint_that_comes(tmp_path: Path) -> None:
    with desk() as daemon, ThreadPoolExecutor() as pool:
        answer = pool.submit(daemon.order, ONE, 30.0, n=1)
        with endpoint(daemon.address, tmp_path / "e"):
            assert answer.result(30).state is BridgeState.DONE


def test_heartbeats_go_on_while_a_command_runs(tmp_path: Path) -> None:
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e") as mql4:
        with pytest.raises(PortError, match="no end of it was heard within"):
            daemon.order(ONE, 1.5, n=1, takes_s=1000)
        assert daemon.asked(ONE).state is BridgeState.BEGUN
        beats = len([one for one in daemon.heard if one.kind is Kind.HEARTBEAT])
        eventually(lambda: len([one for one in daemon.heard if one.kind is Kind.HEARTBEAT]) > beats + 3)
        mql4.let_go()
        eventually(lambda: daemon.asked(ONE).state is BridgeState.DONE)
        assert mql4.done() == ["1"]


def test_the_daemon_is_another_one_and_the_endpoint_still_knows(tmp_path: Path) -> None:
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e") as mql4:
        with pytest.raises(PortError):
            daemon.order(ONE, 0.7, n=1, takes_s=1000)
        once_done(mql4, "1")
        daemon.again()
        assert daemon.asked(ONE).state is BridgeState.BEGUN
        mql4.let_go()
        assert daemon.order(ONE, n=1).state is BridgeState.DONE
        assert mql4.done() == ["1"]


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_endpoint_killed_in_the_middle_says_that_it_may_have_been(tmp_path: Path, *, is_durable: bool) -> None:
    """Never run again under its name; what was never sent before is run, also by one without a table."""
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e", is_durable=is_durable) as mql4:
        with pytest.raises(PortError):
            daemon.order(ONE, 0.7, n=1, takes_s=1000)
        once_done(mql4, "1")
        mql4.kill_and_start()
        assert daemon.asked(ONE).state is BridgeState.UNKNOWN
        assert daemon.order(ONE, n=1).state is BridgeState.UNKNOWN
        daemon.again()
        assert daemon.asked(ONE).state is BridgeState.UNKNOWN
        again = daemon.order(TWO, n=2)
        if is_durable:
            assert (again.state, "may still be at work" in again.text) == (BridgeState.REFUSED, True)
            assert mql4.done() == ["1"]
        assert daemon.order(BridgeRequest("x-0009.work.1"), n=9).state is BridgeState.DONE


@pytest.mark.parametrize("is_durable", [True, False])
def test_what_was_done_is_known_after_a_restart_with_a_table_only(tmp_path: Path, *, is_durable: bool) -> None:
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e", is_durable=is_durable) as mql4:
        assert daemon.order(ONE, n=1).state is BridgeState.DONE
        mql4.kill_and_start()
        assert daemon.asked(ONE).state is (BridgeState.DONE if is_durable else BridgeState.UNKNOWN)
        assert mql4.done() == ["1"]


def test_a_later_attempt_stands_instead_of_one_that_comes_late(tmp_path: Path) -> None:
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e") as mql4:
        assert daemon.order(TWO, n=2).state is BridgeState.DONE
        late = daemon.order(ONE, n=1)
        assert (late.state, late.text) == (BridgeState.REFUSED, "a later attempt stands instead of it")
        assert daemon.order(BridgeRequest("x-0001.work.3", (ONE.id, TWO.id)), n=3).state is BridgeState.REFUSED
        assert mql4.done() == ["2"]


def test_one_name_from_many_threads_is_one_run_and_too_many_names_wait(tmp_path: Path) -> None:
    with desk() as daemon, endpoint(daemon.address, tmp_path / "e") as mql4, ThreadPoolExecutor(64) as pool:
        names = [BridgeRequest(f"x-many.{n}.1") for n in range(2 * MOST_AT_ONCE)]
        running = [pool.submit(daemon.order, one, 40.0, n=n, takes_s=1000) for n, one in enumerate(names)]
        eventually(lambda: len(mql4.done()) == MOST_AT_ONCE)
        holds_for(lambda: len(mql4.done()) == MOST_AT_ONCE, 0.3)
        mql4.let_go()
        assert {one.result(40).state for one in running} == {BridgeState.DONE}
        assert sorted(map(int, mql4.done())) == list(range(2 * MOST_AT_ONCE))


def test_a_result_that_cannot_be_sent_becomes_text_and_a_broken_disk_begins_nothing(tmp_path: Path) -> None:
    ran = threading.Event()

    def strange(_: object) -> object:
        ran.set()
        return {"when": threading.Lock(), 3: float("nan")}

    with (
        desk() as daemon,
        BridgeClient(daemon.address, name="mql4", folder=tmp_path, commands={"work": strange}) as bridge,
    ):
        answer = daemon.order(ONE)
        assert answer.state is BridgeState.DONE
        assert "nan" in answer.text
        ran.clear()
        bridge._store.close()
        with pytest.raises(PortError):
            daemon.order(BridgeRequest("x-0002.work.1"), 1.5)
        assert not ran.is_set()


# -- who speaks for an endpoint ---------------------------------------------------------------------------------------


def test_a_newer_session_of_the_same_client_wins_and_keeps_what_it_has(tmp_path: Path) -> None:
    with (
        desk() as daemon,
        endpoint(daemon.address, tmp_path / "old") as old,
    ):
        eventually(lambda: daemon.sessions.session("mql4"))
        first = daemon.sessions.session("mql4")
        with endpoint(daemon.address, tmp_path / "new") as new:
            eventually(lambda: daemon.sessions.session("mql4") is not first)
            assert daemon.order(ONE, n=1).state is BridgeState.DONE
            assert (old.done(), new.done()) == ([], ["1"])
            second = daemon.sessions.session("mql4")
            holds_for(lambda: daemon.sessions.session("mql4") is second, 0.5)


def test_another_client_is_kept_out_while_the_endpoint_lives(tmp_path: Path) -> None:
    now = time.monotonic()
    with desk() as daemon, endpoint(daemon.address, tmp_path / "mine"):
        eventually(lambda: daemon.sessions.session("mql4"))
        mine = daemon.sessions.session("mql4")
        daemon.sessions.now = lambda: now
        assert mine is not None
        mine.heard_at = now
        thief = {"name": "mql4", "session": mine.id, "commands": ["work"]}
        with pytest.raises(Exception, match="client 'local' speaks for endpoint 'mql4'"):
            daemon.sessions.opened("mql4", "thief", mine.id, lambda *_: None, thief)
        assert daemon.sessions.session("mql4") is mine
        taken = daemon.sessions.opened("mql4", "mql4", "its own", lambda *_: None, thief)
        assert daemon.sessions.session("mql4") is taken, "a key named like the endpoint owns it"


def test_trap_16_who_lost_its_key_or_fell_silent_is_given_no_commands() -> None:
    with desk() as daemon:
        clock, good = [0.0], {"mql4-key"}
        sessions = daemon.sessions
        sessions.now, sessions.may_answer = (lambda: clock[0]), good.__contains__
        sessions.opened("mql4", "mql4-key", "s-1", lambda *_: None, {})
        assert sessions.session("mql4") is not None
        good.clear()
        assert sessions.session("mql4") is None
        good.add("mql4-key")
        clock[0] = HELD_S + 0.1
        assert sessions.await_session("mql4", 0.0) is None
        sessions.heard("mql4", "s-1")
        assert sessions.await_session("mql4", 0.0) is not None


def test_a_reply_of_somebody_else_counts_for_nothing() -> None:
    with desk() as daemon:
        said: list[str] = []
        daemon.sessions.opened("mql4", "mql4-key", "s-1", lambda one, _: said.append(one), {"commands": ["work"]})

        def interfere() -> None:
            eventually(lambda: said)
            daemon.sessions.replied("thief", ONE.id, {"state": "done"})
            daemon.sessions.replied("mql4-key", "another-request", {"state": "done"})
            daemon.sessions.replied("mql4-key", ONE.id, {"state": "nonsense"})
            daemon.sessions.replied("mql4-key", ONE.id, {"state": "failed", "error": "honest"})

        thread = threading.Thread(target=interfere)
        thread.start()
        answer = daemon.order(ONE)
        thread.join()
        assert (answer.state, answer.text) == (BridgeState.FAILED, "honest")


def test_trap_17_who_may_not_answer_commands_speaks_for_no_endpoint() -> None:
    """A guardian's or viewer's key: its heartbeats say nothing about an endpoint, its HELLO is refused."""
    denied = Denied("forbidden", "alice (viewer) may not send HELLO")
    nothing: Any = None
    taken: list[tuple[str, Kind]] = []
    answers: list[Message] = []

    class Back:
        def send(self, _peer: bytes, message: Message) -> None:
            answers.append(message)

        def send_frames(self, given: Iterable[tuple[bytes, list[bytes]]]) -> None:
            answers.extend(decode(frames) for _, frames in given)

    intake = AlertIntake(
        IntakeParts(
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            bridge=lambda incoming, _: taken.append((incoming.client, incoming.message.kind)),
            judge=lambda client, kind, _: denied if client == "alice" and kind is Kind.HELLO else None,
            may_answer=lambda client: client == "mql4-key",
        )
    )
    for client in ("alice", "mql4-key"):
        for kind in (Kind.HELLO, Kind.HEARTBEAT):
            intake.take(Back(), Incoming(b"peer", Message(kind, "message-1", {"name": "mql4", "session": "s"}), client))
    assert taken == [("mql4-key", Kind.HELLO), ("mql4-key", Kind.HEARTBEAT)]
    assert [(one.kind, one.body["code"]) for one in answers] == [(Kind.NACK, "forbidden")]


def test_a_daemon_that_has_just_started_waits_until_an_endpoint_is_heard() -> None:
    """Else a run that goes on after a death takes it for one that is silent, or cannot be asked."""
    health = {"health": lambda _: {"status": "healthy"}}
    with desk() as daemon, ThreadPoolExecutor(1) as aside:
        asked = aside.submit(daemon.commands.view, "mql4", "ask.0001", 20.0)
        with BridgeClient(daemon.address, name="mql4", commands=health):
            seen = asked.result(40)
    assert seen is not None
    assert (seen.state, seen.commands) == (BridgeWell.HEALTHY, frozenset({"health"}))
