"""Who looks after this daemon from outside: systemd (``notify``) and the init in front of it (``actors.init``).

Any thread; never blocks, never raises. Where there is neither, everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Self

from actors.init.link import ENDING, LISTENING, UP, InitLink, take_link
from supervisors.notify import ADDRESS, Notifier


class Overseers:
    """Args:
    restart_us: whether one of them starts a daemon that ended again: then the keeper must not do it too.
    """

    def __init__(self, notifier: Notifier, init: InitLink | None, *, restart_us: bool) -> None:
        self.notifier = notifier
        self.restart_us = restart_us
        self._init = init

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self:
        """Those ``environ`` names; they are taken out of it, for a service must not speak to them."""
        restart_us = ADDRESS in environ
        init = take_link(environ)
        own = {os.getpid()} | ({init.init_pid} if init is not None else set())
        return cls(Notifier.take(environ, frozenset(own)), init, restart_us=restart_us or init is not None)

    def listening(self) -> None:
        """Signals are handled from now on."""
        self._tell(LISTENING)

    def up(self) -> None:
        """The tree stands; services may still be on their way to readiness."""
        self._tell(UP)

    def ready(self) -> None:
        """Everything wanted is ready, or was waited for long enough. Behind an init that is the main process."""
        self.notifier.ready(main_pid=os.getpid() if self._init is None else None)

    def reloading(self) -> None:
        """The configuration is being read anew; ``ready`` ends it."""
        self.notifier.reloading()

    def stopping(self) -> None:
        """An orderly end begins."""
        self._tell(ENDING)
        self.notifier.stopping()

    def close(self) -> None:
        self.notifier.close()

    def _tell(self, word: bytes) -> None:
        if self._init is not None:
            self._init.say(word)
