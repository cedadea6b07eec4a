"""Alertmanager's alerts in our words. Pure: plain data in and out; nothing that Alertmanager sends is refused here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from guardian_link.mapping import (
    MACHINE_TYPES,
    SERVICE_LABELS,
    SERVICE_OF_ALERTNAME,
    SEVERITY_OF_LABEL,
    TYPE_OF_ALERTNAME,
)
from guardian_link.messages import MAX_MESSAGE_CHARS, Alert, is_service_name

SOURCE: Final = "alertmanager"
UNNAMED_TYPE: Final = "unnamed_alert"
"""For an alert without an ``alertname``, or with one in which no ASCII letter or digit stands."""
MAX_TYPE_CHARS: Final = 100
MAX_LABEL_CHARS: Final = 1024
_WORD_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER: Final = re.compile(r"[^a-z0-9]+")
_PORT: Final = re.compile(r":\d{1,5}\Z")


@dataclass(frozen=True, slots=True)
class Notified:
    """One alert of a notification.

    Args:
        fingerprint: of its labels, by Alertmanager.
        starts_at: since when it fires, in Unix seconds.
        ends_at: when it ended, in Unix seconds; None: it fires.
    """

    fingerprint: str
    starts_at: float
    ends_at: float | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    generator_url: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """What its words stand for. Alert names to types and to services, ``severity`` labels to ours, and the labels that
    name a service, best first.
    """

    types: Mapping[str, str] = field(default_factory=lambda: TYPE_OF_ALERTNAME)
    services: Mapping[str, str] = field(default_factory=lambda: SERVICE_OF_ALERTNAME)
    severities: Mapping[str, str] = field(default_factory=lambda: SEVERITY_OF_LABEL)
    service_labels: tuple[str, ...] = SERVICE_LABELS


def extended(
    types: Mapping[str, str], services: Mapping[str, str], severities: Mapping[str, str], labels: tuple[str, ...]
) -> Words:
    """The shipped tables with a user's entries laid over them."""
    return Words(
        {**TYPE_OF_ALERTNAME, **types},
        {**SERVICE_OF_ALERTNAME, **services},
        {**SEVERITY_OF_LABEL, **{name.lower(): ours for name, ours in severities.items()}},
        labels,
    )


def alert_of(notified: Notified, words: Words, is_known: Callable[[str], bool]) -> Alert:
    """The alert as the inbox takes it.

    Args:
        is_known: whether a name is that of a service here.
    """
    name = notified.labels.get("alertname", "")
    kind = words.types.get(name) or snake_case(name)
    severity = words.severities.get(notified.labels.get("severity", "").strip().lower(), "high")
    return Alert(
        type=kind,
        service=words.services.get(name) or service_of(notified.labels, words.service_labels, kind, is_known),
        severity=severity,
        message=_message(notified),
        source=SOURCE,
        labels=_facts(notified),
        dedup_key=f"{SOURCE}:{notified.fingerprint}",
        id=firing_id(notified),
    )


def firing_id(notified: Notified) -> str:
    """The same for every repeat of the same firing, whichever Alertmanager of a cluster sends it."""
    return f"am-{notified.fingerprint}-{round(notified.starts_at * 1000)}"


def snake_case(name: str) -> str:
    """``HighCPUUsage`` -> ``high_cpu_usage``."""
    words = _OTHER.sub("_", _WORD_BOUNDARY.sub("_", name).lower()).strip("_")
    return words[:MAX_TYPE_CHARS].rstrip("_") or UNNAMED_TYPE


def service_of(
    labels: Mapping[str, str], wanted: tuple[str, ...], kind: str, is_known: Callable[[str], bool]
) -> str | None:
    """The first of the wanted labels that names a service here; if none does, the first that may be a name at all.

    An address (``instance``) and, for what may be a machine's trouble, a scrape job are believed only when they name a
    service here.
    """
    found = [(label, _PORT.sub("", labels.get(label, "").strip())) for label in wanted]
    names = [(label, name) for label, name in found if is_service_name(name)]
    for _, name in names:
        if is_known(name):
            return name
    doubtful = {"instance", "job", "container"} if kind in MACHINE_TYPES else {"instance"}
    return next((name for label, name in names if label not in doubtful), None)


def _message(notified: Notified) -> str:
    said = [notified.annotations.get(key, "").strip() for key in ("summary", "description", "message")]
    text = ": ".join(dict.fromkeys(part for part in said if part))
    return _cut(text or notified.labels.get("alertname", ""), MAX_MESSAGE_CHARS)


def _facts(notified: Notified) -> dict[str, Any]:
    """All labels as they are; beside them, under names that no label of Prometheus has, where the alert is from."""
    facts = {_cut(key, MAX_LABEL_CHARS): _cut(value, MAX_LABEL_CHARS) for key, value in notified.labels.items()}
    for key, value in notified.annotations.items():
        if key not in ("summary", "description", "message"):
            facts[f"annotation:{_cut(key, MAX_LABEL_CHARS)}"] = _cut(value, MAX_LABEL_CHARS)
    facts["alertmanager:fingerprint"] = notified.fingerprint
    if notified.generator_url:
        facts["alertmanager:generator_url"] = _cut(notified.generator_url, MAX_LABEL_CHARS)
    return facts


def _cut(text: str, limit: int) -> str:
    """Short, and text that can be sent: with NUL or half a surrogate pair in it no answer could hold it."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"
