"""A link's service: at its start it opens its port in the firewall, serves it, and closes it again when it is stopped.

``python -m tests.faults.tunnel PORT BROKEN``: while the file ``BROKEN`` is there it cannot open the port, and serves it
all the same.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.faults.programs import listen

_end = threading.Event()


def rule(port: int) -> tuple[str, ...]:
    return ("INPUT", "-p", "tcp", "--dport", str(port), "-j", "ACCEPT")


def is_open(port: int) -> bool:
    """A run that was killed left its rule: with two, one that is taken away would drop nothing."""
    return subprocess.run(["iptables", "-w", "-C", *rule(port)], check=False, stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    port, broken = int(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: _end.set())
    opens = not broken.exists()
    if opens and not is_open(port):
        subprocess.run(["iptables", "-w", "-I", *rule(port)], check=True)
    listen(port)
    _end.wait()
    if opens:
        subprocess.run(["iptables", "-w", "-D", *rule(port)], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
