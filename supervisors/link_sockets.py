"""The sockets of the daemon's links, the nodes of the tree that watch them, and the files that say where they are.

Built by ``recovery`` on the main thread; the nodes call it from their own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors import alert_frames
from actors.access.book import Book
from actors.board import NodeKind
from actors.clock import Clock
from actors.intake import AlertIntake
from actors.iopool import IoPool
from actors.monitor import MonitorActor, Watched
from actors.spec import ChildSpec
from bridge_link.errors import BindFailed
from bridge_link.publisher import EventPublisher, Read
from bridge_link.pump import Incoming, RouterPump
from supervisors.memory_watch import MemoryWatch
from supervisors.open_files import OpenFiles

Trouble = Callable[[], str | None]
EVENTS = "events"


@dataclass
class LinkSockets:
    """``addresses``: of the links, by name; ``events_address``: where events are published, if they are. ``read``:
    the events behind a place; ``told``: a link's trouble, told of as it comes and goes.
    """

    addresses: Mapping[str, str]
    events_address: str | None
    state_dir: Path
    book: Book
    intake: AlertIntake
    read: Read
    io: IoPool
    clock: Clock
    told: Callable[[str, Trouble], Trouble]
    _pumps: dict[str, RouterPump] = field(default_factory=dict)
    _publisher: EventPublisher | None = None
    _unwritten: dict[str, str] = field(default_factory=dict)
    _files: OpenFiles = field(init=False)
    _memory: MemoryWatch = field(init=False)

    def __post_init__(self) -> None:
        self._files = OpenFiles(self.clock.now)
        self._memory = MemoryWatch(self._ports, self.io.run, self.clock.now, lambda: self.intake.bytes_in_flight)

    def specs(self) -> tuple[ChildSpec, ...]:
        """A node for each. Raises KeyRefused."""
        return tuple(self._spec(name, pump) for name, pump in self._all().items())

    def bind(self) -> None:
        """Take the addresses before anything is started. Raises BindFailed, BadAddress, KeyRefused."""
        for name, pump in self._all().items():
            if not pump.is_alive:
                _bind(name, pump)

    def close(self) -> None:
        for pump in self._made().values():
            pump.close()

    def places(self) -> Mapping[str, str | None]:
        """Where each link is; None: not bound."""
        return {name: pump.address for name, pump in self._pumps.items()}

    @property
    def events_place(self) -> str | None:
        return None if self._publisher is None else self._publisher.address

    def ring(self) -> None:
        """There may be new events. From any thread."""
        if self._publisher is not None:
            self._publisher.ring()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _made(self) -> Mapping[str, RouterPump | EventPublisher]:
        return {**self._pumps, **({} if self._publisher is None else {EVENTS: self._publisher})}

    def _all(self) -> Mapping[str, RouterPump | EventPublisher]:
        """Made when they are first needed: their keys must be there. Raises KeyRefused."""
        if self.addresses and not self._pumps:
            self.book.open()
            for name, address in self.addresses.items():
                self._pumps[name] = RouterPump(
                    address,
                    self._taker(name),
                    name,
                    guard=self.book.guard,
                    on_drained=self.intake.drained,
                    is_full=self._files.is_full,
                    read=alert_frames.decode,
                )
            if self.events_address is not None:
                guard = self.book.follower_guard
                self._publisher = EventPublisher(self.events_address, self.read, guard, self._files.is_full)
        return self._made()

    def _taker(self, name: str) -> Callable[[Incoming], None]:
        return lambda incoming: self.intake.take(self._pumps[name], incoming)

    def _ports(self) -> Mapping[str, int]:
        reached = {name: pump.address for name, pump in self._all().items()}
        return {name: int(at.rsplit(":", 1)[1]) for name, at in reached.items() if at is not None}

    def _spec(self, name: str, pump: RouterPump | EventPublisher) -> ChildSpec:
        file = self.state_dir / f"{name}.address"

        def begin() -> None:
            if not pump.is_alive:  # bound before the tree was started
                _bind(name, pump)
            self._write_address(name, file, _as_reached(pump))

        def look() -> str | None:
            if name in self._unwritten:
                self._write_address(name, file, _as_reached(pump))
            memory = self._memory.look(name)
            unwritten = self._unwritten.get(name) or memory
            return unwritten if unwritten or name == EVENTS else self.book.look() or self._files.trouble()

        watched = Watched(begin, lambda: pump.is_alive, pump.close, lambda: pump.address, self.told(name, look))
        return ChildSpec(id=name, start=MonitorActor, args=(NodeKind.LINK, watched), shutdown=10.0)

    def _write_address(self, name: str, file: Path, text: str) -> None:
        """For clients that look into the state directory. Without it the link works for who knows the address."""
        fresh = file.with_suffix(".new")
        try:
            fresh.write_text(text, encoding="ascii")
            fresh.replace(file)  # a client never reads half an address
        except OSError as error:
            self._unwritten[name] = f"cannot write {file}: {error.strerror}"
        else:
            self._unwritten.pop(name, None)


def _as_reached(pump: RouterPump | EventPublisher) -> str:
    """A link's address as a program on this machine uses it."""
    return f"{pump.address}\n".replace("//0.0.0.0:", "//127.0.0.1:")


def _bind(name: str, pump: RouterPump | EventPublisher) -> None:
    """Raises BindFailed with what to change."""
    try:
        pump.start()
    except BindFailed as error:
        raise BindFailed(f"{name} address {error}; change links.{name}.address") from None
