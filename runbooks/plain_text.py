"""Texts from outside, as every file, wire and screen takes them. Pure."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""With what is no character (half of a pair; a byte of a file name that is not UTF-8) written out: ``\udcfc``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
