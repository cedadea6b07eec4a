"""JSON lines as bridge endpoints write them: what each says, whatever comes. Pure but for the reading loop.

A line is read as far as it can be: what has no place in a body on the link (``bridge_link.bodies``) becomes text or is
cut (``bridge_link.report``), so that what is told here can be stored.
"""

from __future__ import annotations

import json
import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.bridge_fsm import Heard, Lost
from actors.endpoints.transport import ErrorHeard, Tell
from bridge_link.bodies import MAX_BODY_BYTES, check
from bridge_link.errors import WireError
from bridge_link.report import MAX_TEXT_CHARS, plain
from bridge_link.wakeup import WakeUp

MAX_LINE_BYTES: Final = MAX_BODY_BYTES
CHUNK_BYTES: Final = 65536
ERRORS_PER_S: Final = 100
"""A peer that reports more errors than this is read no faster: the rest waits on its side, nothing is dropped."""


DRAINED_BYTES: Final = 1024 * 1024
"""Of a stream that is to be left at most so much more is read: what had come already."""
_JSON: Final = json.JSONDecoder(strict=False)
_BOM: Final = b"\xef\xbb\xbf"
_SAYS_ERROR: Final = re.compile(rb"""["']?kind["']?\s*:\s*["']?error\b""")
_SHOWN_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a command, and a sign of life."""

    request_id: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unread:
    """Lines that say nothing, no sign of life either. ``why``: of the first of them, with what it holds."""

    count: int
    why: str


Fact = Heard | ErrorHeard | Replied | Unread


def read_line(line: bytes) -> Fact | None:
    """What one line says; None for an empty one. Any JSON object shows that the endpoint lives, whatever is in it; what
    is none is unread, but for a broken one that was meant to be an error.
    """
    line = line.strip()
    if not line:
        return None
    try:
        body = _JSON.decode(line.removeprefix(_BOM).decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return _unreadable(line, f"is no JSON object: {str(error)[:120]}")
    if not isinstance(body, dict):
        return _unreadable(line, "is no JSON object")
    kind, request_id = body.pop("kind", None), body.get("id")
    if kind == "reply" and isinstance(request_id, str):
        del body["id"]
        return Replied(request_id, _sendable(body))
    rest = _sendable(body)
    return ErrorHeard(rest) if kind == "error" else Heard(is_hello=kind == "hello", facts=rest)


def _sendable(body: dict[str, Any]) -> dict[str, Any]:
    """As it is where it can be."""
    try:
        check(body)
    except WireError:
        return plain(body)
    return body


def _unreadable(line: bytes, why: str) -> ErrorHeard | Unread:
    text = line.decode("utf-8", "replace")
    if _SAYS_ERROR.search(line):
        said = {"error_type": "BridgeLineUnreadable", "error_message": f"an error that {why}"}
        return ErrorHeard(plain(said | {"line": text[:MAX_TEXT_CHARS]}), is_life=False)
    return Unread(1, f"{why}: {text[:_SHOWN_CHARS]!r}")


@dataclass(slots=True)
class LineReader:
    """Cuts a stream into lines and reads each. Holds at most one line: a longer one is skipped up to its end."""

    _rest: bytearray = field(default_factory=bytearray)
    _skips: bool = False
    _has_told: bool = False

    def feed(self, got: bytes) -> Iterator[Fact]:
        *lines, last = got.split(b"\n")
        for piece in lines:
            yield from self._ended(piece)
        if not self._skips:
            self._rest += last
            if len(self._rest) > MAX_LINE_BYTES:
                self._rest.clear()
                self._skips = True

    def end(self) -> Iterator[Fact]:
        """The stream is over: its last line may have no end."""
        yield from self._ended(b"")

    def _ended(self, piece: bytes) -> Iterator[Fact]:
        """The line that ``piece`` ends."""
        whole = bytes(self._rest) + piece
        was_skipped, self._skips = self._skips, False
        self._rest.clear()
        if was_skipped or len(whole) > MAX_LINE_BYTES:
            yield from self._too_long()
        elif (fact := read_line(whole)) is not None:
            yield fact

    def _too_long(self) -> Iterator[Fact]:
        """An error once: a peer that writes such lines writes many."""
        text = f"a line of more than {MAX_LINE_BYTES} bytes was skipped"
        if not self._has_told:
            self._has_told = True
            yield ErrorHeard({"error_type": "BridgeLineTooLong", "error_message": text})
        yield Unread(1, f"has more than {MAX_LINE_BYTES} bytes")


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
    stream = _Stream(read, closed, tell)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(wake.fileno(), select.POLLIN)
    while not closed.is_set():
        ready = {one for one, _ in poll.poll(1000)}
        if wake.fileno() in ready:
            wake.hear()
        if (why := look()) is not None:
            stream.drain(fd)
            tell(Lost(why))
            return
        if fd in ready and not stream.take():
            tell(Lost("the connection was closed by the peer"))
            return


@dataclass(slots=True)
class _Stream:
    """Tells what is read, and what is left without an end when no more can be."""

    read: Callable[[], bytes]
    closed: threading.Event
    tell: Tell
    _reader: LineReader = field(default_factory=LineReader)
    _pace: ErrorPace = field(default_factory=ErrorPace)

    def take(self) -> int:
        """Read once: how much; 0 at the end. Raises OSError."""
        try:
            got = self.read()
        except OSError:
            self._say(self._reader.end())
            raise
        self._say(self._reader.feed(got) if got else self._reader.end())
        return len(got)

    def drain(self, fd: int) -> None:
        """What has come already, of a stream that is left."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        left = DRAINED_BYTES
        while left > 0 and poll.poll(0) and not self.closed.is_set():
            got = self.take()
            if not got:
                return
            left -= got
        self._say(self._reader.end())

    def _say(self, facts: Iterator[Fact]) -> None:
        count, why = 0, ""
        for fact in facts:
            if isinstance(fact, Unread):
                count, why = count + fact.count, why or fact.why
                continue
            self.tell(fact)
            if isinstance(fact, ErrorHeard) and (pause_s := self._pace.pause_s(time.monotonic())):
                self.closed.wait(pause_s)
        if count:
            self.tell(Unread(count, why))
