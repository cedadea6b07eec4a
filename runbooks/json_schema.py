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


_NAME: Final = "Runbook"
_VERSION_1: Final[dict[str, Any]] = {
    "description": "A file of the earlier version; 'selfheal runbook lint' says what becomes of it. A new one begins "
    'with "schema_version": 2.',
    "properties": {
        "schema_version": {"const": 1},
        "id": {"type": "string"},
        "name": {"type": "string"},
        "description": {"type": "string"},
        "error_patterns": {"type": "array", "items": {"type": "string"}},
        "error_conditions": {"type": "object"},
        "actions": {"type": "array", "items": {"type": "object", "required": ["id", "action_type"]}, "minItems": 1},
        "max_execution_time": {"type": "number", "exclusiveMinimum": 0},
        "auto_execute": {"type": "boolean"},
        "requires_approval": {"type": "boolean"},
        "success_criteria": {"type": "array", "items": {"type": "string"}},
        "rollback_on_failure": {"type": "boolean"},
    },
    "required": ["id", "actions"],
}


def schema() -> dict[str, Any]:
    """The schema as a JSON object: of version 2, and in outline of version 1."""
    made = RunbookModel.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions = made.pop("$defs")
    return {
        "$schema": DRAFT,
        "title": "A runbook of Selfheal",
        "type": "object",
        "if": {"properties": {"schema_version": {"const": 2}}, "required": ["schema_version"]},
        "then": {"$ref": f"#/definitions/{_NAME}"},
        "else": _VERSION_1,
        "definitions": {**definitions, _NAME: made},
    }


def text() -> str:
    """The schema file's content."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    SHIPPED.write_text(text(), encoding="utf-8")
