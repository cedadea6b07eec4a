"""The JSON Schema of a runbook file, for editors: made from the very models that read the files.

``python -m runbooks.json_schema`` writes the shipped file; a test keeps it in step. Pure but for that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from runbooks.border import RunbookModel

SHIPPED: Final = Path(__file__).parent / "schemas" / "runbook.schema.json"


def text() -> str:
    """The schema file's content."""
    schema = RunbookModel.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


if __name__ == "__main__":
    SHIPPED.write_text(text(), encoding="utf-8")
