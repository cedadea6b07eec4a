"""The arithmetic of the audit chain. Pure: no files, no clocks, no database.

One algorithm and no other: HMAC-SHA256 (RFC 2104). No row says which algorithm it was made with, so none can ask for a
weaker one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

KEY_BYTES: Final = 32
MAC_BYTES: Final = 32
BEGIN: Final = bytes(MAC_BYTES)
"""What stands before the first row."""
FOUND: Final = "found"
"""A row of this kind says that the daemon itself found the chain or its tip not as it left them."""
FORGOTTEN: Final = "forgotten"
"""A row of this kind says up to which row (``to``) the oldest were forgotten on purpose, and that row's mac."""


class Row(NamedTuple):
    """One line of the chain, as it is stored. ``at``: Unix seconds; ``body``: JSON text."""

    seq: int
    at: float
    kind: str
    body: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest row, kept outside the database. ``epoch``: the journal's identity; ``key``: the key's."""

    epoch: str
    seq: int
    mac: bytes
    key: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the daemon wrote it. ``row``: None when it is about no row."""

    row: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.row is None else f"row {self.row}: {self.text}"


class BadTip(ValueError):
    """A tip that was not written with this key, or is none."""


def mac_of(key: bytes, before: bytes, row: tuple[int, float, str, str]) -> bytes:
    """The seal of (seq, at, kind, body) after the row whose mac is ``before``. Every length is part of it."""
    seq, at, kind, body = row
    words = (kind.encode(errors="surrogatepass"), body.encode(errors="surrogatepass"))
    sizes = struct.pack(">qdQQ", seq, at, *map(len, words))
    return hmac.new(key, b"".join((b"row\0", before, sizes, *words)), hashlib.sha256).digest()


def key_id(key: bytes) -> str:
    """Names a key without giving anything of it away."""
    return hmac.new(key, b"key\0", hashlib.sha256).hexdigest()[:16]


def tip_text(key: bytes, tip: Tip) -> str:
    facts = {"epoch": tip.epoch, "seq": tip.seq, "mac": tip.mac.hex(), "key": tip.key}
    return json.dumps({**facts, "proof": _proof(key, tip)}) + "\n"


def read_tip(key: bytes, text: str) -> Tip:
    """Raises BadTip."""
    try:
        raw = json.loads(text)
        tip = Tip(str(raw["epoch"]), int(raw["seq"]), bytes.fromhex(raw["mac"]), str(raw["key"]))
        proof = str(raw["proof"])
    except (ValueError, KeyError, TypeError, OverflowError):
        raise BadTip("the tip is damaged") from None
    if tip.key != key_id(key):
        raise BadTip("the tip was made with another key: the key or the tip was swapped")
    if not hmac.compare_digest(proof.encode(errors="replace"), _proof(key, tip).encode()):
        raise BadTip("the tip was changed")
    return tip


def _proof(key: bytes, tip: Tip) -> str:
    facts = f"tip\0{tip.epoch}\0{tip.seq}\0{tip.mac.hex()}\0{tip.key}"
    return hmac.new(key, facts.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


# -- checking ---------------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """Rows are given in the order of their numbers; ``findings`` come out, and what is known at the end."""

    key: bytes
    count: int = 0
    first: int | None = None
    last: Row | None = None
    _before: bytes = BEGIN
    _is_open: bool = False
    """The oldest row's mac is that of a row which is not here: a ``forgotten`` row must say so."""
    _opening: Row | None = None
    _forgotten: Mapping[str, Any] | None = None

    def take(self, rows: Iterable[Row]) -> Iterator[Finding]:
        for row in rows:
            self.count += 1
            if self.last is None:
                self.first, self._is_open = row.seq, row.seq > 1
                if row.seq < 1:
                    yield Finding(row.seq, "no such number is ever given: it was put in")
            elif row.seq != self.last.seq + 1:
                yield from self._gap(self.last.seq + 1, row.seq - 1)
            if self._is_open and self.last is None:
                self._opening = row  # judged at the end: what stands before it is said by a later row
            elif not self._fits(row):
                yield Finding(row.seq, "was changed, moved or put in: it does not fit to the row before it")
            elif row.kind == FOUND:
                yield Finding(row.seq, f"the daemon found: {_said(row.body)}")
            elif row.kind == FORGOTTEN:
                self._forgotten = _facts(row.body)
            self.last, self._before = row, row.mac

    def end(self) -> Iterator[Finding]:
        """What can only be said when all rows were seen."""
        opening = self._opening
        if opening is None:
            return
        facts = self._forgotten or {}
        before = str(facts.get("mac", ""))
        if facts.get("to") != opening.seq - 1:
            yield Finding(opening.seq, f"all rows before it were removed, and not by the daemon ({opening.seq - 1})")
        elif not _seals(self.key, before, opening):
            yield Finding(opening.seq, "was changed, moved or put in: it does not fit to the row before it")

    def _fits(self, row: Row) -> bool:
        return hmac.compare_digest(row.mac, mac_of(self.key, self._before, row[:4]))

    @staticmethod
    def _gap(first: int, last: int) -> Iterator[Finding]:
        if last >= first:
            yield Finding(first, "was removed" if first == last else f"was removed, with all up to row {last}")


def _seals(key: bytes, before: str, row: Row) -> bool:
    try:
        return hmac.compare_digest(row.mac, mac_of(key, bytes.fromhex(before), row[:4]))
    except ValueError:
        return False


def _facts(body: str) -> Mapping[str, Any]:
    facts = json.loads(body)
    return facts if isinstance(facts, dict) else {}


def _said(body: str) -> str:
    return str(_facts(body).get("text", body))


def check_tip(tip: Tip, epoch: str, last: int, mac_at_tip: bytes | None) -> Finding | None:
    """``last``: the chain's newest row (0: none); ``mac_at_tip``: that of the row the tip names, None when not there.

    A chain may be longer than its tip says: the tip is written after the commit.
    """
    if not tip.seq:
        return None
    if tip.epoch != epoch:
        return Finding(
            None, f"the journal the tip knows ({tip.seq} rows) is not this one: it was replaced or begun anew"
        )
    if tip.seq > last:
        return Finding(last + 1, f"the end was cut off: rows {last + 1} to {tip.seq} are missing, the tip knows them")
    if mac_at_tip is None or not hmac.compare_digest(mac_at_tip, tip.mac):
        return Finding(tip.seq, "is not the row the tip knows: the end was cut off and written anew")
    return None
