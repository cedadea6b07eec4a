"""Which alert type other programs' words stand for: ``mapping.json``, for people to read and change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("mapping.json")
MAPPING: Final[Mapping[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
SOURCES: Final = ("systems", "components", "guardian_types", "constraints", "alertnames", "endpoint_kinds")
"""The tables of the file whose rows name a type and the shipped runbook that answers it."""


def _types(table: str) -> dict[str, str]:
    return {word: row["type"] for word, row in MAPPING[table].items()}


TYPE_OF_SYSTEM: Final = _types("systems")
"""The plan's ``system`` and the bridge's."""
TYPE_OF_COMPONENT: Final = _types("components")
"""Guardian's six components (COMPONENT_FAILURE)."""
TYPE_OF_GUARDIAN: Final = _types("guardian_types")
"""Guardian's other alerts; one that is not here is taken in small letters."""
TYPE_OF_CONSTRAINT: Final = _types("constraints")
DEFAULT_TYPE: Final[str] = MAPPING["default"]["type"]
TYPE_OF_ALERTNAME: Final = _types("alertnames")
"""The platform's Prometheus rules; a name that is not here is taken in snake_case."""
SERVICE_OF_ALERTNAME: Final[dict[str, str]] = {
    name: row["service"] for name, row in MAPPING["alertnames"].items() if "service" in row
}
"""Which service an alert is about, whatever its labels say."""
SYSTEM_OF_KIND: Final[dict[str, str]] = {kind: row["system"] for kind, row in MAPPING["endpoint_kinds"].items()}
"""What an endpoint of a kind stands for when its name does not say it."""
SERVICE_LABELS: Final[tuple[str, ...]] = tuple(MAPPING["service_labels"])
"""Where an alert's service is looked for, in this order."""
MACHINE_TYPES: Final[frozenset[str]] = frozenset(MAPPING["machine_types"])
"""Often about a whole machine: the exporter that noticed (`job="node"`) is not the service at fault."""
SEVERITY_OF_LABEL: Final[dict[str, str]] = MAPPING["severities"]
"""Any other `severity` label, and none at all, is high."""
