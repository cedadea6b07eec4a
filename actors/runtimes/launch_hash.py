"""A short hash of what a run was launched with: it tells whether a living run is the one the file asks for. Pure.

It changes with every key whose edit needs a new run (``supervisors.plans.SERVICE_KEYS``) and with no other one. What is
left at its default does not count, so that a later version of Selfheal, with more to set, makes the same hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from actors.runtimes.base import LaunchSpec

_NEVER: Final = frozenset({"service", "log_path"})
_LOG: Final = frozenset({"log_max_bytes", "log_backups"})
"""The engine takes a container's log limits at its creation; a process's are obeyed while it runs."""


def launch_hash(spec: LaunchSpec) -> str:
    """Sixteen hexadecimal digits; equal for two specs that make the same run."""
    left_out = _NEVER if spec.container is not None else _NEVER | _LOG
    facts = {name: value for name, value in _plain(spec).items() if name not in left_out}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        known = {one.name: (getattr(value, one.name), _default_of(one)) for one in fields(value)}
        return {name: _plain(held) for name, (held, default) in known.items() if held != default}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _default_of(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()
