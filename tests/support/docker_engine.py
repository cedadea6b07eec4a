"""A real Docker engine for tests: found, else skipped or failed; and an image that needs no network.

``SELFHEAL_REQUIRE_DOCKER=1`` turns a missing engine into a failure. The image is a busybox root made on the spot.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker import DockerClient
from docker.errors import DockerException, ImageNotFound

IMAGE = "selfheal-test:latest"
_APPLETS = ("sh", "sleep", "echo", "cat", "true", "false", "nc", "httpd", "kill", "trap", "date", "head", "tail", "dd")


def require_engine() -> None:
    """Skip the test without an engine; fail it where one is required. Makes the image on first use."""
    why = trouble()
    if why is None:
        return
    if os.environ.get("SELFHEAL_REQUIRE_DOCKER") == "1":
        pytest.fail(f"SELFHEAL_REQUIRE_DOCKER=1, but {why}", pytrace=False)
    pytest.skip(why)


def engine_client() -> DockerClient:
    """A new client; the caller closes it."""
    return docker.from_env(timeout=30)


def remembers_kill(client: DockerClient, container_id: str) -> bool:
    """Whether the engine still knows that somebody sent this container a signal: it keeps its last 256 events of all
    containers, which is not long on a busy one.
    """
    filters = {"type": ["container"], "container": [container_id], "event": ["kill"]}
    now: Any = f"{time.time():.6f}"
    return bool(list(client.api.events(since=1, until=now, filters=filters, decode=True)))


@functools.cache
def trouble() -> str | None:
    """Why there can be no Docker test here; None when there can. Asked once a test run."""
    try:
        client = engine_client()
    except (DockerException, requests.RequestException) as error:
        return f"no Docker engine: {error}"
    try:
        return make_image(client)
    finally:
        client.close()


def make_image(client: DockerClient) -> str | None:
    try:
        client.images.get(IMAGE)
        return None
    except ImageNotFound:
        busybox = shutil.which("busybox")
        if busybox is None:
            return "no busybox (busybox-static) to make the test image from"
    name, _, tag = IMAGE.partition(":")
    client.api.import_image_from_data(_busybox_root(Path(busybox)), repository=name, tag=tag)
    return None


def _busybox_root(busybox: Path) -> bytes:
    """A root file system as tar: one static program and a link for each of its names."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for folder in ("bin", "tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        content = busybox.resolve().read_bytes()
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return made.getvalue()
