"""What the daemon hears of an endpoint (a line, a folder that is full, an executor's exit), as an alert. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge_link.report import as_report
from guardian_link.mapping import SYSTEM_OF_KIND, TYPE_OF_SYSTEM

ENDPOINT: Final = "endpoint"


def endpoint_error(endpoint: str, kind: str | None, service: str | None, error: Mapping[str, Any]) -> dict[str, Any]:
    """The alert's fields: which endpoint it is about, and which service stands behind it.

    Args:
        kind: the endpoint's, of the configuration. It says what the endpoint stands for when neither the error nor the
            endpoint's name does.
        service: the endpoint's ``service`` setting; an error that names a service itself keeps it.
    """
    said = as_report({"system": system_of(endpoint, kind), **error})
    inner = said.get("labels")
    if isinstance(inner, Mapping):  # an endpoint speaks for itself only
        said["labels"] = {key: value for key, value in inner.items() if key != ENDPOINT}
    said[ENDPOINT] = endpoint
    if service is not None and not {"service", "service_name"} & said.keys():
        said["service"] = service
    return {**said, "source": sender_of(endpoint)}


def sender_of(endpoint: str) -> str:
    """Who says so: never the daemon itself, whose labels count for more than others'; no key is named so."""
    return f"bridge:{endpoint}"


def endpoint_labels(endpoint: str, kind: str | None) -> dict[str, Any]:
    """What an alert of the daemon's own says of the endpoint it is about."""
    return {ENDPOINT: endpoint, "system": system_of(endpoint, kind)}


def system_of(endpoint: str, kind: str | None) -> str:
    """What an endpoint stands for: its name says so, else its kind, else it is a system of its own."""
    return endpoint if endpoint in TYPE_OF_SYSTEM else SYSTEM_OF_KIND.get(kind or "", endpoint)
