"""What a good file names that is not there now: folders, programs, files, users. Looks at this machine.

None of it is a problem of the file: a disk may be mounted and a package installed before the service starts.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from config.models import ServiceConfig, SystemConfig


def cautions(config: SystemConfig, environ: Mapping[str, str]) -> tuple[str, ...]:
    """One line each, `services.web.working_dir: /srv/web is no folder now`, in the order of the file.

    Args:
        environ: the daemon's environment, for its PATH.
    """
    lines: list[str] = []
    for name, service in config.services.items():
        for key, text in _of_service(service, environ):
            lines.append(f"services.{name}.{key}: {text}")
    return tuple(lines)


def _of_service(service: ServiceConfig, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if service.runtime == "process":
        if service.working_dir is not None and _is_missing(service.working_dir, Path.is_dir):
            yield "working_dir", f"{service.working_dir} is no folder now"
        program = _missing_program(service, environ)
        if program is not None:
            yield "command", program
        yield from _accounts(service)
    for number, written in enumerate(service.environment_files):
        if not written.startswith("-") and _is_missing(Path(written), Path.is_file):
            yield (
                f"environment_files[{number}]",
                f"{written} is no file now; put a '-' before it if it may be missing",
            )
    for name, secret in service.secrets.items():
        if _is_missing(secret.file, Path.is_file):
            yield f"secrets.{name}.file", f"{secret.file} is no file now"


def _is_missing(path: Path, is_there: Callable[[Path], bool]) -> bool:
    try:
        return not is_there(path)
    except OSError:  # whether it is there cannot be seen from here
        return False


def _missing_program(service: ServiceConfig, environ: Mapping[str, str]) -> str | None:
    """As it is looked for at the launch: with a slash from the working directory, else on the service's PATH."""
    name = service.command[0]
    if "replica}" in name:
        return None
    if Path(name).name != name:
        place = Path(service.working_dir or Path.cwd(), name)
        return f"there is no program {place} now" if _is_missing(place, Path.is_file) else None
    if "PATH" not in service.environment and service.environment_files:
        return None  # they may say another
    path = service.environment.get("PATH", environ.get("PATH", os.defpath))
    return f"program {name!r} is not on the PATH now" if shutil.which(name, path=path) is None else None


def _accounts(service: ServiceConfig) -> Iterator[tuple[str, str]]:
    if service.user is not None and not service.user.isdigit() and _is_unknown(service.user, pwd.getpwnam):
        yield "user", f"there is no user {service.user!r} on this system now"
    groups = {} if service.group is None else {"group": service.group}
    groups |= {f"groups[{number}]": one for number, one in enumerate(service.groups or ())}
    for key, group in groups.items():
        if not group.isdigit() and _is_unknown(group, grp.getgrnam):
            yield key, f"there is no group {group!r} on this system now"


def _is_unknown(name: str, look_up: Callable[[str], object]) -> bool:
    try:
        look_up(name)
    except KeyError:
        return True
    return False
