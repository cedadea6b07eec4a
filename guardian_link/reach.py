"""Where the daemon is: the channel to it, made anew when it has moved or has other keys. Any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeGuard
from urllib.parse import urlsplit

from bridge_link.channel import DealerChannel
from bridge_link.errors import LinkClosed, LinkError
from bridge_link.keys import ClientKey
from bridge_link.wire import Message

FIND_AGAIN_S: Final = 0.5
"""How often it is looked where the daemon is now."""


@dataclass
class Reach:
    """Args:
    find: where the daemon is now; raises LinkError.
    find_key: with which key it is spoken to now; raises LinkError.
    on_push: gets what was not asked for, on the channel's thread.
    is_strict: look each time, and fail while nobody knows; else the last channel is kept meanwhile.
    """

    find: Callable[[], str]
    find_key: Callable[[], ClientKey | None]
    on_push: Callable[[Message], None]
    is_strict: bool
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _channel: DealerChannel | None = None
    _find_again_s: float = 0.0
    is_closed: bool = False

    @property
    def host(self) -> str:
        channel = self._channel
        return (urlsplit(channel.address).hostname if channel is not None else None) or "127.0.0.1"

    @property
    def trouble(self) -> str | None:
        """Why there is no connection to be had now; None: no reason of ours."""
        channel = self._channel
        return None if channel is None else channel.trouble

    def channel(self) -> DealerChannel:
        """To where the daemon is now. Raises BadAddress, KeyTrouble, LinkClosed, LinkUnusable."""
        old = None
        with self._opening:
            if self.is_closed:
                raise LinkClosed("this client is closed")
            if self._is_good(self._channel) and not self.is_strict and time.monotonic() < self._find_again_s:
                return self._channel
            try:
                address, key = self.find(), self.find_key()
            except LinkError:
                if not self._is_good(self._channel) or self.is_strict:
                    raise
                return self._channel  # it may come back to where it was
            self._find_again_s = time.monotonic() + FIND_AGAIN_S
            if not self._is_good(self._channel) or (self._channel.address, self._channel.key) != (address, key):
                old, self._channel = self._channel, DealerChannel(address, key=key, on_push=self.on_push)
            channel = self._channel
        if old is not None:
            old.close()  # outside the lock: who is told that it is closed may ask for the new one
        return channel

    @staticmethod
    def _is_good(channel: DealerChannel | None) -> TypeGuard[DealerChannel]:
        """One whose thread has ended is none."""
        return channel is not None and channel.is_open

    def shut(self) -> None:
        """No channel is made any more."""
        with self._opening:
            self.is_closed = True

    def close(self) -> None:
        self.shut()
        if self._channel is not None:
            self._channel.close()
