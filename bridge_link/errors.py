"""What can go wrong on a link. Each error says what, where, and carries its data."""

from __future__ import annotations


class LinkError(Exception):
    """Any trouble on a link."""


class WireError(LinkError):
    """Frames or a body that are no message of ours. ``code`` is the NACK code; ``message_id`` when it could be read."""

    def __init__(self, code: str, text: str, message_id: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.message_id = message_id


class BadAddress(LinkError):
    """An address that cannot be used."""


class KeyTrouble(LinkError):
    """A key that is not there or cannot be used."""


class KeyMissing(KeyTrouble):
    """There is no key; the text says where was looked."""


class KeyRefused(KeyTrouble):
    """A key file that must not or cannot be used; the text says why and what to do."""


class BindFailed(LinkError):
    """An address that is taken or not ours."""


class LinkUnusable(LinkError):
    """There are no descriptors, or no thread, for a link now."""


class LinkTimeout(LinkError):
    """No answer in time. ``message_id``: of what was asked, where it goes on being sent."""

    def __init__(self, text: str, message_id: str | None = None) -> None:
        super().__init__(text)
        self.message_id = message_id


class Refused(LinkError):
    """A NACK. ``is_final``: sending again is no use; else (``key_refused``) it is, with another key."""

    def __init__(self, code: str, text: str, *, is_final: bool = True) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.is_final = is_final


class LinkClosed(LinkError):
    """The link was closed while something waited on it."""


class StoreUnusable(LinkError):
    """The file that keeps what an endpoint must not forget cannot be read or written."""
