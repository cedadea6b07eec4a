"""The arguments every call of a runbook takes, and which values fit. Pure; one row per call type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runbooks.model import CallType
from runbooks.templating import placeholders

PLACEHOLDER: Final = re.compile(r"\{[a-z][a-z0-9_]*\}")
SECRET: Final = "secret"  # noqa: S105  the key, no secret
"""An argument ``{"secret": "NAME"}`` is replaced by that secret's value when the call is made, and never before."""


@dataclass(frozen=True, slots=True)
class Arguments:
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        return self.required | self.optional


def _takes(*required: str, may: tuple[str, ...] = ()) -> Arguments:
    return Arguments(frozenset(required), frozenset(may))


_SERVICE: Final = _takes("service")
_ENDPOINT: Final = _takes("endpoint")
_ARGV: Final = _takes("argv", may=("working_dir", "run_as", "environment"))
_DATABASE: Final = ("service", "url", "engine")
_OPERATION: Final = (*_DATABASE, "share", "idle_for", "blocked_for", "keys", "keep")
OPERATIONS: Final = ("health", "terminate_idle", "terminate_blocking", "clear_locks", "restore_locks")
ALIASES: Final = {"kill_idle": "terminate_idle", "unblock": "terminate_blocking"}
"""Redis's words for the same operations."""
ARGUMENTS: Final[Mapping[CallType, Arguments]] = {
    CallType.SERVICE_RESTART: _SERVICE,
    CallType.SERVICE_START: _SERVICE,
    CallType.SERVICE_STOP: _SERVICE,
    CallType.SERVICE_SCALE: _takes("service", "replicas"),
    CallType.SERVICE_RESTORE: _SERVICE,
    CallType.SERVICE_EXISTS: _SERVICE,
    CallType.SERVICE_WANTED: _SERVICE,
    CallType.SERVICE_READY: _SERVICE,
    CallType.SERVICE_GENERATION: _SERVICE,
    CallType.SERVICE_RESTORED: _SERVICE,
    CallType.SERVICE_SCALED: _takes("service", "replicas"),
    CallType.SERVICE_USAGE_BELOW: _takes("service", may=("cpu_percent", "memory_mb")),
    CallType.COMMAND: _ARGV,
    CallType.COMMAND_OK: _ARGV,
    CallType.HTTP_REQUEST: _takes("url", may=("method", "headers", "body", "expect")),
    CallType.HTTP_OK: _takes("url", may=("expect", "value")),
    CallType.TCP_CONNECT: _takes("port", may=("host",)),
    CallType.DNS_RESOLVES: _takes("host", may=("address",)),
    CallType.PING: _takes("host", may=("count",)),
    CallType.BRIDGE_COMMAND: _takes("endpoint", "command", may=("parameters",)),
    CallType.BRIDGE_HEALTH: _ENDPOINT,
    CallType.BRIDGE_EXISTS: _ENDPOINT,
    CallType.BRIDGE_READY: _ENDPOINT,
    CallType.BRIDGE_HEALTHY: _ENDPOINT,
    CallType.BRIDGE_OFFERS: _takes("endpoint", "commands", may=("or_restart",)),
    CallType.BRIDGE_DONE: _ENDPOINT,
    CallType.CONFIGURATION_CHANGE: _takes("file", may=("format", "set", "remove")),
    CallType.CONFIGURATION_RESTORE: _takes("file"),
    CallType.CONFIGURATION_IS: _takes("file", may=("format", "set", "remove")),
    CallType.CONFIGURATION_RESTORED: _takes("file"),
    CallType.RESOURCE_CLEANUP: _takes(
        "root",
        may=(
            "patterns",
            "older_than",
            "larger_than",
            "keep_newest",
            "most_files",
            "quarantine",
            "until_free",
            "open_files",
        ),
    ),
    CallType.CLEANUP_RESTORE: _takes("root"),
    CallType.CLEANUP_DONE: _takes("root"),
    CallType.CLEANUP_RESTORED: _takes("root"),
    CallType.DISK_FREE: _takes("path", "at_least"),
    CallType.DATABASE_OPERATION: _takes("operation", may=_OPERATION),
    CallType.DATABASE_OK: _takes(may=_DATABASE),
    CallType.DATABASE_SESSIONS_BELOW: _takes("share", may=_DATABASE),
    CallType.DATABASE_UNBLOCKED: _takes(may=(*_DATABASE, "blocked_for", "keys")),
    CallType.DATABASE_RESTORED: _takes("keys", may=_DATABASE),
    CallType.NOTIFY: _takes("message", may=("channel", "severity")),
    CallType.NOTIFIED: _takes(may=("channel",)),
    CallType.CUSTOM_FUNCTION: _takes("name", may=("parameters",)),
    CallType.CUSTOM_OK: _takes("name", may=("parameters",)),
    CallType.ALERT_CLEARED: _takes(may=("quiet_for",)),
    CallType.TIME_PASSED: _takes(),
}


RESULTS: Final[Mapping[CallType, frozenset[str]]] = {
    CallType.SERVICE_RESTART: frozenset({"run"}),
    CallType.SERVICE_START: frozenset({"run"}),
    CallType.SERVICE_STOP: frozenset(),
    CallType.SERVICE_SCALE: frozenset({"replicas"}),
    CallType.BRIDGE_HEALTH: frozenset({"state", "error", "commands", "service", "service_wanted", "directory"}),
}
"""The fields of what a call gives back, for ``outputs``; a type that is not here gives back what it likes (a program's
or a server's JSON). A contract test holds it against the real calls.
"""
EXAMPLES: Final[Mapping[CallType, Any]] = {
    CallType.SERVICE_RESTART: {"run": 2},
    CallType.SERVICE_START: {"run": 2},
    CallType.SERVICE_SCALE: {"replicas": 1},
    CallType.BRIDGE_HEALTH: {
        "state": "healthy",
        "error": "",
        "commands": {},
        "service": None,
        "service_wanted": None,
        "directory": None,
    },
}
"""Such results, where a runbook's own test says nothing else."""


def is_placeholder(value: Any) -> bool:
    return isinstance(value, str) and PLACEHOLDER.fullmatch(value) is not None


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {SECRET} and isinstance(value[SECRET], str)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _is_number(value: Any) -> bool:
    return is_placeholder(value) or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)


def _is_port(value: Any) -> bool:
    return is_placeholder(value) or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536)


def _are_named_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) or is_secret(one) for one in value.values())


def _are_statuses(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int) and 100 <= one < 600 for one in value)


def _is_url(value: Any) -> bool:
    """Which server it goes to stands in it: no value of an alert chooses a part of that."""
    return isinstance(value, str) and re.match(r"https?://[^/{}?#]+(?=[/?#]|$)", value) is not None


def _is_amount(value: Any) -> bool:
    return _is_number(value) or (
        isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?(%|[kMGT]?i?B)?", value) is not None
    )


def _is_duration(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?(ms|s|m|h|d)", value) is not None)


_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "service": _is_text,
    "replicas": _is_number,
    "cpu_percent": _is_number,
    "memory_mb": _is_number,
    "working_dir": _is_text,
    "host": _is_text,
    "address": _is_text,
    "count": _is_number,
    "port": _is_port,
    "argv": _are_texts,
    "method": lambda value: value in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    "headers": _are_named_texts,
    "environment": _are_named_texts,
    "run_as": _is_text,
    "open_files": lambda value: isinstance(value, bool),
    "body": lambda _: True,
    "expect": _are_statuses,
    "value": _is_text,
    "endpoint": _is_text,
    "command": _is_text,
    "commands": _are_texts,
    "or_restart": lambda value: isinstance(value, bool),
    "parameters": _is_map,
    "file": _is_text,
    "format": lambda value: value in ("json", "yaml", "toml", "ini", "systemd"),
    "set": _is_map,
    "remove": _are_texts,
    "root": _is_text,
    "patterns": _are_texts,
    "older_than": _is_duration,
    "larger_than": _is_amount,
    "keep_newest": _is_number,
    "most_files": _is_number,
    "quarantine": _is_text,
    "until_free": _is_amount,
    "path": _is_text,
    "at_least": _is_amount,
    "engine": lambda value: value in ("postgresql", "redis") or is_placeholder(value),
    "quiet_for": _is_duration,
    "operation": lambda value: value in (*OPERATIONS, *ALIASES),
    "idle_for": _is_duration,
    "blocked_for": _is_duration,
    "keys": _are_texts,
    "keep": _are_texts,
    "share": _is_amount,
    "message": _is_text,
    "channel": _is_text,
    "severity": _is_text,
    "name": _is_text,
}
_MAY_BE_SECRET: Final = frozenset({"url", "headers", "body", "parameters", "set", "environment"})
_URLS: Final = frozenset({CallType.HTTP_REQUEST, CallType.HTTP_OK})


_OF_DATABASES: Final = frozenset(
    {
        CallType.DATABASE_OPERATION,
        CallType.DATABASE_OK,
        CallType.DATABASE_SESSIONS_BELOW,
        CallType.DATABASE_UNBLOCKED,
        CallType.DATABASE_RESTORED,
    }
)


def check_arguments(call_type: CallType, arguments: Mapping[str, Any]) -> None:
    """Whether a call has what its type needs and nothing else.

    Raises:
        ValueError: saying what is missing, unknown or of the wrong kind.
    """
    takes = ARGUMENTS[call_type]
    missing, unknown = sorted(takes.required - arguments.keys()), sorted(arguments.keys() - takes.known)
    if missing:
        raise ValueError(f"{call_type.value} needs {', '.join(missing)}")
    if unknown:
        raise ValueError(
            f"{call_type.value} does not know {', '.join(unknown)}; it takes {', '.join(sorted(takes.known))}"
        )
    if call_type in _OF_DATABASES and not arguments.keys() & {"service", "url"}:
        raise ValueError(f"{call_type.value} needs service (a database of the configuration) or url")
    for name, value in arguments.items():
        if _holds_secret(value) and name not in _MAY_BE_SECRET:
            raise ValueError(
                f"{call_type.value}: no secret may stand in {name}: all users of the machine can read it;"
                " let the program read it from a file or its environment"
                if name == "argv"
                else f"{call_type.value}: no secret may stand in {name}"
            )
        if not _fits(call_type, name, value):
            raise ValueError(f"{call_type.value}: {name} cannot be {value!r:.80}")


def _holds_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return is_secret(value) or any(map(_holds_secret, value.values()))
    return isinstance(value, list) and any(map(_holds_secret, value))


def _fits(call_type: CallType, name: str, value: Any) -> bool:
    if is_secret(value):
        return True
    if name == "url":
        return _is_url(value) if call_type in _URLS else _is_text(value) and not any(placeholders(value))
    return _FITS[name](value)
