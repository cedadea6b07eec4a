"""The worlds a runtime test runs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.docker_place import DockerPlace
from tests.runtimes.worlds import KeptPlace, MemoryPlace, ProcessPlace, World
from tests.support.docker_engine import require_engine


@pytest.fixture(params=[ProcessPlace, KeptPlace], ids=["local", "kept"])
def process_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessPlace]:
    """Services as children of this process, and as children of a keeper."""
    place: ProcessPlace = request.param(tmp_path)
    yield place
    place.close()


@pytest.fixture
def docker_place(tmp_path: Path) -> Iterator[DockerPlace]:
    require_engine()
    place = DockerPlace(tmp_path)
    yield place
    place.close()


@pytest.fixture
def kept_place(tmp_path: Path) -> Iterator[KeptPlace]:
    place = KeptPlace(tmp_path)
    yield place
    place.close()


@pytest.fixture(
    params=["memory", "process", "process-without-pidfd", "kept", pytest.param("docker", marks=pytest.mark.docker)]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    place: World
    match request.param:
        case "memory":
            place = MemoryPlace()
        case "process":
            place = ProcessPlace(tmp_path)
        case "kept":
            place = KeptPlace(tmp_path)
        case "docker":
            require_engine()
            place = DockerPlace(tmp_path)
        case _:
            place = ProcessPlace(tmp_path, use_pidfd=False)
    yield place
    place.close()
