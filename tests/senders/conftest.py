"""One daemon with keys for each module, and each sender built once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.senders.programs import Missing, Sender, build, new_key
from tests.system.running import SLEEPER, Running, daemon, write_config

GetSender = Callable[[str], Sender]


@pytest.fixture(scope="session")
def sender_of(tmp_path_factory: pytest.TempPathFactory) -> GetSender:
    """A language's sender; the test is skipped where it cannot be had."""
    folder = tmp_path_factory.mktemp("senders")

    @functools.cache
    def built(language: str) -> Sender | Missing:
        try:
            return build(language, folder)
        except Missing as missing:
            return missing

    def get(language: str) -> Sender:
        found = built(language)
        if isinstance(found, Missing):
            pytest.skip(f"{language}: {found}")
        return found

    return get


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The real daemon, CURVE on as it is by default."""
    folder = tmp_path_factory.mktemp("daemon")
    config = write_config(folder, {"web": SLEEPER})
    new_key(folder / "state", "desk", folder)
    with daemon(config, folder / "state") as running:
        yield running


@pytest.fixture(scope="module")
def key_file(place: Running) -> Path:
    """Of a client called ``desk``."""
    return place.state.parent / "desk.key"
