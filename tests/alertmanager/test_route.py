"""The route over a real socket, into a real journal with real actors behind it."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.alertmanager import Taken
from actors.journal.schema import JournalTrouble
from bridge_link.wire import Kind, Message, decode, encode
from guardian_link.alertmanager import Notified
from supervisors.alertmanager_link import TokenFile
from supervisors.api import alertmanager
from supervisors.api.alertmanager import AT_ONCE, MAX_BODY_BYTES, PATHS, Door
from supervisors.api.app import create_app
from supervisors.api.server import ApiServer
from tests.alertmanager.payloads import BEGAN, alert, notification
from tests.outside.fake_manager import FakeManager
from tests.recovery.place import Place, recovering
from tests.support.eventually import eventually

PATH = PATHS[0]


@contextmanager
def serving(door: Door) -> Iterator[httpx.Client]:
    server = ApiServer(create_app(FakeManager(), None, door), "127.0.0.1:0", None)
    server.start()
    try:
        assert server.address is not None
        with httpx.Client(base_url=server.address, timeout=30, trust_env=False) as client:
            yield client
    finally:
        assert server.close(10.0), "the server's thread did not end"


@dataclass
class Here:
    place: Place
    http: httpx.Client

    def post(self, *alerts: dict[str, Any], path: str = PATH, **more: Any) -> httpx.Response:
        return self.http.post(path, json=notification(*alerts, **more))

    def alerts(self) -> list[dict[str, Any]]:
        return [dict(one) for one in self.place.recovery.records.alerts(1000)]

    def decided(self) -> list[dict[str, Any]]:
        def look() -> list[dict[str, Any]] | None:
            found = self.alerts()
            return found if all(one["outcome"] != "undecided" for one in found) else None

        return eventually(look, within_s=30)

    def ended(self, execution_id: str) -> str:
        def look() -> str | None:
            execution = self.place.recovery.records.execution(execution_id)
            return str(execution["status"]) if execution is not None and "ended_at" in execution else None

        return eventually(look, within_s=40)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with recovering(tmp_path) as place, serving(Door(place.recovery.alertmanager)) as http:
        yield Here(place, http)


def statuses(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["status"] for one in answer.json()["alerts"]]


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_an_alert_that_fires_is_recovered_and_its_end_closes_the_loop(here: Here) -> None:
    answer = here.post(alert(service="a", severity="critical"))
    assert statuses(answer) == ["stored"]
    (shown,) = here.decided()
    assert shown["id"] == answer.json()["alerts"][0]["id"]
    assert (shown["type"], shown["service"], shown["severity"]) == ("service_down", "a", "critical")
    assert (shown["outcome"], shown["source"], "resolved_at" in shown) == ("run", "alertmanager", False)
    eventually(lambda: here.place.world.restarts == ["a"], within_s=20)

    over = here.post(alert(service="a", severity="critical", ended=BEGAN + 30))
    assert statuses(over) == ["resolved"]
    assert over.json()["alerts"][0]["id"] == shown["id"]
    (closed,) = here.alerts()
    assert closed == shown | {"resolved_at": closed["resolved_at"]}
    assert here.ended(shown["execution_id"]) == "succeeded", "only now: its condition is gone"
    assert here.place.world.restarts == ["a"]
    assert statuses(here.post(alert(service="a", severity="critical", ended=BEGAN + 30))) == ["over"]

    assert statuses(here.post(alert(service="a", severity="critical", began=BEGAN + 60))) == ["stored"]
    assert len(here.decided()) == 2


def test_repeats_and_the_second_alertmanager_of_a_pair_start_nothing(here: Here) -> None:
    first = here.post(alert(service="a"))
    again = alert(service="a")
    again["annotations"]["summary"] = "down for 5 minutes by now"
    second = here.post(again, path=PATHS[1], externalURL="http://alertmanager-2:9093", groupKey="{}:{}")
    assert (statuses(first), statuses(second)) == (["stored"], ["duplicate"])
    assert first.json()["alerts"][0]["id"] == second.json()["alerts"][0]["id"]
    (shown,) = here.decided()
    assert statuses(here.post(alert(service="a", ended=BEGAN + 30))) == ["resolved"]
    assert here.ended(shown["execution_id"]) == "succeeded"
    assert here.place.world.restarts == ["a"]


def test_a_resolved_message_never_starts_anything(here: Here) -> None:
    assert statuses(here.post(alert(service="a", ended=BEGAN + 1))) == ["over"]
    assert here.alerts() == []
    assert here.place.recovery.records.executions(10) == []


def test_a_firing_that_comes_after_its_own_end_starts_nothing(here: Here) -> None:
    began = time.time() - 60
    here.post(alert(service="a", began=began))
    (shown,) = here.decided()
    assert statuses(here.post(alert(service="a", began=began, ended=began + 30))) == ["resolved"]
    late = here.post(alert(service="a", began=began))
    assert statuses(late) == ["over"]
    assert late.json()["alerts"][0]["id"] == shown["id"]
    assert len(here.alerts()) == 1
    assert len(here.place.recovery.records.executions(10)) == 1


def test_what_was_recovery_off_is_decided_again_when_it_is_told_again(here: Here) -> None:
    here.place.recovery.switch(enabled=False, by="ann")
    here.post(alert(service="a"))
    assert here.decided()[0]["outcome"] == "recovery_off"
    here.place.recovery.switch(enabled=True, by="ann")
    assert statuses(here.post(alert(service="a"))) == ["stored"]
    assert here.decided()[0]["outcome"] == "run"


def test_a_group_is_taken_in_order_and_left_out_alerts_are_told(here: Here) -> None:
    group = [alert("MyAlert", number=str(number)) for number in range(300)]
    answer = here.post(*group, alert("MyAlert", number="0", ended=BEGAN + 1), truncatedAlerts=7)
    assert statuses(answer) == ["stored"] * 300 + ["resolved"]
    assert answer.json()["truncated"] == 7
    found = here.decided()
    assert len(found) == 300
    assert {one["outcome"] for one in found} == {"no_match"}
    assert {one["type"] for one in found} == {"my_alert"}


def test_a_nul_in_a_label_or_annotation_blinds_nobody_on_the_link(here: Here) -> None:
    bad = alert(service="a", team="NUL \0") | {"annotations": {"summary": "NUL \0", "half": "NUL \0"}}
    assert statuses(here.post(bad, alert(service="b"))) == ["stored", "stored"]
    answer = Message(Kind.ANSWER, "question-1", {"ok": True, "result": here.alerts()})
    assert len(decode(encode(answer)).body["result"]) == 2


def test_an_empty_group_is_well(here: Here) -> None:
    assert statuses(here.post()) == []


def test_it_is_kept_under_its_own_name_and_on_disk_before_the_answer(here: Here, tmp_path: Path) -> None:
    here.post(alert(service="a"), receiver="local")
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("SELECT client FROM alerts").fetchall() == [("alertmanager",)]
    db.close()


# -- what is refused: nothing of it is taken --------------------------------------------------------------------------


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in alert().items() if name != key}


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "body"),
    "half of a surrogate pair": (b'{"version": "4", "alerts": [], "receiver": "\\ud800"}', 400, "body"),
    "no UTF-8": (b'{"version": "\xff"}', 400, "body"),
    "a list": ([], 422, "body"),
    "no version": ({"alerts": []}, 422, "version"),
    "another version": (notification(version="5"), 422, "version"),
    "no alerts": ({"version": "4"}, 422, "alerts"),
    "alerts of another kind": (notification() | {"alerts": {}}, 422, "alerts"),
    "no fingerprint": (notification(alert(), without("fingerprint")), 422, "alerts.1.fingerprint"),
    "a strange fingerprint": (notification(alert() | {"fingerprint": "../x"}), 422, "alerts.0.fingerprint"),
    "no start": (notification(alert(), without("startsAt")), 422, "alerts.1.startsAt"),
    "a start without a zone": (notification(alert() | {"startsAt": "2026-11-27T04:00:00"}), 422, "alerts.0.startsAt"),
    "an end that is no time": (notification(alert() | {"endsAt": "soon"}), 422, "alerts.0.endsAt"),
    "an unknown status": (notification(alert() | {"status": "unsure"}), 422, "alerts.0.status"),
    "no labels": (notification(alert() | {"labels": {}}), 422, "alerts.0.labels"),
    "a label that is no text": (notification(alert() | {"labels": {"a": {"b": 1}}}), 422, "alerts.0.labels.a"),
    "a negative count": (notification(truncatedAlerts=-1), 422, "truncatedAlerts"),
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """For what takes nothing: its journal stays empty."""
    place_stack = ExitStack()
    with place_stack:
        place = place_stack.enter_context(recovering(tmp_path_factory.mktemp("there")))
        yield Here(place, place_stack.enter_context(serving(Door(place.recovery.alertmanager))))


@pytest.mark.parametrize("what", BAD)
def test_malformed_is_refused_naming_where_and_nothing_is_taken(there: Here, what: str) -> None:
    content, status, where = BAD[what]
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = there.http.post(PATH, content=raw, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["kind"]) == (status, "bad_request"), answer.text
    assert where in answer.json()["error"]
    assert there.alerts() == []


def test_many_faults_are_not_all_told(there: Here) -> None:
    error = there.post(*[without("fingerprint")] * 50).json()["error"]
    assert error.count("fingerprint") == 5
    assert error.endswith("and 45 more")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json", "origin": "http://evil.example"}, 403),
        ({"content-type": "application/json", "host": "evil.example"}, 403),
        ({"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_strangers_and_other_contents_are_refused(there: Here, headers: dict[str, str], status: int) -> None:
    body = json.dumps(notification(alert())).encode()
    assert there.http.post(PATH, content=body, headers=headers).status_code == status
    assert there.alerts() == []


def begun(there: Here, body: bytes) -> socket.socket:
    """A request whose body goes on for longer than is sent here."""
    connection = socket.create_connection((there.http.base_url.host, there.http.base_url.port or 80), timeout=20)
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    return connection


def answered(connection: socket.socket) -> bytes:
    """All the server says until it closes the connection."""
    said = b""
    with connection, suppress(ConnectionError):
        while piece := connection.recv(65536):
            said += piece
    return said


def test_a_body_without_end_is_refused_before_its_end(there: Here) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = answered(begun(there, chunk * (MAX_BODY_BYTES // 65536 + 1)))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"group_by" in answer
    assert there.alerts() == []


def test_a_body_that_does_not_come_is_not_waited_for(there: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertmanager, "READ_WITHIN_S", 0.2)
    assert answered(begun(there, b"1\r\n{\r\n")).startswith(b"HTTP/1.1 408")


def test_a_sender_that_goes_away_leaves_nothing(there: Here) -> None:
    begun(there, b"1\r\n{\r\n").close()
    assert statuses(there.post()) == []
    assert there.alerts() == []


# -- what may pass: it is sent again ----------------------------------------------------------------------------------


@dataclass
class Inbox:
    """A journal that answers when and how the test wants."""

    answers: list[Future[tuple[Taken, ...]]] = field(default_factory=list)

    def take(self, notified: Sequence[Notified]) -> Future[tuple[Taken, ...]]:
        self.answers.append(Future())
        return self.answers[-1]


def test_a_journal_that_cannot_write_is_503_and_nothing_is_half_taken(here: Here) -> None:
    def pages(limit: int) -> None:
        here.place.recovery._journal.submit(lambda db: db.execute(f"PRAGMA max_page_count={limit}").fetchone()).result(
            10
        )

    group = [alert("MyAlert", number=str(number), much="x" * 1000) for number in range(300)]
    pages(1)  # as many as it has, and no more: a full disk
    answer = here.post(*group)
    assert (answer.status_code, answer.json()["kind"]) == (503, "busy"), answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert here.alerts() == []
    pages(1_000_000)
    assert statuses(here.post(*group)) == ["stored"] * 300
    assert len(here.decided()) == 300


def test_a_fault_in_the_middle_takes_back_what_came_before(here: Here) -> None:
    journal = here.place.recovery._journal
    trigger = (
        "CREATE TEMP TRIGGER full BEFORE INSERT ON main.firings WHEN NEW.fingerprint='ffff' BEGIN"
        " SELECT RAISE(ABORT, 'no room'); END"
    )
    journal.submit(lambda db: db.execute(trigger)).result(10)
    good, bad = (Notified(one, BEGAN, None, {"alertname": "ServiceDown", "service": "a"}) for one in ("aaaa", "ffff"))
    with pytest.raises(sqlite3.IntegrityError, match="no room"):
        here.place.recovery.alertmanager.take([good, bad]).result(10)
    assert here.alerts() == []
    assert here.place.world.restarts == []


def test_a_commit_that_does_not_come_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertmanager, "COMMIT_WITHIN_S", 0.2)
    with serving(Door(Inbox())) as http:
        answer = http.post(PATH, json=notification(alert()))
    assert (answer.status_code, "0.2 s" in answer.json()["error"]) == (503, True)


def test_the_answer_waits_for_the_commit_and_more_than_some_at_once_are_put_off() -> None:
    inbox = Inbox()
    answers: list[int] = []

    def post() -> None:
        answers.append(http.post(PATH, json=notification(alert())).status_code)

    with serving(Door(inbox)) as http:
        posting = [threading.Thread(target=post) for _ in range(AT_ONCE)]
        for one in posting:
            one.start()
        eventually(lambda: len(inbox.answers) == AT_ONCE)
        assert answers == []
        late = http.post(PATH, json=notification(alert()))
        assert (late.status_code, "retry-after" in late.headers) == (503, True)
        for waiting in inbox.answers:
            waiting.set_exception(JournalTrouble("the disk is full"))
        for one in posting:
            one.join(10)
        assert answers == [503] * AT_ONCE


# -- the token --------------------------------------------------------------------------------------------------------


def test_only_who_has_the_token_is_heard(tmp_path: Path, here: Here) -> None:
    file = tmp_path / "alertmanager.token"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    with serving(Door(here.place.recovery.alertmanager, TokenFile(file).read)) as http:

        def post(**headers: str) -> httpx.Response:
            return http.post(PATH, json=notification(alert(service="a")), headers=headers)

        for wrong in (
            {},
            {"authorization": "Bearer s3cre"},
            {"authorization": "s3cret"},
            {"authorization": "Basic s3cret"},
        ):
            refused = post(**wrong)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert "s3cret" not in refused.text
        assert here.alerts() == []
        assert post(authorization="Bearer s3cret").status_code == 200
        file.write_text("another\n")
        assert post(authorization="Bearer s3cret").status_code == 401
        file.unlink()
        assert post(authorization="Bearer another").status_code == 503, "a lost token must not open the door"


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"", 0o600, "holds no token"),
        (b"two\nlines", 0o600, "holds no token"),
        ("ü".encode(), 0o600, "holds no token"),
        (b"x" * 5000, 0o600, "holds no token"),
        (b"secret", 0o640, "chmod 600"),
        (b"secret", 0o604, "chmod 600"),
    ],
)
def test_a_token_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, mode: int, problem: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    trouble = TokenFile(file).trouble()
    assert trouble is not None
    assert problem in trouble
    assert str(file) in trouble
    assert "secret" not in trouble


# -- the description --------------------------------------------------------------------------------------------------


def test_openapi_describes_the_body_and_the_answers(there: Here) -> None:
    shown = there.http.get("/openapi.json").json()
    for path in PATHS:
        post = shown["paths"][path]["post"]
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["required"]) == {"version", "alerts"}
        one = schema["properties"]["alerts"]["items"]
        assert {"fingerprint", "startsAt", "endsAt", "status", "labels", "annotations"} <= set(one["properties"])
        assert {"200", "401", "413", "422", "503"} <= set(post["responses"])
    assert '"$ref": "#/$defs' not in json.dumps(shown)


def test_without_a_door_there_is_no_route() -> None:
    server = ApiServer(create_app(FakeManager()), "127.0.0.1:0", None)
    server.start()
    try:
        assert httpx.post(f"{server.address}{PATH}", json={}, trust_env=False).status_code == 404
    finally:
        server.close(10.0)
