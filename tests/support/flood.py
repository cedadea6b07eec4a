"""A process that writes numbered lines as fast as it can: ``python -m tests.support.flood LINES``."""

from __future__ import annotations

import os
import sys
from typing import Final

LINE: Final = 100
"""Bytes of each line, with its end."""
LINES_AT_ONCE: Final = 10_000


def line(number: int) -> bytes:
    return b"%015d " % number + b"." * (LINE - 17) + b"\n"


def flood_command(lines: int) -> tuple[str, ...]:
    return (sys.executable, os.path.abspath(__file__), str(lines))  # noqa: PTH100


def numbers_in(data: bytes) -> list[int]:
    """The numbers of the whole lines in what was kept; a truncation may tear one."""
    return [int(one[:15]) for one in data.split(b"\n") if len(one) == LINE - 1 and one[:15].isdigit()]


def main(lines: int) -> None:
    pattern = b"".join(line(number) for number in range(LINES_AT_ONCE))
    block = bytearray(pattern)
    for first in range(0, lines, LINES_AT_ONCE):
        count = min(LINES_AT_ONCE, lines - first)
        prefix = b"%011d" % (first // LINES_AT_ONCE)  # line() counts in 15 digits: 4 within a block, 11 before
        for number in range(count):
            at = number * LINE
            block[at : at + 11] = prefix
        view = memoryview(block)[: count * LINE]
        while view:
            view = view[os.write(1, view) :]
        view.release()


if __name__ == "__main__":
    main(int(sys.argv[1]))
