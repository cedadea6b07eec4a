"""What a service may ask of its processes beside a command: limits, nice, user, files with variables. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit by its standard name (``nofile``, ``nproc``, ...); ``UNLIMITED`` is -1."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """None leaves what the daemon has. Users and groups are names or numbers, looked up at each launch."""

    limits: tuple[Limit, ...] = ()
    nice: int | None = None
    umask: int | None = None
    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """A file of ``KEY=VALUE`` lines. An optional one may be missing."""

    path: Path
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file whose content is the variable's value, or (``is_path_passed``) whose path is."""

    path: Path
    is_path_passed: bool = False
    may_be_world_readable: bool = False


@dataclass(frozen=True, slots=True)
class EnvironmentSources:
    """What is read at each launch; later ones win: files in their order, the service's own environment, secrets."""

    files: tuple[EnvironmentFile, ...] = ()
    secrets: Mapping[str, SecretFile] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.files or self.secrets)
