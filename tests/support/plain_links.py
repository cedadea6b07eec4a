"""For tests that speak to a scripted daemon, whose link has no keys: clients are told so as by a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge_link.keys import CURVE_OFF
from bridge_link.private_files import write_private


@pytest.fixture(autouse=True)
def key_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``$SELFHEAL_KEY`` names. A module whose daemon is a real one overrides it."""
    file = tmp_path_factory.mktemp("keys") / "off.key"
    write_private(file, CURVE_OFF)
    monkeypatch.setenv("SELFHEAL_KEY", str(file))
    return file
