"""Services that go wrong when they are told to: ``python -m tests.faults.programs KIND FILE [--for-good]``.

Each idles until ``FILE`` is there, and then goes wrong: ``burn`` takes a whole core, ``simmer`` a third of one (many
can beside each other), ``leak`` 8 MiB of memory twenty times a second, ``hang`` stops answering on its port, ``die``
ends. It takes the file away first, so that its next run is well; with ``--for-good`` the file stays, and every run goes
wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.1
STEP: Final = 8 * 2**20
MOST: Final = 160 * 2**20
_pause = threading.Event()


def command(kind: str, file: Path, *, for_good: bool = False, port: int | None = None) -> list[str]:
    """The command of such a service."""
    more = [*(["--for-good"] if for_good else []), *([] if port is None else ["--port", str(port)])]
    return [sys.executable, "-m", "tests.faults.programs", kind, str(file), *more]


def burn() -> None:
    while True:
        sum(range(100_000))


def simmer() -> None:
    while True:
        began = time.thread_time()
        while time.thread_time() - began < 0.02:
            sum(range(10_000))
        _pause.wait(0.04)


def leak() -> None:
    held: list[bytearray] = []
    while True:
        if len(held) * STEP < MOST:  # the machine must survive a runbook that does nothing
            held.append(bytearray(b"x" * STEP))
        _pause.wait(0.05)


def die() -> None:
    raise SystemExit(3)


def listen(port: int) -> socket.socket:
    """Accepts and closes, for as long as the program is well."""
    listener = socket.create_server(("127.0.0.1", port), backlog=16)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("burn", "simmer", "leak", "hang", "die"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--for-good", action="store_true")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    listener = None if options.port is None else listen(options.port)
    while not options.file.exists():
        _pause.wait(LOOK_S)
    if not options.for_good:
        options.file.unlink()
    match options.kind:
        case "burn":
            burn()
        case "simmer":
            simmer()
        case "leak":
            leak()
        case "die":
            die()
        case _:
            if listener is not None:
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()
            threading.Event().wait()


if __name__ == "__main__":
    main()
