"""The JSON Schema of the configuration, for editors: ``python -m config.json_schema`` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from config.models import SystemConfig

FILE: Final = Path(__file__).resolve().parent / "schemas" / "selfheal.schema.json"


def schema() -> dict[str, Any]:
    made = SystemConfig.model_json_schema()
    service = made["$defs"]["ServiceConfig"]["properties"]
    service["restart_delay"] = {"$ref": "#/$defs/BackoffConfig/properties/initial", "description": "backoff.initial"}
    service["health_check_url"] = {"type": "string", "description": "health_check.http"}
    service["health_check_interval"] = {"$ref": "#/$defs/HealthCheckConfig/properties/interval"}
    service["health_check_timeout"] = {"$ref": "#/$defs/HealthCheckConfig/properties/timeout"}
    service["health_check_retries"] = {"$ref": "#/$defs/HealthCheckConfig/properties/retries"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **made,
        "title": "Selfheal configuration",
        "required": ["version"],
    }


def text() -> str:
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
