"""The parameters all clients share, in one place."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from guardian_link.late import OnLate


class ClientSettings(TypedDict, total=False):
    """``GuardianClient(address, **settings)``; every other client hands them on.

    * ``state_dir``: where the daemon is found when no address is given.
    * ``timeout_s``: how long a question or ``send`` waits.
    * ``outbox``: a file (``guardian_link.outbox``) that keeps each alert until the daemon has it.
    * ``on_late``: with an outbox: called once, on a thread, with each alert the daemon does not have within a second.
    * ``key_file``: a client key file; else `$SELFHEAL_KEY`, else the local key in the state directory.
    """

    state_dir: str | Path | None
    timeout_s: float
    outbox: str | Path | None
    on_late: OnLate | None
    key_file: str | Path | None
