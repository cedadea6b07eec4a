"""Who gets in and who is heard, over real sockets: the real keyring, book and pump, and clients of every kind."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq

from actors.access.keyring import utc_now
from actors.bridge_sessions import BridgeSessions
from actors.intake import AlertIntake, IntakeParts
from bridge_link import channel, pump
from bridge_link.errors import BadAddress
from bridge_link.keys import write_key_file
from bridge_link.sockets import check_address, make_router
from bridge_link.wire import Kind, Message, decode
from bridge_link.zap import CannotDecide, Guard, answer_some, answered, open_handler
from config import ConfigError, load_config
from guardian_link import Alert, DaemonUnreachable, GuardianClient
from tests.links.guarded import Guarded, guarded, heard, raw_client, revoke, said
from tests.links.scripted_daemon import ScriptedDaemon, obliging
from tests.support.eventually import eventually

BODY = {"type": "service_failure", "service": "a"}
NOBODY_MS = 700
"""How long is waited for what must not come."""


def is_heard(place: Guarded, socket: zmq.Socket[bytes]) -> bool:
    message_id = said(socket, Kind.ALERT, BODY)
    answer = heard(socket)
    return answer is not None and (answer.kind, answer.id) == (Kind.STORED, message_id)


def test_the_authenticated_name_counts_never_the_body(tmp_path: Path) -> None:
    names: list[str] = []

    def note(incoming: pump.Incoming, times: int) -> list[Message]:
        names.append(incoming.client)
        return obliging(incoming, times)

    with guarded(tmp_path, note) as place:
        for key in (place.local(), place.new("guardian-1")):
            with raw_client(place.address, key) as socket:
                said(socket, Kind.ALERT, BODY | {"source": "root", "client": "root", "name": "root"})
                assert heard(socket) is not None
    assert names == ["local", "guardian-1"]


def test_strangers_and_those_without_a_key_are_not_heard(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        wrong_server = place.local().__class__(
            "local", place.local().public, place.local().secret, place.local().public
        )
        with ExitStack() as opened:
            strangers = (place.stranger(), place.stranger("local"), wrong_server, None)
            sockets = [opened.enter_context(raw_client(place.address, key)) for key in strangers]
            for socket in sockets:
                said(socket, Kind.ALERT, BODY)
            assert heard(sockets[0], NOBODY_MS) is None
            assert all(heard(socket, 0) is None for socket in sockets[1:])
        assert place.scripted.seen == []
        assert any("an unknown key" in text for text, _ in place.told)
        with raw_client(place.address, place.local()) as socket:
            assert is_heard(place, socket)


def test_trap_14_without_a_zap_handler_nobody_is_let_in(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        secret, key = place.book.guard.secret, place.local()
        with zmq.Context() as context, make_router(context, secret) as router:
            port = router.bind_to_random_port("tcp://127.0.0.1")
            with raw_client(f"tcp://127.0.0.1:{port}", key) as socket:
                said(socket, Kind.ALERT, BODY)
                assert not router.poll(NOBODY_MS)
        with zmq.Context() as context, open_handler(context) as doors, make_router(context, secret) as router:
            port = router.bind_to_random_port("tcp://127.0.0.1")
            with raw_client(f"tcp://127.0.0.1:{port}", key) as socket:
                said(socket, Kind.ALERT, BODY)
                assert doors.poll(5000)
                answer_some(doors, place.book.guard)
                assert router.poll(5000)


def test_trap_14_a_message_without_a_user_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the socket let somebody in without asking."""
    monkeypatch.setattr(pump, "make_router", lambda context, _secret: make_router(context))
    with guarded(tmp_path) as place, raw_client(place.address, None) as socket:
        said(socket, Kind.ALERT, BODY)
        answer = heard(socket)
        assert answer is not None
        assert (answer.kind, answer.body["code"], answer.body["permanent"]) == (Kind.NACK, "key_refused", False)
        assert place.scripted.seen == []
        assert place.scripted.pump.counters.unknown == 1


def test_trap_15_a_failing_lookup_denies_and_the_link_lives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with guarded(tmp_path) as place:
        real = place.book.guard
        is_broken = threading.Event()
        is_broken.set()

        def admits(public: str, address: str) -> bool:
            if is_broken.is_set():
                raise RuntimeError("lookup broke")
            return real.admits(public, address)

        scripted = ScriptedDaemon(place.scripted.script, Guard(real.secret, admits, real.name_of))
        address = scripted.open()
        try:
            with raw_client(address, place.local()) as socket:
                said(socket, Kind.ALERT, BODY)
                eventually(lambda: "lookup broke" in caplog.text)
                assert heard(socket, 200) is None
            assert scripted.pump.is_alive
            is_broken.clear()
            with raw_client(address, place.local()) as socket:
                assert is_heard(place, socket)
        finally:
            scripted.pump.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_handshakes_end_with_the_link_and_its_death_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread answers handshakes and receives: there is no handler that could die alone."""

    def dies(_socket: object, _guard: object) -> None:
        raise SystemExit

    monkeypatch.setattr(pump, "answer_some", dies)
    with guarded(tmp_path) as place:
        assert place.scripted.pump.is_alive
        with raw_client(place.address, place.local()) as socket:
            said(socket, Kind.ALERT, BODY)
            eventually(lambda: not place.scripted.pump.is_alive)
        monkeypatch.undo()
        place.scripted.pump.start()
        assert place.scripted.pump.address is not None
        with raw_client(place.scripted.pump.address, place.local()) as socket:
            assert is_heard(place, socket)


def test_trap_16_a_revoked_key_on_a_live_session_is_refused(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        key = place.new("guardian-1")
        with raw_client(place.address, key) as socket:
            assert is_heard(place, socket)
            revoke(tmp_path, "guardian-1")
            place.book.look()
            denied = place.book.judge("guardian-1", Kind.ALERT, "x")
            assert denied is not None
            assert (denied.code, denied.permanent) == ("key_refused", False)
            with raw_client(place.address, key) as again:
                said(again, Kind.ALERT, BODY)
                assert heard(again, NOBODY_MS) is None, "a new session is not opened"


def test_trap_16_a_name_given_to_another_key_lets_no_old_session_pass(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        key = place.new("guardian-1")
        with raw_client(place.address, key) as socket:
            assert is_heard(place, socket)
            other = place.stranger("guardian-1")
            table = place.keyring.table()
            line = table.line("guardian-1")
            assert line is not None
            place.keyring.change_table(lambda table: table.put(line.model_copy(update={"public": other.public})))
            place.book.look()
            message_id = said(socket, Kind.ALERT, BODY)
            answer = heard(socket)
            while answer is not None and answer.id != message_id:
                answer = heard(socket)
            assert answer is not None
            assert (answer.kind, answer.body["code"]) == (Kind.NACK, "key_refused")
        with raw_client(place.address, other) as socket:
            assert is_heard(place, socket)


def test_trap_4_refused_and_then_allowed_the_client_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq never tries again after a refusal: only a new socket gets in."""
    monkeypatch.setattr(channel, "SILENCE_S", 0.5)
    with guarded(tmp_path) as place:
        key, file = place.stranger("guardian-1"), tmp_path / "guardian-1.key"
        write_key_file(file, key)
        with raw_client(place.address, key) as bare, GuardianClient(place.address, key_file=file) as guardian:
            said(bare, Kind.ALERT, BODY)
            with pytest.raises(DaemonUnreachable):
                guardian.send(Alert(type="x"), timeout_s=0.5)
            line = place.keyring.table().line("local")
            assert line is not None
            known = line.model_copy(update={"name": "guardian-1", "public": key.public})
            place.keyring.change_table(lambda table: table.with_new(known))
            assert place.book.look() is None
            assert guardian.send(Alert(type="x"), timeout_s=10).status == "stored"
            assert heard(bare, 200) is None, "without a new socket it is refused for ever"


def test_trap_4_one_who_only_beats_recovers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SILENCE_S", 0.5)
    with guarded(tmp_path) as place:
        key = place.stranger("bridge-1")
        beat = channel.Beat(0.1, lambda: {"name": "mql4"})
        beating = channel.DealerChannel(place.address, key=key, beat=beat)
        try:
            eventually(lambda: place.told)
            line = place.keyring.table().line("local")
            assert line is not None
            known = line.model_copy(update={"name": "bridge-1", "public": key.public})
            place.keyring.change_table(lambda table: table.with_new(known))
            place.book.look()
            eventually(lambda: any(one.kind is Kind.HEARTBEAT for one in place.scripted.seen))
        finally:
            beating.close()


def test_an_unreadable_table_lets_nobody_in_now_and_everybody_later(tmp_path: Path) -> None:
    """ZAP 300: the very same socket gets in when the table can be read."""
    with guarded(tmp_path) as place:
        key = place.local()
        text = place.keyring.table_file.read_text()
        place.book._known = None
        place.keyring.table_file.write_text("{")
        assert "nobody is let in" in str(place.book.look())
        with pytest.raises(CannotDecide):
            place.book.admits(key.public, "127.0.0.1")
        with raw_client(place.address, key) as socket:
            message_id = said(socket, Kind.ALERT, BODY)
            assert heard(socket, NOBODY_MS) is None
            place.keyring.table_file.write_text(text)
            assert place.book.look() is None
            answer = heard(socket, 10_000)
            assert answer is not None
            assert answer.id == message_id


def test_a_table_that_breaks_later_is_used_as_it_was(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        key = place.new("guardian-1")
        text = place.keyring.table_file.read_text()
        place.keyring.table_file.write_text("no table")
        assert "the table as it was is used" in str(place.book.look())
        with raw_client(place.address, key) as socket:
            assert is_heard(place, socket)
        place.keyring.table_file.chmod(0o644)
        assert "chmod 600" in str(place.book.look())
        place.keyring.table_file.chmod(0o600)
        place.keyring.table_file.write_text(text)
        assert place.book.look() is None


def test_a_table_that_vanishes_is_used_as_it_was(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        key = place.new("guardian-1")
        place.keyring.table_file.unlink()
        assert "there is no" in str(place.book.look())
        with raw_client(place.address, key) as socket:
            assert is_heard(place, socket)


def test_an_expired_key_is_refused(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        key = place.new("guardian-1", not_after=utc_now() - timedelta(seconds=1))
        with raw_client(place.address, key) as socket:
            said(socket, Kind.ALERT, BODY)
            assert heard(socket, NOBODY_MS) is None
        assert any("expired" in text for text, _ in place.told)
        denied = place.book.judge("guardian-1", Kind.ALERT, "x")
        assert denied is not None
        assert (denied.code, denied.permanent) == ("key_refused", False)


def test_trap_6_another_ones_routing_id_steals_and_starves_nothing(tmp_path: Path) -> None:
    with guarded(tmp_path) as place:
        first, second = place.new("guardian-1"), place.new("guardian-2")
        with raw_client(place.address, first, b"me") as owner:
            assert is_heard(place, owner)
            assert heard(owner) is not None
            with raw_client(place.address, second, b"me") as thief:
                said(thief, Kind.ALERT, BODY)
                for _ in range(20):
                    message_id = said(owner, Kind.ALERT, BODY)
                    answers = [heard(owner), heard(owner)]
                    assert [one.id for one in answers if one is not None] == [message_id] * 2
                assert heard(thief, 200) is None
        with raw_client(place.address, second) as honest:
            assert is_heard(place, honest)


@pytest.mark.parametrize(
    "request_",
    [
        [],
        [b"p", b"", b"1.0"],
        [b"p", b"", b"1.0", b"1"],
        [b"p", b"", b"1.0", b"1", b"d", b"a", b"", b"NULL"],
        [b"p", b"", b"1.0", b"1", b"d", b"a", b"", b"PLAIN", b"user", b"password"],
        [b"p", b"", b"2.0", b"1", b"d", b"a", b"", b"CURVE", b"k" * 32],
        [b"p", b"", b"1.0", b"1", b"d", b"\xff", b"", b"CURVE", b"k" * 31],
    ],
)
def test_only_curve_is_taken(request_: list[bytes]) -> None:
    reply = answered(request_, lambda _public, _address: True)
    assert reply is None or reply[4] == b"400"


@pytest.mark.parametrize("word", ["guardian", "bridge"])
def test_trap_22_off_loopback_without_curve_is_a_config_error(tmp_path: Path, word: str) -> None:
    file = tmp_path / "selfheal.yaml"
    links = f"{word}: {{address: 'tcp://0.0.0.0:5599'}}"
    file.write_text(f"version: 1\nlinks: {{curve: false, {links}}}\n")
    with pytest.raises(ConfigError, match=rf"links\.{word}\.address.*links\.curve is false"):
        load_config(file, {})
    file.write_text(f"version: 1\nlinks: {{{links}}}\n")
    assert load_config(file, {}).links.curve


def test_trap_22_a_link_itself_refuses_it_too(tmp_path: Path) -> None:
    with pytest.raises(BadAddress, match=r"links\.curve"):
        pump.RouterPump("tcp://0.0.0.0:0", lambda _: None).start()
    assert check_address("tcp://10.1.2.3:5570", is_guarded=True)
    with pytest.raises(BadAddress, match=r"0\.0\.0\.0"):
        check_address("tcp://*:5570", is_guarded=True)


def test_a_wrong_server_secret_is_said_at_the_start() -> None:
    guard = Guard("no key", lambda _public, _address: True, lambda _public: "x")
    with pytest.raises(zmq.ZMQError):
        pump.RouterPump("tcp://127.0.0.1:0", lambda _: None, guard=guard).start()


def test_a_guardian_that_beats_is_no_offender_and_speaks_for_no_endpoint(tmp_path: Path) -> None:
    """Its heartbeat is allowed and says nothing about an endpoint; its HELLO, and a viewer's, is an attempt."""
    nothing: Any = None
    taken: list[str] = []
    answers: list[Message] = []

    class Back:
        def send_frames(self, given: Iterable[tuple[bytes, list[bytes]]]) -> None:
            answers.extend(decode(frames) for _, frames in given)

    with guarded(tmp_path) as place:
        place.new("guardian-1")
        place.new("bridge-1", "bridge")
        sessions = BridgeSessions()
        sessions.beats.subscribe("mql4", lambda _: taken.append("heard"))

        def may(client: str) -> bool:
            return place.book.may(client, Kind.REPLY)

        parts = IntakeParts(*(nothing,) * 5, bridge=sessions.take, judge=place.book.judge, may_answer=may)
        back: Any = Back()
        beat = Message(Kind.HEARTBEAT, "message-1", {"name": "mql4", "session": "s"})
        for client in ("guardian-1", "bridge-1"):
            assert may(client) is (client == "bridge-1")
            AlertIntake(parts).take(back, pump.Incoming(b"peer", beat, client))
        speaker = sessions.session("mql4")
        assert speaker is not None
        assert speaker.client == "bridge-1"
        assert (taken, place.told, answers) == (["heard"], [], [])
        hello = Message(Kind.HELLO, "message-2", beat.body)
        AlertIntake(parts).take(back, pump.Incoming(b"peer", hello, "guardian-1"))
        assert [(one.kind, one.body["code"]) for one in answers] == [(Kind.NACK, "forbidden")]
        assert [text for text, _ in place.told] == ["forbidden: guardian-1 (guardian) may not send HELLO"]
