"""What a test measured and wants to be seen, also when it ran in a worker: ``record_property(TABLE, text)``."""

from __future__ import annotations

from typing import Final

TABLE: Final = "table"
