"""What can go wrong between a Guardian and the daemon."""

from __future__ import annotations


class GuardianError(Exception):
    """Any of the below."""


class DaemonUnreachable(GuardianError):
    """The daemon did not acknowledge in time; the alert is not known to be on disk."""


class AlertRefused(GuardianError):
    """The daemon does not take this. ``code``: malformed, too_large, conflict, ... ``is_final``: it never will; else
    (``key_refused``) it does with another key.
    """

    def __init__(self, code: str, text: str, *, is_final: bool = True) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.is_final = is_final


class OutboxUnusable(GuardianError):
    """The outbox cannot be read or written; the text names the file and why. Nothing was kept."""


class OutboxFull(GuardianError):
    """So many alerts wait already that no more are kept."""


class OutcomeTimeout(GuardianError):
    """The execution had not ended in time."""


class BadAnswer(GuardianError):
    """The daemon answered something else than what was asked; is it of another version?"""


class EventsLost(GuardianError):
    """Events behind ``after`` are gone. Going on with the stream gives what comes from ``first_available`` on.

    Args:
        after: the last event that was given.
        first_available: the number of the next one there is (or will be).
        epoch: the journal that one is in.
    """

    def __init__(self, after: int, first_available: int, epoch: str, why: str) -> None:
        super().__init__(f"events after {after} are lost: {why}; the next is {first_available}")
        self.after = after
        self.first_available = first_available
        self.epoch = epoch


class LinkBusy(GuardianError):
    """The link actor has so much to do already that this request was not taken."""
