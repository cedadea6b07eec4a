"""Clients of scripted daemons need no key here."""

from __future__ import annotations

from tests.support.plain_links import key_file

__all__ = ["key_file"]
