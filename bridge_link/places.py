"""Where a daemon keeps its state, as every client finds it. Pure; no thread; standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def state_directory(state_dir: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a daemon keeps its state: the argument, `$SELFHEAL_STATE`, `$XDG_STATE_HOME/selfheal`, the default."""
    if state_dir is not None:
        return Path(state_dir)
    if environ.get("SELFHEAL_STATE"):
        return Path(environ["SELFHEAL_STATE"])
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "selfheal"
    return Path.home() / ".local" / "state" / "selfheal"
