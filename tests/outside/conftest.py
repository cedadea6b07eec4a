"""One fake manager, and the ways to it: called directly, over a unix socket, over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisors.api.app import create_app
from supervisors.api.server import ApiServer
from supervisors.manager import Manager
from supervisors.remote import Base, RemoteManager
from tests.outside.fake_manager import FakeManager


@pytest.fixture
def fake() -> FakeManager:
    return FakeManager()


@contextmanager
def serving(manager: Manager, state: Path, tcp: str | None = None) -> Iterator[ApiServer]:
    server = ApiServer(create_app(manager), tcp, state / "operator.sock", address_file=state / "operator.address")
    server.start()
    try:
        yield server
    finally:
        assert server.close(10.0), "the server's thread did not end"


@pytest.fixture
def server(fake: FakeManager, tmp_path: Path) -> Iterator[ApiServer]:
    """Serves the fake on a unix socket in ``tmp_path`` and on a free port."""
    with serving(fake, tmp_path, "127.0.0.1:0") as one:
        yield one


@pytest.fixture(params=["direct", "unix", "tcp"])
def manager(request: pytest.FixtureRequest, fake: FakeManager, tmp_path: Path) -> Iterator[Manager]:
    if request.param == "direct":
        yield fake
        return
    server: ApiServer = request.getfixturevalue("server")
    base = Base(state_dir=tmp_path) if request.param == "unix" else Base(address=server.address)
    with RemoteManager(base) as remote:
        yield remote
