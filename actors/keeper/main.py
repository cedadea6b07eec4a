"""The keeper's process: ``main(state_dir, listener_fd)``. Started by the daemon (``client.start_keeper``)."""

from __future__ import annotations

import socket
from pathlib import Path

from actors.failpoints import KEEPER_VARIABLE, arm
from actors.keeper.kernel import become_subreaper, set_name
from actors.keeper.server import Server


def main(state_dir: str, listener_fd: int) -> int:
    """Keep until there is nothing to keep."""
    arm(KEEPER_VARIABLE)
    become_subreaper()
    set_name("selfheal-keeper")
    Server(socket.socket(fileno=listener_fd), Path(state_dir), _boot_id()).run()
    return 0


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
