"""A runbook of the test's own, for what the shipped ones do not use: skipped steps, steps failed past, calls that fail
and were applied, an end that is asked for. Each step notes in one file what it really did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from guardian_link import Alert
from supervisors.manager import ManagerError
from tests.crash_runbooks.stages import AHEAD, BACK, CRITERIA, Stage, both

_ACT: Final = """#!/bin/sh
# act.sh FOLDER WORD STEP [CODE]: do, undo, is or gone; what is done is noted
cd "$1" || exit 9
case "$2" in
  do) echo "do $3" >>effects; mkdir "$3.applied"; [ "$3" = slow ] && sleep 600; exit "${4:-0}";;
  undo) [ -d "$3.applied" ] || exit 0; echo "undo $3" >>effects; rmdir "$3.applied";;
  is) test -d "$3.applied";;
  gone) ! test -d "$3.applied";;
esac
"""


_PASSES: Final = (*AHEAD, *both("skipped"), *both("step_failed"), "runbook.looked.probe")


class Words(Stage):
    runbook = "own_words"
    variant = "success"
    wanted = "succeeded"
    order = 10
    is_own = True
    right: ClassVar[Sequence[str]] = ("do first", "do lies", "do last")
    passes: ClassVar[Sequence[str]] = (*_PASSES, "runbook.looked.left")
    stand: ClassVar[tuple[str, ...]] = ("first", "last", "lies")
    """What must stand at the end."""

    def begin(self) -> None:
        (self.folder / "act.sh").write_text(_ACT, encoding="ascii")

    def alert(self) -> Alert:
        return Alert(type="own_words", service="b", source="crash-matrix")

    def ill(self) -> list[str]:
        applied = [path.stem for path in sorted(self.folder.glob("*.applied"))]
        return [] if applied == [*self.stand] else [f"{applied} stand, not {[*self.stand]}"]

    def runbooks(self) -> dict[str, Any]:
        """With one that does nothing and is passed over: at the end it is looked at whether it left anything."""
        refused = self._step("refused") | {"on_failure": "continue"}
        refused["command"] = refused["probe"]["call"]["argv"]
        return {"own_words.json": self._runbook([*self._steps(), refused])}

    def _steps(self) -> list[dict[str, Any]]:
        skipped = self._step("skipped") | {"when": {"field": "/alert/severity", "op": "eq", "value": "low"}}
        tried = {
            "id": "tried",
            "name": "Fails and is left behind",
            "action_type": "command",
            "effect": "idempotent",
            "command": ["sh", str(self.folder / "act.sh"), str(self.folder), "is", "nothing"],
            "on_failure": "continue",
        }
        return [self._step("first"), skipped, tried, self._step("lies", code="3"), self._step("last")]

    def _step(self, name: str, *, code: str = "0") -> dict[str, Any]:
        act = ["sh", str(self.folder / "act.sh"), str(self.folder)]

        def look(word: str) -> dict[str, Any]:
            return {"call": {"type": "command_ok", "argv": [*act, word, name]}}

        return {
            "id": name,
            "name": name,
            "action_type": "command",
            "effect": "mutating",
            "command": [*act, "do", name, code],
            "probe": look("is"),
            "verify": look("is"),
            "rollback": {"call": {"type": "command", "argv": [*act, "undo", name]}, "verify": look("gone")},
        }

    def _runbook(self, actions: list[dict[str, Any]], criterion: str = "first") -> dict[str, Any]:
        act = ["sh", str(self.folder / "act.sh"), str(self.folder), "is", criterion]
        return {
            "schema_version": 2,
            "id": self.runbook,
            "version": "1.0.0",
            "name": "Own words",
            "description": "For the crash matrix",
            "match": {"field": "/type", "op": "eq", "value": self.runbook},
            "target": "service:b",
            "preconditions": [{"call": {"type": "service_exists", "with": {"service": "b"}}, "within": "5s"}],
            "actions": actions,
            "success_criteria": [{"call": {"type": "command_ok", "argv": act}}],
        }


class WordsBack(Words):
    """The criterion never holds: all three are undone, the last first."""

    variant = "rollback"
    wanted = "rolled_back"
    order = 11
    right: ClassVar[Sequence[str]] = (*Words.right, "undo last", "undo lies", "undo first")
    passes: ClassVar[Sequence[str]] = (*_PASSES, *both("failing"), *BACK)
    stand = ()

    def runbooks(self) -> dict[str, Any]:
        return {"own_words.json": self._runbook(self._steps(), "nothing")}


class WordsCancelled(Words):
    """A person ends it while the second step is under way: its processes end, both steps are undone."""

    variant = "cancelled"
    wanted = "cancelled"
    order = 12
    right: ClassVar[Sequence[str]] = ("do first", "do slow", "undo slow", "undo first")
    passes: ClassVar[Sequence[str]] = (
        *(one for one in AHEAD if one not in CRITERIA),
        "runbook.looked.probe",
        *both("cancelling"),
        *BACK,
    )
    stand = ()

    def runbooks(self) -> dict[str, Any]:
        slow = self._step("slow")
        slow["timeout"] = "5m"
        return {"own_words.json": self._runbook([self._step("first"), slow])}

    def meanwhile(self) -> None:
        if "do slow" in self.effects():
            with contextlib.suppress(ManagerError):
                (execution, *_) = self.world.manager().executions(1)
                if execution["status"] == "running":
                    self.world.manager().cancel(execution["id"], by="a person", why="enough")


STAGES = (Words, WordsBack, WordsCancelled)
