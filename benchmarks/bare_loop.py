"""The floor: a bare Python supervisor (pidfd, epoll, Popen). Usage: bare_loop.py COMMAND... -- FIFO NAME..."""

from __future__ import annotations

import os
import select
import subprocess
import sys


def main() -> None:
    split = sys.argv.index("--")
    command, (fifo, *names) = sys.argv[1:split], sys.argv[split + 1 :]
    epoll = select.epoll()
    live: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}

    def begin(name: str) -> None:
        child = subprocess.Popen([*command, fifo, name], start_new_session=True)
        fd = os.pidfd_open(child.pid)
        live[fd] = name, child
        epoll.register(fd, select.EPOLLIN)

    for name in names:
        begin(name)
    while True:
        for fd, _ in epoll.poll():
            name, child = live.pop(fd)
            child.wait()
            epoll.unregister(fd)
            os.close(fd)
            begin(name)


if __name__ == "__main__":
    main()
