"""The desk where people agree to runbooks, or do not: asks, takes votes, and lets what nobody agreed to expire.

``vote`` and ``waiting`` are called from HTTP threads and the I/O pool and may block; ``asked`` from the guardian's
thread; ``look`` once a second from the node's. Nothing here is the only copy of anything: what awaits approval is in
the journal, with its deadline; a daemon that begins reads it again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from actors import askers
from actors.approval_words import shown
from actors.clock import Clock
from actors.deciding.words import Granted
from actors.iopool import IoPool
from actors.journal import consents, happened
from actors.journal.consents import Ballot, Came, Case, Request
from actors.journal.journal import Journal
from actors.journal.rows import Execution
from actors.journal.schema import JournalTrouble
from actors.runbook import ExecutionFinished
from runbooks.approval import (
    Reading,
    Say,
    Verdict,
    Vote,
    differences,
    plan_hash,
    plan_words,
    refusal,
    rules_of,
    why_no_safe_action,
)
from runbooks.deciding.timing import Moment, on_scale
from runbooks.engine import heard
from runbooks.engine_words import Answer
from runbooks.model import Approval, OnTimeout, Runbook, Status
from runbooks.parameters import BadParameter, resolve
from runbooks.parse import BadRunbook, Library, parse
from runbooks.plan import bind, bound_target
from runbooks.ports import Ports
from runbooks.steps import make_check
from runbooks.templating import BadTemplate

PATH: Final = "root/links/alerts"
"""Its events are those of the node that decides."""


class NotTaken(Exception):
    """A vote that counts for nothing; the text says why."""


@dataclass(frozen=True)
class ApprovalParts:
    """Args:
    library: the runbook files as they are on the disk now (read anew, may block).
    granted: an execution is queued now.
    finished: an execution has ended.
    alert: an alert of the daemon's own.
    own_user: whose programs hold the local key.
    """

    journal: Journal
    waits: IoPool
    clock: Clock
    ports: Ports
    library: Callable[[], Library]
    granted: Callable[[Granted], object]
    finished: Callable[[ExecutionFinished], object]
    alert: Callable[[Mapping[str, Any]], object]
    own_user: str = "root"


@dataclass(slots=True)
class _Open:
    """One that awaits approval. ``until``: by the clock that nobody can set; ``is_busy``: being worked out or ended."""

    expires_at: float
    until: float
    is_asked: bool
    is_busy: bool = False


@dataclass
class Approvals:
    parts: ApprovalParts
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pause: threading.Event = field(default_factory=threading.Event)
    """Between two looks at a precondition."""
    _open: dict[str, _Open] = field(default_factory=dict)
    _is_loaded: bool = False
    _is_loading: bool = False
    _trouble: str | None = None
    _unread: str | None = None
    """Why it is not known what awaits approval."""

    # -- what awaits --------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        return len(self._open)

    def asked(self, execution_id: str) -> None:
        """From the guardian: this one awaits approval, on disk."""
        del execution_id  # it is read with all others: one that could not be read is not forgotten
        self._is_loaded = False
        self.look()

    def look(self) -> str | None:
        """Load what an earlier daemon left, work out plans, end what is over. Must not block."""
        if not self._is_loaded and not self._is_loading:
            self._is_loading = True
            self.parts.waits.run(self._load)
        now, wall = self.parts.clock.now(), self.parts.clock.wall()
        with self._lock:
            idle = [(key, one) for key, one in self._open.items() if not one.is_busy]
            over = [key for key, one in idle if wall >= one.expires_at or now >= one.until]
            unasked = [key for key, one in idle if not one.is_asked and key not in over]
            for key in (*over, *unasked):
                self._open[key].is_busy = True
        for key in over:
            self.parts.waits.run(lambda key=key: self._guarded(key, self._expire))  # type: ignore[misc]
        for key in unasked:
            self.parts.waits.run(lambda key=key: self._guarded(key, self._prepare))  # type: ignore[misc]
        return self._unread or self._trouble

    def _load(self) -> None:
        try:
            self._is_loaded = True  # what is asked for from here on is read again
            found = self.parts.journal.read(consents.awaiting)
            self._unread = None
            self._take_up(found)
        except JournalTrouble as trouble:
            self._is_loaded = False
            self._unread = f"what awaits approval cannot be read: {trouble}"
        finally:
            self._is_loading = False

    def _take_up(self, cases: Sequence[Case]) -> None:
        """Armed twice: by the wall clock, and by one that setting the clock does not move."""
        for one in cases:
            expires_at, moment = self._expires_at(one), self.parts.clock.moment()
            decided = one.execution
            age_s = moment.up_s - on_scale(decided.decided_at, decided.decided_mark, moment)
            left_s = min(expires_at - moment.wall_s, expires_at - decided.decided_at - age_s)
            with self._lock:
                until = self.parts.clock.now() + left_s
                self._open.setdefault(decided.id, _Open(expires_at, until, one.request is not None))
        self.look()

    def _expires_at(self, found: Case) -> float:
        if found.request is not None:
            return found.request.expires_at
        try:
            timeout_s = rules_of(parse(found.execution.source, found.execution.runbook)).timeout_s
        except BadRunbook:
            timeout_s = 0.0
        return found.execution.decided_at + timeout_s

    def _guarded(self, key: str, work: Callable[[str], object]) -> None:
        """On the pool: what fails now is tried at the next look."""
        try:
            work(key)
            self._trouble = None
        except JournalTrouble as trouble:
            self._trouble = f"approvals cannot be kept: {trouble}"
        except Exception as error:
            structlog.get_logger().exception("an approval could not be handled", execution=key)
            self._trouble = f"{key}: {type(error).__name__}: {error}"
        finally:
            with self._lock:
                if key in self._open:
                    self._open[key].is_busy = False

    def _forget(self, key: str) -> None:
        with self._lock:
            self._open.pop(key, None)

    # -- asking -------------------------------------------------------------------------------------------------------

    def _prepare(self, key: str) -> None:
        """Work out what is asked, and ask. Blocks: the preconditions are looked at."""
        found = self._case(key)
        if found is None or found.execution.status is not Status.AWAITING_APPROVAL:
            self._forget(key)
            return
        execution = found.execution
        try:
            runbook = parse(execution.source, execution.runbook)
            readings = self._readings(runbook, execution, found.facts)
            hashed = plan_hash(runbook, execution.parameters, readings, found.facts)
            lines = plan_words(runbook, execution.parameters, found.facts)
        except (BadRunbook, BadTemplate, BadParameter) as bad:
            self._end(execution, Status.REJECTED, f"its plan cannot be worked out: {bad}")
            return
        now = self.parts.clock.wall()
        user = self.parts.own_user
        asked = self.parts.journal.read(lambda db: askers.asked(db, key, user, with_waiting=True))
        request = Request(key, hashed, asked.everyone, now, self._expires_at(found), readings)
        if not self._submit(lambda db: consents.ask(db, PATH, execution, request)):
            return
        with self._lock:
            if key in self._open:
                self._open[key].is_asked = True
        rules = rules_of(runbook)
        structlog.get_logger().warning(
            "approval wanted", execution=key, runbook=runbook.id, target=execution.target, plan=hashed, steps=lines
        )
        who = ", ".join(rules.approvers) or "any operator"
        text = (
            f"{runbook.name} on {execution.target} awaits approval by {who} ({rules.quorum} needed):"
            f" selfheal approve {key} --plan {hashed[:12]}"
        )
        self._alert("approval_wanted", execution, text, "high")

    def _readings(
        self, runbook: Runbook, execution: Execution, facts: Mapping[str, Any], before: Sequence[Reading] = ()
    ) -> tuple[Reading, ...]:
        """What the preconditions see. Each has its time (``within``) to see what it expects, or what it saw ``before``:
        a daemon that has just started has not heard all its endpoints yet. What has its time in vain ends the waiting.
        """
        if not rules_of(runbook).recheck:
            return ()
        plan = bind(runbook, execution.parameters, facts)
        readings: list[Reading] = []
        is_patient = True
        for number, check in enumerate(plan.preconditions):
            wanted = before[number].answer if number < len(before) else None
            deadline = time.monotonic() + (check.within_s if is_patient else 0.0)
            while True:
                found = make_check(check.call, None, self.parts.ports, execution.id)
                said = found.answer.value
                is_so = heard(check.expect, found.answer) is Answer.YES if wanted is None else said == wanted
                if is_so or time.monotonic() >= deadline:
                    break
                self._pause.wait(check.every_s)
            is_patient = is_patient and is_so
            readings.append(Reading(check.call, said, found.seen))
        return tuple(readings)

    # -- votes --------------------------------------------------------------------------------------------------------

    def vote(self, execution_id: str, who: str, says: Say, plan: str | None = None, why: str = "") -> dict[str, Any]:
        """Take a person's vote. Blocks: for an approval the preconditions are looked at again.

        Args:
            who: the authenticated name, with its kind.
            plan: the hash (or its beginning, 12 letters and more) the person has seen; None: whatever is asked.

        Raises:
            NotTaken: it counts for nothing.
            JournalTrouble: nothing can be written now; nothing has changed.
        """
        found = self._case(execution_id)
        if found is None or found.execution.status is not Status.AWAITING_APPROVAL:
            raise NotTaken(consents.not_awaited(execution_id, found))
        request, execution = found.request, found.execution
        if request is None:
            raise NotTaken(f"{execution_id}: its plan is being worked out; ask again")
        hashed = _meant(request, plan)
        rules, vote = self._rules(execution), Vote(who, says)
        refused = self.parts.journal.read(lambda db: self._refusal(db, rules, found, vote))
        if refused is not None:
            raise NotTaken(refused)
        void = self._void(found, request) if says is Say.APPROVE and hashed == request.plan_hash else None
        ballot = Ballot(execution_id, hashed, vote, why, void)
        came = self._submit(lambda db: self._cast(db, rules, ballot))
        return self._followed(execution, rules.quorum, hashed, came, void)

    def _cast(self, db: Any, rules: Approval, ballot: Ballot) -> Came:
        """In the transaction of the vote itself: whose alert was folded into the run until now has asked for it."""
        key = ballot.execution_id
        found = consents.case(db, key)
        if found is not None and (refused := self._refusal(db, rules, found, ballot.vote)) is not None:
            return Came(Verdict.WAITING, refused=refused, votes=len(found.votes))
        return consents.vote(db, PATH, rules, ballot, self.parts.clock.moment, lambda: self._is_late(key))

    def _refusal(self, db: Any, rules: Approval, found: Case, vote: Vote) -> str | None:
        """Why this vote cannot be taken now. Nobody agrees to what he asked for too; only whoever asked for the run
        itself may take it back.
        """
        asked = askers.asked(db, found.execution.id, self.parts.own_user)
        names = asked.own if vote.says is Say.REJECT else _all_of(found.request, asked)
        refused = refusal(rules, names, found.votes, vote)
        if refused is None and vote.says is Say.APPROVE and rules.four_eyes and askers.UNKNOWN in names:
            return f"{found.execution.id}: who asked for it is not known any more; it can only be rejected"
        return refused

    def _rules(self, execution: Execution) -> Approval:
        try:
            return rules_of(parse(execution.source, execution.runbook))
        except BadRunbook as bad:
            raise NotTaken(f"{execution.id}: its runbook cannot be read: {bad}") from None

    def _followed(self, execution: Execution, quorum: int, hashed: str, came: Came, void: str | None) -> dict[str, Any]:
        """Tell whoever waits for it; the journal has it already."""
        if came.verdict is Verdict.EXPIRED:
            self.look()
            raise NotTaken(came.refused or "")
        if came.refused is not None:
            raise NotTaken(came.refused)
        outcome: str = came.verdict.value
        if came.is_end:
            self._forget(execution.id)
        if came.verdict is Verdict.GRANTED:
            self.parts.granted(Granted(execution.id))
        elif came.verdict is Verdict.REJECTED:
            self.parts.finished(ExecutionFinished(execution.id, Status.REJECTED, came.detail))
            if void is not None:
                outcome = "void"
                self._alert("approval_void", execution, f"{execution.id}: {came.detail}", "critical")
        return {
            "execution_id": execution.id,
            "outcome": outcome,
            "plan": hashed,
            "votes": came.votes,
            "quorum": quorum,
            "detail": came.detail,
        }

    def _void(self, found: Case, request: Request) -> str | None:
        """Why what would run now is not what was asked about; None: it is."""
        execution = found.execution
        current = self.parts.library().get(execution.runbook)
        if current is None:
            return f"the file of runbook {execution.runbook} is gone or broken"
        if current.source != execution.source:
            return f"the file of runbook {execution.runbook} was edited"
        try:
            readings = self._readings(current, execution, found.facts, request.readings)
            now = plan_hash(current, execution.parameters, readings, found.facts)
        except (BadTemplate, BadParameter) as bad:
            return str(bad)
        if now == request.plan_hash:
            return None
        seen = differences(request.readings, readings)
        return "; ".join(seen) or "its parameters, or the alert, are not what they were"

    def _is_late(self, key: str) -> bool:
        with self._lock:
            known = self._open.get(key)
        return known is not None and self.parts.clock.now() >= known.until

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _expire(self, key: str) -> None:
        found = self._case(key)
        if found is None or found.execution.status is not Status.AWAITING_APPROVAL:
            self._forget(key)
            return
        now, execution = self.parts.clock.moment(), found.execution
        instead, text = self._safe_action(found, now)
        came = self._submit(lambda db: consents.expire(db, PATH, execution, now, instead))
        self._forget(key)
        if not came.is_end:
            return  # somebody was faster
        self.parts.finished(ExecutionFinished(key, Status.EXPIRED, came.detail))
        if instead is not None:
            self.parts.granted(Granted(instead.id, instead))
        self._alert("approval_expired", execution, f"{execution.runbook}: {came.detail}{text}", "critical")

    def _safe_action(self, found: Case, now: Moment) -> tuple[Execution | None, str]:
        """What is begun instead, and why there is nothing although it was asked for."""
        try:
            rules = rules_of(parse(found.execution.source, found.execution.runbook))
            if rules.on_timeout is not OnTimeout.SAFE_ACTION or rules.safe_action is None:
                return None, ""
            safe = self.parts.library().get(rules.safe_action)
            if safe is None:
                return None, f"; {rules.safe_action} is not there, nothing is begun instead"
            if (why_not := why_no_safe_action(safe)) is not None:
                return None, f"; {safe.id} {why_not}, nothing is begun instead"
            values = resolve(safe.parameters, found.facts)
            bind(safe, values, found.facts)
        except (BadRunbook, BadParameter, BadTemplate) as bad:
            return None, f"; nothing is begun instead: {bad}"
        made = Execution(
            f"x-{uuid.uuid4().hex[:16]}",
            found.execution.alert_seq,
            safe.id,
            safe.source,
            safe.sha256,
            bound_target(safe, values),
            values,
            f"safe-action:{found.execution.id}",
            found.execution.severity,
            safe.priority,
            Status.QUEUED,
            now.wall_s,
            decided_mark=now.mark,
        )
        return made, ""

    def _end(self, execution: Execution, status: Status, detail: str) -> None:
        now = self.parts.clock.moment()
        self._submit(lambda db: happened.finish_execution(db, PATH, execution, status, detail, now.wall_s, now.mark))
        self._forget(execution.id)
        self.parts.finished(ExecutionFinished(execution.id, status, detail))
        self._alert("approval_void", execution, f"{execution.id}: {detail}", "critical")

    def _alert(self, kind: str, execution: Execution, text: str, severity: str) -> None:
        labels = {"execution_id": execution.id, "runbook": execution.runbook, "target": execution.target}
        self.parts.alert(
            {"type": kind, "service": "approvals", "severity": severity, "message": text, "source": "selfheal"}
            | {"labels": labels}
        )

    # -- for people ---------------------------------------------------------------------------------------------------

    def waiting(self) -> list[dict[str, Any]]:
        """What awaits approval, oldest first: the plan in words, its hash, who may, and until when. Blocks.

        Raises:
            JournalTrouble: it cannot be read now.
        """
        return [shown(one, self._expires_at(one)) for one in self.parts.journal.read(self._awaiting)]

    def _awaiting(self, db: Any) -> list[Case]:
        """With all who have asked by now."""
        found = []
        for one in consents.awaiting(db):
            asked = askers.asked(db, one.execution.id, self.parts.own_user)
            known = one.request
            found.append(replace(one, request=known and replace(known, asked_by=_all_of(known, asked))))
        return found

    # -- the journal --------------------------------------------------------------------------------------------------

    def _case(self, key: str) -> Case | None:
        return self.parts.journal.read(lambda db: consents.case(db, key))

    def _submit(self, work: Callable[[Any], Any]) -> Any:
        """The journal always answers."""
        return self.parts.journal.submit(work).result()


def _all_of(request: Request | None, asked: askers.Asked) -> tuple[str, ...]:
    """Those of a group are found when it is asked; who comes later, by the alerts that were folded into the run."""
    before = () if request is None else request.asked_by
    return tuple(dict.fromkeys((*before, *asked.everyone)))


def _meant(request: Request, plan: str | None) -> str:
    """The whole hash, of what a person typed."""
    if plan is None or (len(plan) >= 12 and request.plan_hash.startswith(plan)):
        return request.plan_hash
    return plan
