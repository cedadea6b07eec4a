"""Imports without the collector: what a module makes lives as long as the process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While it lasts nothing is collected, and what is there at its end is never looked at by the collector again.

    A fifth of the daemon's start went into looking through modules, classes and functions for garbage there is none of;
    a full collection while it runs, which holds up all threads, has the less to look through.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
