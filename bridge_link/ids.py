"""Ids of new messages: unique, and rising with time."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """32 hexadecimal digits: milliseconds in front, so that ids made one after the other are stored side by side, and
    80 random bits.
    """
    return f"{time.time_ns() // 1_000_000 & 0xFFFFFFFFFFFF:012x}{os.urandom(10).hex()}"
