"""This very Python, its packages and this source inside a container: read-only mounts instead of an image to build."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/lib32",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
)


def read_only_mounts() -> dict[str, dict[str, str]]:
    """What the Docker SDK takes as ``volumes``: each place appears in the container where it is on this machine."""
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    own = {
        sys.prefix,
        sys.base_prefix,
        str(ROOT),
        str(Path(sys.executable).parent),
        *libraries,
        *site.getsitepackages(),
    }
    places = {place for place in (*SYSTEM, *own) if Path(place).exists()}
    tops = {one for one in places if not any(other != one and Path(one).is_relative_to(other) for other in places)}
    return {place: {"bind": place, "mode": "ro"} for place in sorted(tops)}


def environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
