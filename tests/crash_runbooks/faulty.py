"""Stages whose world is wrong: the matrix must find each. They are no part of it."""

from __future__ import annotations

from guardian_link import Alert
from tests.crash_runbooks.word_stages import Words, WordsBack


class DoneTwice(Words):
    """Somebody does a step once more."""

    variant = "done-twice"

    def alert(self) -> Alert:
        with (self.folder / "effects").open("a", encoding="ascii") as file:
            file.write("do first\n")
        return super().alert()


class LeftStanding(WordsBack):
    """Somebody keeps what should be undone."""

    variant = "left-standing"

    def meanwhile(self) -> None:
        (self.folder / "other.applied").mkdir(exist_ok=True)


class OtherEnd(Words):
    """It ends otherwise than it should."""

    variant = "other-end"
    wanted = "rolled_back"


STAGES = (DoneTwice, LeftStanding, OtherEnd)
