"""Which version of us runs."""

from __future__ import annotations

from importlib import metadata


def package_version() -> str:
    """``unknown`` where we were not installed as a package."""
    try:
        return metadata.version("selfheal")
    except metadata.PackageNotFoundError:
        return "unknown"
