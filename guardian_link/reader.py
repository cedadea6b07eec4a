"""Follows the daemon's events on one thread: the published ones as long as none is missing, else those asked for.

The thread owns the SUB socket. What it has read waits in a bounded shelf; while that is full nothing is read, the
publisher drops what it cannot send, and the gap is asked for afterwards.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import zmq

from bridge_link.errors import LinkError, WireError
from bridge_link.keys import ClientKey
from bridge_link.sockets import check_address, check_room, make_subscriber
from bridge_link.wakeup import WakeUp
from bridge_link.wire import Kind, decode
from guardian_link.errors import AlertRefused, BadAnswer, EventsLost, GuardianError
from guardian_link.events import Event, Follower, Page, is_wanted

SHELF: Final = 1000
"""Events that wait for a slow consumer."""
SILENCE_S: Final = 1.0
"""Nothing was published for so long: the daemon is asked."""
ASK_S: Final = 2.0
RETRY_S: Final = 0.5
MOST_DEAF: Final = 3
"""So many times in a row the daemon had events that were not heard: the socket is made anew."""
EVERYWHERE: Final = frozenset({"0.0.0.0", "*", "::"})  # noqa: S104  an address nobody can connect to

Ask = Callable[[Mapping[str, Any], float], Any]
Found = Event | Exception
FindKey = Callable[[], ClientKey | None]


class Shelf:
    """Events in order, between the reader and whoever takes them. Any thread."""

    def __init__(self, most: int = SHELF) -> None:
        self._most = most
        self._found: deque[Found] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_ended = False
        self.on_change: Callable[[], object] = lambda: None

    @property
    def is_over(self) -> bool:
        """Nothing is taken from it any more."""
        return self._is_closed or (self._is_ended and not self._found)

    def put(self, found: Found) -> bool:
        """Wait for room. False: nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._found) < self._most or self._is_closed)
            if self._is_closed:
                return False
            self._found.append(found)
            self._changed.notify_all()
        self.on_change()
        return True

    def take(self, timeout_s: float | None) -> Event | None:
        """The next one; None: none came in time, or it is closed. Raises what stands in the events' place."""
        with self._changed:
            self._changed.wait_for(lambda: self._found or self._is_closed or self._is_ended, timeout_s)
            found = self._found.popleft() if self._found and not self._is_closed else None
            self._changed.notify_all()
        if isinstance(found, Exception):
            raise found
        return found

    def end(self) -> None:
        """Nothing comes any more; what is there may still be taken."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        self.on_change()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._found.clear()
            self._changed.notify_all()
        self.on_change()


class EventReader:
    """Reads for one subscriber, from ``follower``'s place on, for as long as it lives.

    Args:
        ask: asks the daemon (question, seconds); raises GuardianError.
        host: of the guardian link: where a publisher is that listens everywhere.
        find_key: with which key the daemon is spoken to now; raises LinkError when there is none.
    """

    def __init__(
        self,
        ask: Ask,
        follower: Follower,
        topics: Sequence[str],
        host: Callable[[], str],
        find_key: FindKey = lambda: None,
    ) -> None:
        self._ask = ask
        self._follower = follower
        self._topics = tuple(topics)
        self._host = host
        self._find_key = find_key
        self._closing = threading.Event()
        self._wake = WakeUp()
        self._deaf = 0
        self.trouble: str | None = None
        self.shelf = Shelf()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Without waiting for the end."""
        self._closing.set()
        self._wake.ring()
        self.shelf.close()

    def close(self, timeout_s: float = ASK_S + 1.0) -> None:
        self.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        ear = _Ear(self._wake)
        try:
            while not self._closing.is_set():
                try:
                    self._turn(ear)
                except AlertRefused as refused:  # it may not: asking again is no use
                    self.shelf.put(refused)
                    return
                except (GuardianError, LinkError, zmq.ZMQError) as error:  # away: it comes back
                    self.trouble = str(error)
                    self._closing.wait(RETRY_S)
        except Exception as error:  # whoever follows must not wait for ever
            self.shelf.put(error)
        finally:
            self.shelf.end()
            ear.close()
            self._wake.close()

    def _turn(self, ear: _Ear) -> None:
        """Ask for what is missing, then listen until something is missing again."""
        before = self._follower.seq
        page = Page.from_answer(self._ask({"ask": "events", "after": before}, ASK_S))
        self.trouble = None
        try:
            for event in self._follower.take_page(page):
                self._put(event)
        except EventsLost as lost:
            self.shelf.put(lost)
        if self._follower.seq < page.last:
            return  # there is more
        self._deaf = self._deaf + 1 if self._follower.seq > before else 0
        if self._deaf > MOST_DEAF:
            ear.close()
        ear.listen_at(_reachable(page.address, self._host()), self._find_key())
        self._listen(ear)

    def _listen(self, ear: _Ear) -> None:
        until_s = time.monotonic() + SILENCE_S
        while not self._closing.is_set() and time.monotonic() < until_s:
            event = ear.hear(until_s - time.monotonic())
            if event is None:
                continue
            is_next = self._follower.take_pushed(event)
            self._deaf = 0
            if is_next is None:
                return
            if is_next:
                self._put(event)
                until_s = time.monotonic() + SILENCE_S

    def _put(self, event: Event) -> None:
        if is_wanted(event, self._topics):
            self.shelf.put(event)


class _Ear:
    """The SUB socket, made when it is known where to listen."""

    def __init__(self, wake: WakeUp) -> None:
        self._wake = wake
        self._address: str | None = None
        self._key: ClientKey | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def listen_at(self, address: str | None, key: ClientKey | None) -> None:
        """Raises BadAddress, LinkUnusable."""
        if (address, key) == (self._address, self._key) and (self._socket is not None or address is None):
            return
        self.close()
        if address is not None:
            check_address(address, is_guarded=key is not None)
            check_room(self._wake.fileno())
            self._context = zmq.Context()
            self._socket = make_subscriber(self._context, key)
            self._socket.connect(address)
        self._address, self._key = address, key

    def hear(self, timeout_s: float) -> Event | None:
        """The next published event; None: none came in time, somebody rang, or it was no event."""
        poller = zmq.Poller()
        poller.register(self._wake.fileno(), zmq.POLLIN)
        if self._socket is not None:
            poller.register(self._socket, zmq.POLLIN)
        ready = dict(poller.poll(max(0, round(timeout_s * 1000))))
        if self._wake.fileno() in ready:
            self._wake.hear()
        if self._socket is None or self._socket not in ready:
            return None
        _topic, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
        try:
            message = decode(frames)
            return Event.from_body(message.body, str(message.body.get("epoch"))) if message.kind is Kind.EVENT else None
        except (WireError, BadAnswer):
            return None  # whatever it was: a gap is noticed

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
        if self._context is not None:
            self._context.term()
        self._socket, self._context, self._address = None, None, None


def _reachable(address: str | None, host: str) -> str | None:
    """A publisher that listens everywhere is where the guardian link is."""
    if address is None or urlsplit(address).hostname not in EVERYWHERE:
        return address
    return f"tcp://{host}:{urlsplit(address).port}"
