"""The real command line below an audit hook: every process it starts is written down, and so is what each host starts.

``SELFHEAL_TEST_AUDIT`` names a folder: ``daemon`` gets the daemon's, ``hosts`` those of the hosts of commands.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from runbooks import command_host
from supervisors.cli import main

STARTS = (
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)


def wrapped_host(folder: Path, witness: Path) -> Path:
    """The real host of commands below a hook of its own."""
    wrapper = folder / "host.py"
    wrapper.write_text(
        "import json, runpy, sys\n"
        "def hear(event, given):\n"
        f"    if event in {STARTS!r}:\n"
        f"        with open({str(witness)!r}, 'a') as file:\n"
        "            file.write(json.dumps(list(map(str, given[1]))) + '\\n')\n"
        "sys.addaudithook(hear)\n"
        f"runpy.run_path({command_host.__file__!r}, run_name='__main__')\n"
    )
    return wrapper


def listen(folder: Path) -> None:
    witness = (folder / "daemon").open("a", encoding="utf-8", buffering=1)

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if event in STARTS:
            argv = given[1] if len(given) > 1 else given
            words = [str(one) for one in argv] if isinstance(argv, (list, tuple)) else [str(argv)]
            witness.write(json.dumps([event, *words]) + "\n")

    command_host.__file__ = str(wrapped_host(folder, folder / "hosts"))
    sys.addaudithook(hear)


if __name__ == "__main__":
    listen(Path(os.environ["SELFHEAL_TEST_AUDIT"]))
    main()
