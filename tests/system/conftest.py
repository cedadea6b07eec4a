"""What several of these tests share: the real Docker engine, and names that are taken away again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from docker import DockerClient

from tests.support.docker_engine import engine_client, require_engine


@pytest.fixture
def engine() -> Iterator[DockerClient]:
    require_engine()
    client = engine_client()
    yield client
    client.close()


@pytest.fixture
def tag(engine: DockerClient) -> Iterator[str]:
    """A word in the names of this test's containers; they are removed at the end."""
    word = f"t{uuid.uuid4().hex[:8]}"
    yield word
    for container in engine.containers.list(all=True, ignore_removed=True):
        if word in (container.name or ""):
            container.remove(force=True)
