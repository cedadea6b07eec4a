"""The JSON Schema of a runbook file, for editors: made from the very models that read the files.

``python -m runbooks.json_schema`` writes the shipped file; a test keeps it in step. Pure but for that. It is draft 7:
editors know the later ones only in part, and nothing of those is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from runbooks.border import RunbookModel

SHIPPED: Final = Path(__file__).parent / "schemas" / "runbook.schema.json"
DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def schema() -> dict[str, Any]:
    """The schema as a JSON object."""
    made = RunbookModel.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions = made.pop("$defs")
    return {"$schema": DRAFT, **made, "definitions": definitions}


def text() -> str:
    """The schema file's content."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    SHIPPED.write_text(text(), encoding="utf-8")
