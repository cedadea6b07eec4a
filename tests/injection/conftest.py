"""The corpus, whose strings try to make a file that must not be there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.injection.corpus import load


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The path that strings try to make; nothing may be there afterwards."""
    folder = tmp_path / "marks"
    folder.mkdir()
    yield folder / "made"
    assert list(folder.iterdir()) == []


@pytest.fixture
def corpus(mark: Path) -> tuple[str, ...]:
    return load(mark)
