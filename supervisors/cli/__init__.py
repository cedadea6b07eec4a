"""The ``selfheal`` command. Imports nothing heavy: the light installation has this file and none of what it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from supervisors.cli.imports import importing

_NEEDED = frozenset(
    {"typer", "rich", "httpx", "pydantic", "yaml", "fastapi", "uvicorn", "psutil", "pykka", "structlog"}
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code (``supervisors.cli.exits``)."""
    if os.getpid() == 1 and "run" in sys.argv:
        from actors.init.entering import hold_signals  # noqa: PLC0415  only Linux has all of it

        hold_signals()  # it will be the init: until then the kernel would drop them
    try:
        with importing():
            from supervisors.cli.app import run  # noqa: PLC0415  the daemon's packages may be missing
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write("selfheal needs the daemon extra: pip install 'PATH_TO_CHECKOUT[daemon]'\n")
        sys.exit(1)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
