"""JSON lines as bridge endpoints write them: what each says, whatever comes. Pure but for the reading loop.

A line is held to the same limits as a body on the link (``bridge_link.bodies``): what passes here can be stored.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.bridge_fsm import Heard, Lost
from actors.endpoints.transport import ErrorHeard, Tell
from bridge_link.bodies import MAX_BODY_BYTES, unpack_json
from bridge_link.errors import WireError
from bridge_link.wakeup import WakeUp

MAX_LINE_BYTES: Final = MAX_BODY_BYTES
CHUNK_BYTES: Final = 65536
ERRORS_PER_S: Final = 100
"""A peer that reports more errors than this is read no faster: the rest waits on its side, nothing is dropped."""


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a command, and a sign of life."""

    request_id: str
    body: Mapping[str, Any]


Fact = Heard | ErrorHeard | Replied


def read_line(line: bytes) -> Fact | None:
    """What one line says: any JSON object shows that the endpoint lives; the rest is noise."""
    try:
        body = unpack_json(line.strip())
    except WireError:
        return None
    rest = {key: value for key, value in body.items() if key != "kind"}
    match body.get("kind"):
        case "hello":
            return Heard(is_hello=True, facts=rest)
        case "error":
            return ErrorHeard(rest)
        case "reply" if isinstance(body.get("id"), str):
            return Replied(str(rest.pop("id")), rest)
        case _:
            return Heard(facts=rest)


@dataclass(slots=True)
class LineReader:
    """Cuts a stream into lines and reads each. Holds at most one line: a longer one is skipped up to its end."""

    _rest: bytearray = field(default_factory=bytearray)
    _skips: bool = False
    _has_told: bool = False

    def feed(self, got: bytes) -> Iterator[Fact]:
        *lines, last = got.split(b"\n")
        for piece in lines:
            if (line := self._ended(piece)) is not None:
                yield from self._read(line)
            else:
                yield from self._too_long()
        if not self._skips:
            self._rest += last
            if len(self._rest) > MAX_LINE_BYTES:
                self._rest.clear()
                self._skips = True

    def _ended(self, piece: bytes) -> bytes | None:
        """The whole line that ``piece`` ends; None for one that was too long."""
        whole = bytes(self._rest) + piece
        was_skipped, self._skips = self._skips, False
        self._rest.clear()
        return None if was_skipped or len(whole) > MAX_LINE_BYTES else whole

    def _read(self, line: bytes) -> Iterator[Fact]:
        if (fact := read_line(line)) is not None:
            yield fact

    def _too_long(self) -> Iterator[Fact]:
        """Said once: a peer that writes such lines writes many."""
        if not self._has_told:
            self._has_told = True
            text = f"a line of more than {MAX_LINE_BYTES} bytes was skipped"
            yield ErrorHeard({"error_type": "BridgeLineTooLong", "error_message": text})


@dataclass(slots=True)
class ErrorPace:
    """Says how long to read nothing more."""

    second: int = 0
    count: int = 0

    def pause_s(self, now: float) -> float:
        """After one error at clock second ``now``."""
        if int(now) != self.second:
            self.second, self.count = int(now), 0
        self.count += 1
        return self.second + 1 - now if self.count >= ERRORS_PER_S else 0.0


Look = Callable[[], str | None]
"""Called between reads, about once a second: why there is no more use in reading, if so."""


def read_lines(
    fd: int, read: Callable[[], bytes], wake: WakeUp, closed: threading.Event, tell: Tell, look: Look = lambda: None
) -> None:
    """Tell what each line says until the stream ends, ``look`` says why not, or ``closed`` is set."""
    reader, pace = LineReader(), ErrorPace()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(wake.fileno(), select.POLLIN)
    while not closed.is_set():
        ready = {one for one, _ in poll.poll(1000)}
        if wake.fileno() in ready:
            wake.hear()
        if (why := look()) is not None:
            tell(Lost(why))
            return
        if fd not in ready:
            continue
        got = read()
        if not got:
            tell(Lost("the connection was closed by the peer"))
            return
        for fact in reader.feed(got):
            tell(fact)
            if isinstance(fact, ErrorHeard) and (pause_s := pace.pause_s(time.monotonic())):
                closed.wait(pause_s)
