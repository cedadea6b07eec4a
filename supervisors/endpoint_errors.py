"""An error the daemon hears of an endpoint (a line, a folder that is full, an executor's exit), as an alert. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge_link.report import as_report
from guardian_link.mapping import SYSTEM_OF_KIND, TYPE_OF_SYSTEM


def endpoint_error(endpoint: str, kind: str | None, service: str | None, error: Mapping[str, Any]) -> dict[str, Any]:
    """The alert's fields: which endpoint it is about, and which service stands behind it.

    Args:
        kind: the endpoint's, of the configuration. It says what the endpoint stands for when neither the error nor the
            endpoint's name does.
        service: the endpoint's ``service`` setting; an error that names a service itself keeps it.
    """
    system = endpoint if endpoint in TYPE_OF_SYSTEM else SYSTEM_OF_KIND.get(kind or "", endpoint)
    said = as_report({"system": system, **error})
    said["endpoint"] = endpoint
    if service is not None and not {"service", "service_name"} & said.keys():
        said["service"] = service
    return {**said, "source": f"bridge:{endpoint}"}
