"""The HTTP interface over real sockets: routes, errors, strangers' browsers, the server's beginning and end."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from actors.board import NodeState
from supervisors.api.app import create_app
from supervisors.api.guard import is_loopback, refusal
from supervisors.api.logs import FOLLOWERS_MAX
from supervisors.api.server import ApiServer, OperatorUnavailable
from supervisors.manager import CommandFailed, DaemonUnreachable
from supervisors.remote import Base, RemoteManager
from tests.outside.conftest import serving
from tests.outside.fake_manager import FakeManager
from tests.support.eventually import eventually


@pytest.fixture
def http(server: ApiServer) -> Iterator[httpx.Client]:
    assert server.address is not None
    with httpx.Client(base_url=server.address, timeout=30, trust_env=False) as client:
        yield client


def test_the_plans_routes(http: httpx.Client, fake: FakeManager) -> None:
    assert http.get("/services/status").json()["services"] == fake.services()
    for route in ("start-all", "stop-all", "restart-all"):
        assert http.post(f"/services/{route}").status_code == 200
    for route in ("start", "stop", "restart"):
        answer = http.post(f"/services/web/{route}")
        assert answer.status_code == 200
        assert answer.json()["service"]["name"] == "web"
    assert [call[0] for call in fake.calls[-3:]] == ["start", "stop", "restart"]
    assert fake.calls[-1][2] == "http"


def test_v1_has_the_shapes_of_the_command_line(http: httpx.Client, fake: FakeManager) -> None:
    assert http.get("/v1/tree").json() == fake.tree()
    assert http.get("/v1/services").json() == {"schema": 1, "services": fake.services()}
    assert http.get("/v1/alerts").json() == {"schema": 1, "alerts": fake.alerts()}
    assert http.get("/v1/executions/e-1").json() == {"schema": 1, "executions": [fake.execution("e-1")]}
    assert http.post("/v1/recovery", json={"enabled": False}).json()["enabled"] is False
    assert http.get("/v1/recovery").json() == {"schema": 1, "enabled": False, "active": 1, "queued": 0}


def test_docs_are_there(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/services/start-all", "/services/{name}/restart", "/v1/tree", "/healthz"} <= set(paths)


@pytest.mark.parametrize(
    ("path", "state", "status", "code"),
    [
        ("root/services/web", NodeState.READY, "healthy", 200),
        ("root/services/web", NodeState.CRASH_LOOP, "degraded", 200),
        ("root/links/guardian", NodeState.FAILED, "unhealthy", 503),
        ("root", NodeState.STOPPING, "unhealthy", 503),
    ],
)
def test_healthz(http: httpx.Client, fake: FakeManager, path: str, state: NodeState, status: str, code: int) -> None:
    fake.put(path, state=state)
    answer = http.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (code, status)
    assert answer.json()["pid"] == fake.pid
    assert answer.json()["down"] == ([] if status == "healthy" else [path.rsplit("/", 1)[-1]])


def test_errors_are_json_with_what_to_do(http: httpx.Client, fake: FakeManager) -> None:
    unknown = http.post("/services/wen/restart")
    assert unknown.status_code == 404
    assert unknown.json()["suggestion"] == "web"
    assert "'wen'" in unknown.json()["error"]
    fake.broken.add("web")
    assert http.post("/services/web/start").status_code == 409
    assert http.post("/services/web/restart").status_code == 504
    some = http.post("/services/start-all")
    assert some.status_code == 409
    assert some.json()["error"] == "1 of 3 services failed: web"
    assert len(some.json()["results"]) == 3
    assert http.post("/services/web/start", params={"timeout_s": "soon"}).status_code == 422
    assert http.get("/v1/wait/web", params={"state": "asleep"}).status_code == 422
    assert http.post("/v1/recovery", json={"enabled": True, "extra": 1}).status_code == 422
    nowhere = http.get("/v2/tree")
    assert nowhere.status_code == 404
    assert "/v2/tree" in nowhere.json()["error"]
    assert http.get("/services/start-all").status_code == 405


def test_a_fault_of_ours_is_told_and_the_server_lives(
    http: httpx.Client, fake: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(fake, "statistics", broken)
    answer = http.get("/v1/statistics")
    assert answer.status_code == 500
    assert "boom" in answer.json()["error"]
    assert http.get("/v1/tree").status_code == 200


# -- strangers' browsers ----------------------------------------------------------------------------------------------


def test_a_foreign_host_header_is_refused(http: httpx.Client, fake: FakeManager) -> None:
    for host in ("evil.example", "evil.example:8090", "127.0.0.1.evil.example", "192.168.1.5", ""):
        assert http.get("/v1/tree", headers={"host": host}).status_code == 403, host
        assert http.post("/services/stop-all", headers={"host": host}).status_code == 403
    for host in ("localhost", "127.0.0.1:8090", "[::1]:8090", "LOCALHOST:1"):
        assert http.get("/v1/tree", headers={"host": host}).status_code == 200, host
    assert fake.calls == []


def test_a_page_of_another_origin_changes_nothing(http: httpx.Client, fake: FakeManager) -> None:
    own = str(http.base_url).rstrip("/")
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert http.post("/services/stop-all", headers=headers).status_code == 403, headers
    assert fake.calls == []
    assert http.post("/services/web/stop", headers={"origin": own, "sec-fetch-site": "same-origin"}).status_code == 200


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "Localhost.")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "example.com")))
    assert refusal("GET", {}) is not None
    assert refusal("GET", {"host": "[::1"}) is not None


# -- logs -------------------------------------------------------------------------------------------------------------


def test_a_followed_log_is_json_lines_that_show_life(http: httpx.Client, fake: FakeManager) -> None:
    with http.stream("GET", "/v1/logs/web", params={"lines": 1, "follow": "true"}) as answer:
        said = answer.iter_lines()
        assert next(said) == "{}"
        assert json.loads(next(said)) == {"line": "three ü"}
        assert next(said) == "{}"
        fake.log("more")
        assert json.loads(next(one for one in said if one != "{}")) == {"line": "more"}
    eventually(lambda: fake.followers == 0, what="the follower left when its reader did")


def test_too_many_followers_do_not_starve_the_others(server: ApiServer, fake: FakeManager) -> None:
    assert server.address is not None
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=server.address, timeout=30, trust_env=False, limits=limits) as http:
        open_ones = []
        for _ in range(FOLLOWERS_MAX):
            request = http.build_request("GET", "/v1/logs/web", params={"follow": "true"})
            open_ones.append(http.send(request, stream=True))
        eventually(lambda: fake.followers == FOLLOWERS_MAX)
        assert http.get("/v1/logs/web", params={"follow": "true"}).status_code == 503
        assert http.get("/v1/tree").status_code == 200
        for one in open_ones:
            one.close()
        eventually(lambda: fake.followers == 0)


# -- the server -------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_told_by_the_start(fake: FakeManager) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = ApiServer(create_app(fake), address, None)
        with pytest.raises(OperatorUnavailable, match=rf"{address}: is in use by another program; change links"):
            server.start()
        assert not server.is_alive


@pytest.mark.parametrize("address", ["0.0.0.0:0", "10.1.2.3:80", "8090", "127.0.0.1:http", "127.0.0.1:99999"])
def test_other_addresses_are_refused(fake: FakeManager, address: str) -> None:
    with pytest.raises(OperatorUnavailable, match="operator address"):
        ApiServer(create_app(fake), address, None).start()


def test_the_unix_socket_is_for_its_owner_only_and_goes_away(fake: FakeManager, tmp_path: Path) -> None:
    path = tmp_path / "operator.sock"
    with serving(fake, tmp_path, "127.0.0.1:0") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (tmp_path / "operator.address").read_text() == f"{server.address}\n"
    assert not path.exists()
    assert not (tmp_path / "operator.address").exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(fake: FakeManager, tmp_path: Path) -> None:
    path = tmp_path / "operator.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(fake, tmp_path), RemoteManager(Base(state_dir=tmp_path)) as remote:
        assert remote.info() == fake.info()
        with pytest.raises(OperatorUnavailable, match="another daemon listens there"):
            ApiServer(create_app(fake), None, path).start()
        assert remote.info() == fake.info(), "the refused one took nothing away"


def test_something_else_in_the_sockets_place_is_left_alone(fake: FakeManager, tmp_path: Path) -> None:
    path = tmp_path / "operator.sock"
    path.write_text("precious")
    with pytest.raises(OperatorUnavailable, match="something else is there"):
        ApiServer(create_app(fake), None, path).start()
    assert path.read_text() == "precious"


def test_a_state_directory_with_a_long_name_falls_back_to_loopback(fake: FakeManager, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 110)
    deep.mkdir()
    with serving(fake, deep) as server, RemoteManager(Base(state_dir=deep)) as remote:
        assert server.unix_path is None
        assert remote.info() == fake.info()


def test_a_closed_server_can_be_started_again(fake: FakeManager, tmp_path: Path) -> None:
    server = ApiServer(create_app(fake), "127.0.0.1:0", tmp_path / "operator.sock")
    for _ in range(2):
        server.start()
        with RemoteManager(Base(state_dir=tmp_path)) as remote:
            assert remote.info() == fake.info()
            assert next(remote.log_follow("web", 1, closed=threading.Event())) == "three ü"
        assert server.close(10.0)
        assert not server.is_alive


def test_readers_and_waiters_do_not_delay_the_close(fake: FakeManager, tmp_path: Path) -> None:
    server = ApiServer(create_app(fake), None, tmp_path / "operator.sock")
    server.start()
    ended: list[str] = []

    def follow() -> None:
        with RemoteManager(Base(state_dir=tmp_path)) as remote:
            with suppress(DaemonUnreachable):
                list(remote.log_follow("web", closed=threading.Event()))
            ended.append("follow")

    def wait() -> None:
        with RemoteManager(Base(state_dir=tmp_path)) as remote:
            with pytest.raises(Exception, match=r"ending|broke off|no daemon answers"):
                remote.wait_for("web", "failed", timeout_s=600)
            ended.append("wait")

    threads = [threading.Thread(target=one) for one in (follow, wait)]
    for one in threads:
        one.start()
    eventually(lambda: fake.followers == 1)
    began = time.monotonic()
    assert server.close(20.0)
    assert time.monotonic() - began < 15
    for one in threads:
        one.join(20)
    assert sorted(ended) == ["follow", "wait"]
    eventually(lambda: fake.followers == 0)


# -- finding it -------------------------------------------------------------------------------------------------------


def test_no_daemon_says_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match=str(tmp_path)):
        RemoteManager(Base(state_dir=tmp_path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "operator.sock"))
    with pytest.raises(DaemonUnreachable, match=str(tmp_path)):
        RemoteManager(Base(state_dir=tmp_path))
    with RemoteManager(Base(address="127.0.0.1:9")) as remote, pytest.raises(DaemonUnreachable, match=r"127.0.0.1:9"):
        remote.tree()


def test_the_token_is_sent(fake: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    app = create_app(fake)

    @app.middleware("http")
    async def look(request, call_next):  # type: ignore[no-untyped-def]
        seen.append(request.headers.get("authorization"))
        return await call_next(request)

    server = ApiServer(app, "127.0.0.1:0", None)
    server.start()
    with RemoteManager(Base(address=server.address, token="secret")) as remote:
        remote.info()
    assert server.close(10.0)
    assert seen == ["Bearer secret"]


def test_a_stranger_on_the_address_is_no_selfheal(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")

        stranger = threading.Thread(target=answer)
        stranger.start()
        with (
            RemoteManager(Base(address=f"http://127.0.0.1:{port}")) as remote,
            pytest.raises(CommandFailed, match="is it a selfheal"),
        ):
            remote.tree()
        stranger.join(10)
