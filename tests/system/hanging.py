"""The real command line, in which one actor can be made to hang.

SIGUSR2 sends the actor at the path in $SELFHEAL_TEST_HANG a message whose handling never ends; the file
$SELFHEAL_TEST_HUNG, where one is named, is there as soon as it hangs.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from pykka import ActorRegistry

from actors.messages import AreYouThere
from supervisors.cli import main


def never() -> None:
    if mark := os.environ.get("SELFHEAL_TEST_HUNG"):
        Path(mark).touch()
    threading.Event().wait()


def hang(_number: int, _frame: object) -> None:
    for ref in ActorRegistry.get_all():
        actor = ref._actor_weakref()
        if actor is not None and actor.context.path == os.environ["SELFHEAL_TEST_HANG"]:
            ref.tell(AreYouThere(never))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, hang)
    main()
