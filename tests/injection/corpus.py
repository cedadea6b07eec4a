"""The corpus of ``corpus.json``: strings that must never be more than data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

MARK: Final = "@MARK@"
LONG: Final = 5000


def load(mark: Path) -> tuple[str, ...]:
    """Every string once, in the order of the file. ``mark``: the path that strings try to make."""
    raw: dict[str, Any] = json.loads(Path(__file__).with_name("corpus.json").read_text(encoding="ascii"))
    found = [
        wrap.replace("@", core.replace(MARK, "\0MARK\0")).replace("\0MARK\0", str(mark))
        for family in raw["families"]
        for wrap in family["wraps"]
        for core in family["cores"]
    ]
    found += [one * (LONG // len(one)) for one in raw["long"]]
    return tuple(dict.fromkeys(found))
