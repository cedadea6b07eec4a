"""A key that is taken back takes nothing with it: what waits is sent with the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge_link import BridgeClient
from bridge_link.errors import Refused
from bridge_link.keys import ClientKey, write_key_file
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack
from guardian_link import Alert, AlertRefused, GuardianClient, delivery
from tests.links.guarded import Guarded, guarded, revoke
from tests.links.scripted_daemon import obliging
from tests.support.eventually import eventually, holds_for

ERROR = {"system": "mql4", "error_type": "MQL4Error", "error_message": "x"}


@dataclass
class Judged:
    """A link that looks each message's key up, as the daemon's does. ``file``: the client's."""

    file: Path
    place: Guarded = field(init=False)

    def answers(self, incoming: Incoming, times: int) -> list[Message]:
        message = incoming.message
        denied = self.place.book.judge(incoming.client, message.kind, "bridge_x")
        if denied is None:
            return obliging(incoming, times)
        wait_ms = denied.retry_after_ms
        return [nack(message.id, denied.code, denied.text, permanent=denied.permanent, retry_after_ms=wait_ms)]

    def use(self, key: ClientKey) -> None:
        write_key_file(self.file, key, replace=True)

    def revoke(self, name: str) -> None:
        revoke(self.place.state, name)
        self.place.book.look()

    @property
    def alerts(self) -> set[str]:
        return {one.id for one in self.place.scripted.seen if one.kind is Kind.ALERT}


@contextmanager
def judged(tmp_path: Path) -> Iterator[Judged]:
    link = Judged(tmp_path / "client.key")
    with guarded(tmp_path / "state", link.answers) as link.place:
        yield link


def test_alerts_outlive_the_key_they_would_have_been_sent_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SILENCE_S", 0.5)
    with judged(tmp_path) as link:
        link.use(link.place.new("guardian-1"))
        with GuardianClient(link.place.address, key_file=link.file, outbox=tmp_path / "outbox.db") as guardian:
            box = guardian.outbox
            assert box is not None
            guardian.send(Alert(type="x"), timeout_s=10)
            link.revoke("guardian-1")
            posted = [guardian.post(Alert(type="x", message=str(n))) for n in range(3)]
            eventually(lambda: "key of guardian-1 was revoked" in str(guardian.trouble))
            sent = Alert(type="x", message="sent")
            with pytest.raises(AlertRefused, match="key_refused") as refused:
                guardian.send(sent, timeout_s=10)
            assert not refused.value.is_final
            assert (len(box), box.dead()) == (4, [])
            assert "key of guardian-1 was revoked" in str(guardian.trouble)

            link.use(link.place.new("guardian-2"))
            eventually(lambda: len(box) == 0, within_s=20)
            assert link.alerts >= {*posted, sent.id}
            eventually(lambda: guardian.trouble is None)
            assert box.dead() == []


def test_what_was_only_posted_waits_too(tmp_path: Path) -> None:
    with judged(tmp_path) as link:
        link.use(link.place.new("guardian-1"))
        with GuardianClient(link.place.address, key_file=link.file) as guardian:
            guardian.send(Alert(type="x"), timeout_s=10)
            link.revoke("guardian-1")
            posted = guardian.post(Alert(type="x"))
            eventually(lambda: posted in link.alerts)
            holds_for(lambda: guardian.unacknowledged == 1, 0.5)


def test_errors_outlive_the_key_of_their_endpoint(tmp_path: Path) -> None:
    with judged(tmp_path) as link:
        link.use(link.place.new("bridge-1", "bridge"))
        with BridgeClient(link.place.address, name="mql4", key_file=link.file, folder=tmp_path / "mql4") as bridge:
            assert bridge.send_error(ERROR, timeout_s=10) == "x-1"
            link.revoke("bridge-1")
            posted = bridge.post_error(ERROR)
            with pytest.raises(Refused, match="key of bridge-1 was revoked") as refused:
                bridge.send_error(ERROR, timeout_s=10)
            assert not refused.value.is_final
            assert (bridge.waiting, bridge.refused) == (2, [])
            assert "key of bridge-1 was revoked" in str(bridge.trouble)

            link.use(link.place.new("bridge-2", "bridge"))
            eventually(lambda: bridge.waiting == 0, within_s=20)
            assert posted in link.alerts
            assert bridge.refused == []
            eventually(lambda: bridge.trouble is None)


def test_that_nobody_knows_the_key_is_said_within_seconds(tmp_path: Path) -> None:
    """A refused handshake looks like nobody there: both are named, long before a new socket is tried."""
    with judged(tmp_path) as link:
        link.use(link.place.stranger())
        with (
            GuardianClient(link.place.address, key_file=link.file, outbox=tmp_path / "outbox.db") as guardian,
            BridgeClient(link.place.address, name="mql4", key_file=link.file) as bridge,
        ):
            guardian.post(Alert(type="x"))
            for client in (guardian, bridge):
                eventually(lambda one=client: "know this key?" in str(one.trouble), within_s=4.0)  # type: ignore[misc]
