"""Functions that a package of somebody else's would register."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def double(parameters: dict[str, Any]) -> dict[str, Any]:
    print("what it prints is no result")
    return {"doubled": parameters["number"] * 2, "pid": os.getpid()}


def fails(parameters: dict[str, Any]) -> None:
    raise ValueError(f"cannot do {parameters}")


def hangs(parameters: dict[str, Any]) -> None:
    code = "import os, signal, sys; open(f'{sys.argv[1]}/{os.getpid()}', 'w'); signal.pause()"
    subprocess.Popen([sys.executable, "-c", code, parameters["folder"]], start_new_session=True, env={})
    signal.pause()


def answers(parameters: dict[str, Any]) -> Any:
    return parameters["answer"]


def no_json(_: dict[str, Any]) -> Any:
    return Path("/")


def too_long(_: dict[str, Any]) -> Any:
    return "x" * 10**6


def dies(_: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
