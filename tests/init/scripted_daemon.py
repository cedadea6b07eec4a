"""Stands for the daemon behind a real init: says which signals come, and ends as it is told.

``python scripted_daemon.py FOLDER END...``: the first start ends as the first END says, the next as the next. An END is
``kill`` (by SIGKILL), a number (an exit code), or ``end:N`` (orderly, with that code). Each waits for the file ``go``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from actors.init.link import ENDING, LISTENING, UP, take_link
from tests.support.eventually import eventually

LONG_S = 120.0

HEARD = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


def main(folder: Path, ends: list[str]) -> None:
    link = take_link(os.environ)
    assert link is not None
    births = folder / "births"
    with births.open("a") as file:
        file.write(f"{os.getpid()}\n")
    number = len(births.read_text().split()) - 1

    subprocess.run(["sh", "-c", f"sleep 0.2 & echo $! > {folder}/orphan"], check=True)

    def note(signal_number: int, _frame: object) -> None:
        with (folder / "signals").open("a") as file:
            file.write(f"{signal.Signals(signal_number).name}\n")

    (folder / f"born{number}").touch()
    eventually((folder / "listen").exists, within_s=LONG_S)
    for one in HEARD:
        signal.signal(one, note)
    link.say(LISTENING)
    link.say(UP)
    (folder / f"up{number}").touch()
    eventually((folder / f"go{number}").exists, within_s=LONG_S)
    end = ends[number]
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end.startswith("end:"):
        link.say(ENDING)
    sys.exit(int(end.removeprefix("end:")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
