"""What the guardian does later: answer alerts that waited, climb ladders, end storms. Its timers are in the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.deciding.desk import Desk
from actors.deciding.words import ESCALATED_FROM, ESCALATED_TO, INSIDE, LADDER_LABELS, RUNG
from actors.journal import holds
from actors.journal.rows import OpenAlert
from actors.messages import IoDone, Wake
from actors.timers import Timer
from runbooks.deciding.holding import due
from runbooks.deciding.ladder import NextRung, Rung, next_rungs
from runbooks.deciding.radius import weathered
from runbooks.deciding.words import Pending, Storm, Waits
from runbooks.matching import is_in_use

LOOK_S: Final = 1.0
RETRY_S: Final = 1.0
CLIMB_S: Final = 10.0
"""A rung whose alert did not come back decided is tried again."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Something is due."""


@dataclass(frozen=True, slots=True)
class PendingSeen:
    """Tag of a look into the journal: the alert that waits under ``pending.key``, and whether it is over."""

    pending: Pending


@dataclass(frozen=True, slots=True)
class RootSeen:
    """Tag of a look into the journal: the alert that the ladder is about, and whether it is over."""

    rung: NextRung


Answer = Callable[[OpenAlert, frozenset[Waits], Pending], object]


class Later:
    """``answer`` decides about an alert that has waited."""

    def __init__(self, desk: Desk, answer: Answer) -> None:
        self._desk = desk
        self._answer = answer
        self._timer: Timer | None = None
        self._again: dict[str, float] = {}
        self._looking: set[str] = set()
        self._climbing: dict[tuple[str, int], float] = {}
        self._storms: dict[str, Storm] | None = None

    # -- when --------------------------------------------------------------------------------------------------------

    def arm(self, *, soon: bool) -> None:
        """Set the one timer. ``soon``: something waits that no message will tell of."""
        desk, now = self._desk, self._desk.now()
        times = [self._again.get(key, one.due_at) for key, one in desk.history.pending.items()]
        times += [one.due_at for one in self._next_rungs()]
        times += [now + LOOK_S] if soon or desk.history.storms else []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times:
            delay_s = max(0.02, min(times) - now)
            self._timer = desk.context.system.timers.after(delay_s, desk.ref, Wake(Tick()))

    def tick(self) -> None:
        now = self._desk.now()
        for key, one in list(self._desk.history.pending.items()):
            if self._again.get(key, one.due_at) <= now and key not in self._looking:
                self._look_at(one)
        for rung in self._next_rungs():
            if rung.due_at <= now:
                self._look_at_root(rung)
        self._look_at_storms(now)

    def look_at_pending(self) -> None:
        """Some alerts are over: what waits for its time may wait for nothing."""
        for key, one in list(self._desk.history.pending.items()):
            if key not in self._looking:
                self._look_at(one)

    # -- alerts that wait --------------------------------------------------------------------------------------------

    def _look_at(self, pending: Pending) -> None:
        journal, seq = self._desk.parts.journal, pending.alert_seq
        self._looking.add(pending.key)
        self._desk.context.system.io.run(
            lambda: journal.read(lambda db: (holds.pending_alert(db, seq), holds.has_ended(db, seq))),
            self._desk.ref,
            PendingSeen(pending),
        )

    def pending_seen(self, seen: PendingSeen, done: IoDone) -> None:
        desk, now = self._desk, self._desk.now()
        key = seen.pending.key
        self._looking.discard(key)
        pending = desk.history.pending.get(key)
        if pending is None or pending.alert_seq != seen.pending.alert_seq:
            return
        if done.error is not None:  # nothing is answered on a guess
            self._again[key] = now + RETRY_S
            return
        alert, has_ended = done.result
        if alert is None:
            self._forget(pending, "")
            return
        what = due(pending, has_ended, now)
        if what.over:
            self._forget(pending, what.over)
        elif what.again_at is not None:
            self._again[key] = what.again_at
        else:
            self._again.pop(key, None)
            self._answer(alert, what.passed, pending)

    def _forget(self, pending: Pending, reason: str) -> None:
        desk = self._desk
        desk.history.pending.pop(pending.key, None)
        self._again.pop(pending.key, None)
        desk.parts.journal.submit(lambda db: _forget(db, pending, reason))
        desk.context.log.info("an alert that waited is not answered", runbook=pending.runbook_id, reason=reason)

    # -- ladders -----------------------------------------------------------------------------------------------------

    def _next_rungs(self) -> list[NextRung]:
        desk = self._desk
        if not desk.parts.is_enabled():
            return []
        found = next_rungs(desk.library.runbooks, desk.history, desk.rungs)
        now, none = desk.now(), float("-inf")
        return [one for one in found if self._climbing.get((one.root.execution_id, one.number), none) <= now]

    def _look_at_root(self, rung: NextRung) -> None:
        journal, root, now = self._desk.parts.journal, rung.root.execution_id, self._desk.now()
        self._climbing = {one: until for one, until in self._climbing.items() if until > now}
        self._climbing[root, rung.number] = now + CLIMB_S
        self._desk.context.system.io.run(
            lambda: journal.read(lambda db: holds.alert_of(db, root)), self._desk.ref, RootSeen(rung)
        )

    def root_seen(self, seen: RootSeen, done: IoDone) -> None:
        rung = seen.rung
        if done.error is not None:
            return  # it is tried again
        facts, has_ended = done.result
        if has_ended or facts is None:
            self._end_ladder(rung, "the alert is over" if has_ended else "its alert is forgotten")
            return
        wanted = self._desk.runbook(rung.escalation.runbook or "")
        is_there = wanted is not None and is_in_use(wanted)
        self._desk.parts.alert(rung_alert(rung, facts, is_there=is_there))

    def _end_ladder(self, rung: NextRung, why: str) -> None:
        desk = self._desk
        runbook, now, path = desk.runbook(rung.root.runbook_id), desk.moment(), desk.context.path
        left = range(rung.number, len(runbook.escalate) if runbook is not None else rung.number + 1)
        stored = [holds.StoredRung(rung.root.execution_id, number, now.up_s, None, why) for number in left]
        for one in stored:
            desk.climbed(Rung(one.root, one.rung, one.at))
        desk.parts.journal.submit(lambda db: holds.add_rungs(db, stored, path, now))

    # -- storms ------------------------------------------------------------------------------------------------------

    def _look_at_storms(self, now: float) -> None:
        history = self._desk.history
        for rule, storm in list(history.storms.items()):
            try:
                seen = weathered(storm, rule, history.health(), now) if history.health is not None else storm
            except Exception as error:  # who cannot tell leaves it as it is
                self._desk.context.log.warning("cannot tell how the services are", error=str(error))
                continue
            if seen is None:
                del history.storms[rule]
            else:
                history.storms[rule] = seen
        self.storms_changed()

    def storms_changed(self) -> None:
        """Tell of a storm that began, once; write down what is known of all."""
        desk = self._desk
        storms = dict(desk.history.storms)
        if storms == (self._storms or {}):
            return
        known = self._storms or {}
        self._storms = storms
        now = desk.moment()
        desk.parts.journal.submit(lambda db: holds.keep_storms(db, storms, now))
        for rule in storms.keys() - known.keys():
            desk.parts.alert(storm_alert(rule))
        for rule in known.keys() - storms.keys():
            desk.context.log.info("the storm is over, runs may begin again", min_healthy=rule)

    def take_up(self) -> None:
        """What was told before is not told again."""
        self._storms = dict(self._desk.history.storms)
        self._again, self._looking, self._climbing = {}, set(), {}


def _forget(db: Any, pending: Pending, reason: str) -> None:
    holds.forget_pending(db, pending.key)
    if reason:
        holds.give_up_pending(db, pending.alert_seq, reason)


def storm_alert(rule: str) -> Mapping[str, Any]:
    """Once a storm: people are needed, not runbooks."""
    text = f"fewer than {rule} of the services are ready: no new runbook begins that asks for so many"
    return {"type": "recovery_storm", "severity": "critical", "message": text, "source": INSIDE}


def rung_alert(rung: NextRung, facts: Mapping[str, Any], *, is_there: bool) -> Mapping[str, Any]:
    """What climbs a rung: the alert of the root again for another runbook, or a notice. Equal for the same rung."""
    root, escalation = rung.root, rung.escalation
    failed = f"{root.runbook_id} did not help on {root.target} ({root.status.value})"
    given = {name: value for name, value in facts.get("labels", {}).items() if name not in LADDER_LABELS}
    labels = {**given, ESCALATED_FROM: root.execution_id, RUNG: str(rung.number)}
    own = {"id": f"escalation-{root.execution_id}-{rung.number}", "source": INSIDE}
    if escalation.runbook is not None and is_there:
        text = f"{failed}: next is {escalation.runbook}"
        return {**facts, **own, "message": text, "labels": {**labels, ESCALATED_TO: escalation.runbook}}
    text = escalation.notify or f"{failed}, and there is no runbook {escalation.runbook} in use"
    told = {"type": "escalation", "severity": "critical", "message": f"{text} ({failed})"}
    about = {"service": facts["service"]} if facts.get("service") else {}
    return {**told, **about, **own, "labels": labels}
