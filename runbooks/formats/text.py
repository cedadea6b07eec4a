"""Bytes of a configuration file as text and back: its encoding, byte order mark and line ends are kept. Pure."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

from runbooks.formats.changes import BadChange

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Files of Windows programs begin with one of these."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """``text`` has plain line ends where the file had Windows' throughout."""

    text: str
    encoding: str = "utf-8"
    mark: bytes = b""
    is_windows: bool = False

    def encoded(self, text: str) -> bytes:
        """Another text in the same clothes. Raises BadChange for what this encoding cannot say."""
        made = text.replace("\n", "\r\n") if self.is_windows else text
        try:
            return self.mark + made.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise BadChange(f"cannot be said in {self.encoding}: half a character") from error


def decoded(raw: bytes) -> Encoded:
    """Raises BadChange for what is no text."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    try:
        text = raw.removeprefix(mark).decode(encoding)
    except UnicodeDecodeError as error:
        raise BadChange(f"is no {encoding} text: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise BadChange("holds a zero byte: it is no text")
    is_windows = "\r\n" in text and text.count("\r\n") == text.count("\n")
    return Encoded(text.replace("\r\n", "\n") if is_windows else text, encoding, mark, is_windows)
