"""``guardian_link/mapping.json`` as the table of docs/alert-sources.md: ``python -m tests.links.mapping_table``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from guardian_link.mapping import MAPPING, SOURCES

DOC: Final = Path(__file__).parents[2] / "docs" / "alert-sources.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
SAID_BY: Final = {
    "systems": "`system`",
    "components": "Guardian, COMPONENT_FAILURE: `component`",
    "guardian_types": "Guardian: `type`",
    "constraints": "`constraint_type`",
    "alertnames": "Alertmanager: `alertname`",
    "endpoint_kinds": "the daemon, of an endpoint whose name is no `system`: `kind`",
}


def lines() -> Iterator[str]:
    yield "| from | word | alert type | runbook | with labels | why nothing is done by itself |"
    yield "|---|---|---|---|---|---|"
    for table in SOURCES:
        for word, row in MAPPING[table].items():
            needs = ", ".join(row.get("needs", ()))
            cells = (SAID_BY[table], word, row["type"], row["runbook"], needs, row.get("reason", ""))
            yield f"| {' | '.join(cells)} |"


def text() -> str:
    before, _, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n" + "\n".join(lines()) + "\n\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    DOC.write_text(text(), encoding="utf-8")
