"""The real command line, in which one actor can be made to hang.

SIGUSR2 sends the actor at the path in $SELFHEAL_TEST_HANG a message whose handling never ends.
"""

from __future__ import annotations

import os
import signal
import threading

from pykka import ActorRegistry

from actors.messages import AreYouThere
from supervisors.cli import main


def never() -> None:
    threading.Event().wait()


def hang(_number: int, _frame: object) -> None:
    for ref in ActorRegistry.get_all():
        actor = ref._actor_weakref()
        if actor is not None and actor.context.path == os.environ["SELFHEAL_TEST_HANG"]:
            ref.tell(AreYouThere(never))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, hang)
    main()
