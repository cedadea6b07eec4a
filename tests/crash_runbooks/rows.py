"""One row of the matrix: a runbook is played, the daemon dies at a place (perhaps the next one too), and the end."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.crash.world import Notes, Unlike, World
from tests.crash_runbooks import faulty
from tests.crash_runbooks.sender import Sender
from tests.crash_runbooks.stages import Stage, all_stages

OK: Final = "ok"
NOT_REACHED: Final = "not reached"
NOT_AGAIN: Final = "ok, not passed again"
READY_S: Final = 90.0
END_S: Final = 150.0
LOOK_S: Final = 0.03
WORLD_S: Final = 5.0
"""The world must be right so soon after the end."""
SETTLE_S: Final = 1.0
"""A place behind the very end is passed within this."""
_CRASHED: Final = '"event": "actor crashed"'


@dataclass(frozen=True)
class Row:
    """``point``: ``NAME`` or ``NAME:NTH``; None: nobody dies. ``second``: where the daemon dies that recovers."""

    stage: str
    point: str | None
    second: str | None = None

    def __str__(self) -> str:
        then = f" then {self.second}" if self.second else ""
        return f"{self.stage} @ {self.point}{then}"


@dataclass(frozen=True)
class Outcome:
    """``passed``: the runbook places that the (last) daemon went through, each as often as it did."""

    row: Row
    result: str
    took_s: float
    detail: str = ""
    passed: tuple[str, ...] = ()
    resumed_s: float | None = None

    @property
    def is_right(self) -> bool:
        return self.result in (OK, NOT_AGAIN)


class _Struck(Exception):
    """Death came."""


def run_row(row: Row) -> Outcome:
    """Play it. Never raises: what goes wrong here is a wrong outcome too."""
    began = time.monotonic()
    try:
        with World(is_warm=True) as world:
            stage = (all_stages() | {one.id(): one for one in faulty.STAGES})[row.stage](world)
            try:
                return _Play(row, world, stage).outcome(began)
            except Unlike as unlike:
                return Outcome(row, str(unlike), time.monotonic() - began, _evidence(world))
            finally:
                stage.close()
    except Exception as error:
        return Outcome(row, f"broke: {type(error).__name__}", time.monotonic() - began, traceback.format_exc())


class _Play:
    def __init__(self, row: Row, world: World, stage: Stage) -> None:
        self.row, self.world, self.stage = row, world, stage
        self.sender: Sender | None = None
        self.notes: Notes = world.notes("none")
        self.point: str | None = None

    def outcome(self, began: float) -> Outcome:
        row, result, resumed_s = self.row, OK, None
        try:
            self.stage.begin()
            self.stage.configure()
            has_struck = self._act("armed", row.point)
            if row.point is not None and not has_struck:
                result = NOT_REACHED
            elif row.point is not None:
                restarted = time.monotonic()
                if row.second is None:
                    self._act("recovery", None)
                elif not self._act("recovery", row.second):
                    result = NOT_AGAIN
                else:
                    self._act("third", None)
                resumed_s = time.monotonic() - restarted
        finally:
            if self.sender is not None:
                self.sender.end()
        if result != NOT_REACHED:
            self._judge()
        passed = tuple(name for name in self.notes.passed() if name.startswith("runbook."))
        detail = "" if result in (OK, NOT_AGAIN) else _evidence(self.world)
        return Outcome(row, result, time.monotonic() - began, detail, passed, resumed_s)

    def _act(self, name: str, point: str | None) -> bool:
        """A daemon until it dies at the place (True) or the sender has its answer. Raises Unlike."""
        self.notes, self.point = self.world.notes(name), point
        self._address.unlink(missing_ok=True)  # a sender would go on asking at the dead one's
        self.daemon = self.world.start(daemon_point=point, notes=name)
        try:
            self._until_ended(is_first=name == "armed")
        except _Struck:
            code = self.daemon.wait(READY_S)
            if code != -9:
                raise Unlike(f"the daemon ended with {code}, not by the kill") from None
            return True
        finally:
            if self.sender is not None:
                self.sender.end()
        return False

    def _until_ended(self, *, is_first: bool) -> None:
        wanted = set(self.stage.all_services())
        if is_first:
            self._until(lambda: wanted == self._ready(), "all services are ready", READY_S)
            self.stage.break_it()
        self._until(self._address.exists, "the daemon takes alerts", READY_S)
        sender = self.sender = Sender(self.world.state, self.stage.alert_once(), self.world.folder)

        def is_over() -> bool:
            self.stage.meanwhile()
            if (answer := sender.answer) is None:
                return False
            follow = self.stage.then if answer["status"] == self.stage.wanted else {}
            return not follow or len(self._ended()) > len(follow)

        self._until(is_over, "the sender knows the end, and what follows from it has ended", END_S)
        if self.point is not None:
            deadline = time.monotonic() + SETTLE_S
            self._until(lambda: time.monotonic() > deadline, "the place behind the end", END_S)

    @property
    def _address(self) -> Path:
        return self.world.state / "guardian.address"

    def _ready(self) -> set[str]:
        return {name for name, node in self.world.nodes().items() if node["state"] == "ready"}

    def _until(self, is_there: Callable[[], bool], what: str, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            self._look()
            if is_there():
                return
            if time.monotonic() > deadline:
                raise Unlike(f"not within {limit_s:g} s: {what}")
            time.sleep(LOOK_S)

    def _look(self) -> None:
        if self.point is not None and self.notes.has_died(self.point):
            raise _Struck
        if (code := self.daemon.wait(0)) is not None:
            if self.point is not None and self.notes.has_died(self.point):
                raise _Struck
            raise Unlike(f"the daemon ended with {code}")

    # -- what must be true ------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Raises Unlike."""
        answer = (self.sender.answer if self.sender is not None else None) or {"status": "no answer", "detail": ""}
        if answer["status"] != self.stage.wanted:
            raise Unlike(f"{answer['status']}, not {self.stage.wanted}: {str(answer['detail'])[-300:]}")
        deadline = time.monotonic() + WORLD_S
        while (wrong := self.stage.wrong()) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        if wrong:
            raise Unlike("; ".join(wrong))
        begun = self._journal("SELECT runbook, ended_at IS NOT NULL FROM executions")
        ((ends,),) = self._journal("SELECT count(*) FROM events WHERE event='execution_ended'")
        answered = [one for (one,) in self._journal("SELECT outcome FROM alerts WHERE client <> 'selfheal'")]
        wanted = sorted([(self.stage.runbook, self.stage.wanted), *self.stage.then.items()])
        if sorted(self._ended()) != wanted or not len(begun) == len(wanted) == ends:
            raise Unlike(f"executions {begun}, ended {self._ended()}, {ends} ends written")
        if answered != [self.stage.answered]:
            raise Unlike(f"the alert was answered {answered}")
        if _CRASHED in self.world.log.read_text(errors="replace"):
            raise Unlike("an actor of the daemon crashed; that it went on from the journal is luck")

    def _ended(self) -> list[tuple[Any, ...]]:
        return self._journal("SELECT runbook, status FROM executions WHERE ended_at IS NOT NULL")

    def _journal(self, asked: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self.world.state / 'journal.db'}?mode=ro", uri=True)) as db:
            return db.execute(asked).fetchall()


def _evidence(world: World) -> str:
    """What the daemons said, for the one who looks into it."""
    log = world.log.read_text(errors="replace")[-5000:] if world.log.exists() else ""
    passes = {path.parent.name: path.read_text().split()[-30:] for path in sorted(world.folder.glob("*/passed"))}
    return f"--- daemon\n{log}\n--- passed {passes}"
