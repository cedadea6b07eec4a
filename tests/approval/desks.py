"""A desk for approvals on a real journal, with a clock to set and a world whose preconditions can change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.approvals import ApprovalParts, Approvals
from actors.deciding.words import Granted
from actors.iopool import IoPool
from actors.journal import consents, events, rows
from actors.journal.alert_batches import NewDecision, new_alert, store_alerts
from actors.journal.happened import decide_alerts
from actors.journal.journal import Journal
from actors.journal.rows import Execution, OpenAlert
from actors.runbook import ExecutionFinished
from runbooks.deciding.timing import Moment
from runbooks.model import Runbook, Status
from runbooks.parse import Library
from runbooks.ports import HttpAnswer, Ports
from tests.recovery.place import World
from tests.runbooks.files import GOOD, runbook
from tests.support.eventually import eventually

START = 1_800_000_000.0
FACTS = {"type": "service_failure", "service": "a", "severity": "high", "message": "m", "source": "test"}
LIMIT = {"call": {"type": "http_ok", "with": {"url": "http://risk/exposure", "value": "/exposure"}}}
APPROVED: dict[str, Any] = {
    **GOOD,
    "id": "reduce",
    "preconditions": [LIMIT],
    "approval": {"timeout": "60s", "approvers": ["ann", "bob", "cleo"], "four_eyes": True},
}


@dataclass
class HandClock:
    """Both clocks go together, unless a test sets one of them."""

    wall_s: float = START
    now_s: float = 1000.0

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.wall_s

    def moment(self) -> Moment:
        return Moment(self.wall_s, "boot", self.now_s)

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.now_s += seconds


@dataclass
class Exposure:
    """A market value behind HTTP."""

    value: int = 100
    refusals: int = 0
    """So many requests are refused first."""

    def request(
        self, method: str, url: str, timeout_s: float, headers: Mapping[str, str], body: Any = None
    ) -> HttpAnswer:
        del method, url, timeout_s, headers, body
        if self.refusals > 0:
            self.refusals -= 1
            return HttpAnswer(503, "")
        return HttpAnswer(200, json.dumps({"exposure": self.value, "at": self.value * 7}))


@dataclass
class Desk:
    approvals: Approvals
    journal: Journal
    clock: HandClock
    exposure: Exposure
    files: dict[str, Runbook]
    granted: list[Granted] = field(default_factory=list)
    finished: list[ExecutionFinished] = field(default_factory=list)
    alerts: list[Mapping[str, Any]] = field(default_factory=list)
    count: int = 0

    def decide(
        self, raw: Mapping[str, Any] = APPROVED, client: str = "ann", values: Mapping[str, Any] | None = None
    ) -> str:
        """An execution that awaits approval, on disk, as the guardian makes it."""
        self.count += 1
        name, made = f"x-{self.count}", runbook(dict(raw))
        given = {"service": "a"} if values is None else values
        self.files.setdefault(made.id, made)
        alert = new_alert(client, f"alert-{self.count}", FACTS, self.clock.wall())

        def write(db: Any) -> None:
            (stored,) = store_alerts(db, [alert])
            assert isinstance(stored, rows.StoredAlert)
            moment = self.clock.moment()
            execution = Execution(
                name, stored.seq, made.id, made.source, made.sha256, "service:a", given, name,
                "high", 50, Status.AWAITING_APPROVAL, moment.wall_s, decided_mark=moment.mark,
            )  # fmt: skip
            body = {"outcome": "awaiting_approval", "execution_id": name, "runbook": made.id, "reason": ""}
            decided = NewDecision(stored.seq, body, execution, moment.wall_s)
            decide_alerts(db, "root/links/alerts", [OpenAlert(stored.seq, alert.msg_id, FACTS)], [decided])

        self.journal.submit(write).result(30)
        self.approvals.asked(name)
        return name

    def asked(self, raw: Mapping[str, Any] = APPROVED, client: str = "ann") -> tuple[str, str]:
        """(execution, plan hash) of one that is asked about."""
        name = self.decide(raw, client)

        def look() -> str | None:
            self.approvals.look()
            request = self.journal.read(lambda db: consents.request_of(db, name))
            return None if request is None else request.plan_hash

        return name, eventually(look, within_s=30, what="the request")

    def status(self, name: str) -> str:
        found = self.journal.read(lambda db: rows.execution(db, name))
        assert found is not None
        return str(found["status"])

    def until(self, name: str, status: str) -> None:
        def look() -> bool:
            self.approvals.look()
            return self.status(name) == status

        eventually(look, within_s=30, what=status)


@contextmanager
def desk(folder: Path, clock: HandClock | None = None, files: dict[str, Runbook] | None = None) -> Iterator[Desk]:
    clock, exposure, waits = clock or HandClock(), Exposure(), IoPool(8, "wait")
    journal = Journal(folder / "journal.db", events.ensure_epoch, audit_key=lambda: bytes(32))
    journal.start()
    known = {} if files is None else files
    granted: list[Granted] = []
    finished: list[ExecutionFinished] = []
    alerts: list[Mapping[str, Any]] = []
    ports = Ports(World(), None, exposure, None)  # type: ignore[arg-type]
    parts = ApprovalParts(
        journal, waits, clock, ports, lambda: Library(tuple(known.values())), granted.append, finished.append,
        alerts.append, "ann",
    )  # fmt: skip
    try:
        yield Desk(Approvals(parts), journal, clock, exposure, known, granted, finished, alerts)
    finally:
        waits.close()
        journal.close()
