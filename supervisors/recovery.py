"""Everything that turns an alert into a recovery, built and joined: journal, intake, decisions, runbooks, links.

Built by ``app`` on the main thread; its methods are called from HTTP threads, supervisors' threads and link pumps.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from actors.access.audit import Audit
from actors.access.book import Book, ClientBook, PlainBook
from actors.access.keyring import Keyring
from actors.alertmanager import AlertmanagerIntake, AlertmanagerParts, AlertmanagerPlan
from actors.board import NodeKind, NodeState
from actors.bridge_commands import BridgeCommands
from actors.bridge_sessions import BridgeSessions
from actors.context import ActorSystem
from actors.endpoints.tcp import CLIENT
from actors.guardian import GuardianActor, GuardianParts, RecoverySwitched
from actors.intake import AlertIntake, IntakeParts
from actors.journal import events, rows
from actors.journal.journal import Journal
from actors.journal.retention import Retention
from actors.journal.room import Room, RoomLimits
from actors.monitor import MonitorActor, Watched
from actors.questions import BadQuestion
from actors.runbook import RunbookParts
from actors.spec import ChildSpec
from bridge_link.publisher import EventPublisher
from bridge_link.pump import RouterPump
from bridge_link.report import as_report
from bridge_link.wire import Kind
from config.models import JournalConfig
from guardian_link.messages import BadAlert
from runbooks.commands import LocalCommands
from runbooks.network import LocalHttp, LocalTcp
from runbooks.parse import SHIPPED, Library, load_library
from runbooks.ports import Ports, Services
from supervisors.decisions.model import Report, ReportKind, Strategy
from supervisors.degradation import Degradation
from supervisors.happenings import Happenings
from supervisors.library import Supervisor
from supervisors.manager import RecoveryStatus
from supervisors.memory_watch import MemoryWatch
from supervisors.open_files import OpenFiles
from supervisors.records import JournalRecords
from supervisors.report_words import said
from supervisors.telling import Telling
from supervisors.tree_json import rfc3339

GUARDIAN_PATH: Final = "root/links/alerts"
BRIDGES_PATH: Final = "root/bridges"
SWITCH_KEY: Final = "recovery"
OPEN: Final = frozenset({"queued", "running"})
UPPER: Final = {"journal": "root/journal", "ledger": "root/runtimes/exit-watcher", "keeper": "root/runtimes/keeper"}
"""Nodes whose troubles are told by these words; all others are links."""
OUTER: Final = ("root/services/", "root/bridges/")
"""What a start is an event of; our own actors' starts are none."""


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What the configuration says. Journal, keys and addresses go to ``state_dir``; ``curve``: links have keys."""

    state_dir: Path
    enabled: bool
    max_concurrent: int
    runbook_directories: tuple[Path, ...]
    guardian_address: str | None
    bridge_address: str | None
    curve: bool = True
    alertmanager: AlertmanagerPlan = field(default_factory=AlertmanagerPlan)
    room: RoomLimits = field(default_factory=RoomLimits)
    retention: Retention = field(default_factory=Retention)
    events_address: str | None = None
    endpoints: Mapping[str, str] | None = None
    """The kinds of the bridge endpoints, by name."""


class Recovery:
    def __init__(self, plan: RecoveryPlan, system: ActorSystem, services: Services) -> None:
        self._plan = plan
        self._system = system
        room = Room(plan.state_dir, plan.room)
        self._journal = Journal(
            plan.state_dir / "journal.db", self._journal_opened, self._committed, room=room, retention=plan.retention
        )
        self._publisher: EventPublisher | None = None
        self._happenings = Happenings(self._journal, lambda: self._publisher.address if self._publisher else None)
        self._unrecorded = 0
        self._unwritten: dict[str, str] = {}
        self.records = JournalRecords(self._journal)
        self._library = _load(plan)
        self._switch: Mapping[str, Any] = {}
        self._book = self._clients()
        self.sessions = BridgeSessions(now=system.clock.now, may_answer=self._may_answer, kinds=plan.endpoints)
        self._intake = AlertIntake(
            IntakeParts(
                self._journal,
                system.io,
                system.clock,
                hint=self._tell_guardian,
                ask=self._ask,
                bridge=self.sessions.take,
                judge=self._book.judge,
                may_answer=self._may_answer,
            )
        )
        self.alertmanager = AlertmanagerIntake(
            AlertmanagerParts(
                self._journal,
                system.clock,
                hint=self._tell_guardian,
                say=self._intake.say_once,
                is_known=lambda name: services.status(name) is not None,
            ),
            plan.alertmanager,
        )
        self._ports = Ports(
            services, LocalCommands(), LocalHttp(), LocalTcp(), BridgeCommands(self.sessions, self._bridge_is_ready)
        )
        self._pumps: dict[str, RouterPump] = {}
        self._files = OpenFiles(system.clock.now)
        self._memory = MemoryWatch(
            self._link_ports, system.io.run, system.clock.now, lambda: self._intake.bytes_in_flight
        )
        system.board.listen(Degradation(lambda path, event, text: self._event(path, event, text, {})).look)

    # -- nodes of the tree --------------------------------------------------------------------------------------------

    def journal_spec(self) -> ChildSpec:
        journal = self._journal

        def begin() -> None:
            if not journal.is_open:
                journal.start_anyway()  # services must run, whatever becomes of the records
                self._event("root/journal", "journal_opened", "events are recorded from here", {"pid": os.getpid()})

        watched = Watched(begin, lambda: journal.is_open, journal.close, trouble=self.told("journal", self._trouble))
        return ChildSpec(id="journal", start=MonitorActor, args=(NodeKind.JOURNAL, watched), shutdown=15.0)

    def _journal_opened(self, db: sqlite3.Connection) -> None:
        """On the journal's thread, before anything is decided by it. A person's word outlives a lost file."""
        with suppress(sqlite3.OperationalError):  # an older journal on a full disk: when it is opened again
            events.ensure_epoch(db)
        stored = rows.setting(db, SWITCH_KEY)
        if stored is None and self._switch:
            rows.set_setting(db, SWITCH_KEY, self._switch)
        self._switch = stored or self._switch

    def _committed(self) -> None:
        """On the journal's thread."""
        publisher = self._publisher
        if publisher is not None:
            publisher.ring()

    def _trouble(self) -> str | None:
        trouble = self._journal.trouble
        if trouble is None or not self._unrecorded:
            return trouble
        return f"{trouble} ({self._unrecorded} events not recorded)"

    def told(self, what: str, trouble: Callable[[], str | None]) -> Callable[[], str | None]:
        """``trouble``, and what it finds is alerted once."""
        return Telling(what, trouble, self.trouble_alert, self._trouble_over).look

    def trouble_alert(self, what: str, trouble: str) -> None:
        """Say that records cannot be kept; as an alert too, for as far as the journal takes it."""
        structlog.get_logger().critical("cannot keep records", what=what, trouble=trouble)
        self._event(_node_of(what), "trouble", trouble, {"what": what})
        alert = {"type": "records_trouble", "service": what, "message": trouble}
        self._intake.take_mapping({**alert, "severity": "critical", "source": "selfheal"})

    def _trouble_over(self, what: str) -> None:
        self._event(_node_of(what), "trouble_over", "well again", {"what": what})

    def runbooks_spec(self) -> ChildSpec:
        return Supervisor.spec("runbooks", strategy=Strategy.SIMPLE_ONE_FOR_ONE, intensity=5, period_s=60.0)

    def links(self) -> tuple[ChildSpec, ...]:
        parts = GuardianParts(
            self._journal,
            self._library,
            RunbookParts(self._journal, self._ports, self._tell_guardian),
            self._intake.decided,
            self._intake.finished,
            self.is_enabled,
            self._plan.max_concurrent,
            self._intake.decider_began,
        )
        alerts = ChildSpec(id="alerts", start=GuardianActor, args=(parts,))
        return (alerts, *(self._pump_spec(name, pump) for name, pump in self._all_pumps().items()))

    def _link_pumps(self) -> Mapping[str, RouterPump]:
        """Made when they are first needed: their keys must be there. Raises KeyRefused."""
        addresses = {"guardian": self._plan.guardian_address, "bridge": self._plan.bridge_address}
        wanted = {name: address for name, address in addresses.items() if address is not None}
        if wanted and not self._pumps:
            self._book.open()
            for name, address in wanted.items():
                self._pumps[name] = RouterPump(
                    address,
                    self._taker(name),
                    name,
                    guard=self._book.guard,
                    on_drained=self._intake.drained,
                    is_full=self._files.is_full,
                )
            if self._plan.events_address is not None:
                guard = self._book.follower_guard
                self._publisher = EventPublisher(
                    self._plan.events_address, self._happenings.batch, guard, self._files.is_full
                )
        return self._pumps

    def _all_pumps(self) -> Mapping[str, RouterPump | EventPublisher]:
        pumps = self._link_pumps()
        return {**pumps, **({} if self._publisher is None else {"events": self._publisher})}

    def _link_ports(self) -> Mapping[str, int]:
        reached = {name: pump.address for name, pump in self._all_pumps().items()}
        return {name: int(at.rsplit(":", 1)[1]) for name, at in reached.items() if at is not None}

    def _pump_spec(self, name: str, pump: RouterPump | EventPublisher) -> ChildSpec:
        file = self._plan.state_dir / f"{name}.address"

        def begin() -> None:
            if not pump.is_alive:  # bound before the tree was started
                pump.start()
            self._write_address(name, file, _as_reached(pump))

        def look() -> str | None:
            self._intake.look()
            if name in self._unwritten:
                self._write_address(name, file, _as_reached(pump))
            memory = self._memory.look(name)
            unwritten = self._unwritten.get(name) or memory
            return unwritten if unwritten or name == "events" else self._book.look() or self._files.trouble()

        watched = Watched(begin, lambda: pump.is_alive, pump.close, lambda: pump.address, self.told(name, look))
        return ChildSpec(id=name, start=MonitorActor, args=(NodeKind.LINK, watched), shutdown=10.0)

    def _write_address(self, name: str, file: Path, text: str) -> None:
        """For clients that look into the state directory. Without it the link works for who knows the address."""
        fresh = file.with_suffix(".new")
        try:
            fresh.write_text(text, encoding="ascii")
            fresh.replace(file)  # a client never reads half an address
        except OSError as error:
            self._unwritten[name] = f"cannot write {file}: {error.strerror}"
        else:
            self._unwritten.pop(name, None)

    def _taker(self, name: str) -> Callable[[Any], None]:
        return lambda incoming: self._intake.take(self._pumps[name], incoming)

    def _clients(self) -> Book:
        keyring, clock = Keyring(self._plan.state_dir), self._system.clock
        if not self._plan.curve:
            return PlainBook(keyring)

        def tell(event: str, text: str, evidence: Mapping[str, Any]) -> None:
            self._event("root/links", event, text, evidence)

        return ClientBook(keyring, clock, Audit(clock, tell))

    def bind(self) -> None:
        """Take the links' addresses before anything is started. Raises BindFailed, BadAddress, KeyRefused."""
        for pump in self._all_pumps().values():
            if not pump.is_alive:
                pump.start()

    def close(self) -> None:
        for pump in self._bound():
            pump.close()
        self._journal.close()

    def _bound(self) -> tuple[RouterPump | EventPublisher, ...]:
        return (*self._pumps.values(), *(() if self._publisher is None else (self._publisher,)))

    # -- what happens -------------------------------------------------------------------------------------------------

    def reported(self, path: str, report: Report) -> None:
        """A supervisor's report, on its thread: handed to the journal; parked children are alerted once."""
        quiet = {ReportKind.STOPPED} | (set() if path.startswith(OUTER) else {ReportKind.STARTED})
        if report.kind in quiet and report.reason is None:
            return
        evidence = dict(report.reason.evidence) if report.reason is not None else {}
        self._event(path, report.kind.value, said(report), {key: str(value) for key, value in evidence.items()})
        if report.kind is ReportKind.PARKED:
            alert = {"type": "crash_loop", "service": path.rsplit("/", 1)[-1], "message": said(report)}
            self._intake.take_mapping({**alert, "severity": "high", "source": "selfheal"})

    def commanded(self, path: str, command: str, by: str, why: str) -> None:
        """A person's or a runbook's command."""
        text = f"{command} by {by}" + (f": {why}" if why else "")
        self._event(path, command, text, {"by": by} | ({"why": why} if why else {}))

    def happened(self, path: str, event: str, text: str) -> None:
        """What somebody outside did to a service."""
        self._event(path, event, text, {"by": "outside"})

    def bridge_error(self, endpoint: str, error: Mapping[str, Any]) -> None:
        """An error a bridge endpoint reported becomes an alert."""
        try:
            self._intake.take_mapping(as_report({"system": endpoint, **error}) | {"source": f"bridge:{endpoint}"})
        except BadAlert as bad:
            structlog.get_logger().warning("bridge error refused", endpoint=endpoint, problem=str(bad))

    def _may_answer(self, client: str) -> bool:
        return client == CLIENT or self._book.may(client, Kind.REPLY)

    def _bridge_is_ready(self, endpoint: str) -> bool | None:
        status = self._system.board.get(f"{BRIDGES_PATH}/{endpoint}")
        return None if status is None else status.state is NodeState.READY

    def _event(self, path: str, event: str, text: str, evidence: Mapping[str, Any]) -> None:
        at = self._system.clock.wall()
        future = self._journal.submit(lambda db: events.add(db, at, path, event, text, evidence))

        def written(done: Any) -> None:
            error = done.exception()
            if error is not None and self._journal.is_open:  # at the very end the journal ends first
                self._unrecorded += 1
                structlog.get_logger().warning("event not recorded", path=path, text=text, error=str(error))

        future.add_done_callback(written)

    def _tell_guardian(self, message: object) -> None:
        guardian = self._system.whereis(GUARDIAN_PATH)
        if guardian is not None:  # else it reads what is undecided when it starts
            guardian.tell(message)

    # -- the switch ---------------------------------------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """The file's word, unless a person switched it."""
        return bool(self._switch.get("enabled", self._plan.enabled))

    def status(self) -> RecoveryStatus:
        figures = self._journal.read(rows.counts)
        status = RecoveryStatus(
            enabled=self.is_enabled(), active=figures.get("running", 0), queued=figures.get("queued", 0)
        )
        if "by" in self._switch:
            status["by"], status["since"] = str(self._switch["by"]), rfc3339(float(self._switch["at"]))
        return status

    def switch(self, *, enabled: bool, by: str) -> RecoveryStatus:
        """Remembered before it counts. Raises JournalTrouble."""
        switched = {"enabled": enabled, "by": by, "at": self._system.clock.wall()}
        self._journal.submit(lambda db: rows.set_setting(db, SWITCH_KEY, switched)).result(10.0)
        self._switch = switched
        self._tell_guardian(RecoverySwitched(enabled))
        self.commanded(GUARDIAN_PATH, "recovery on" if enabled else "recovery off", by, "")
        return self.status()

    def statistics(self) -> Mapping[str, Any]:
        """The platform's five figures, and executions by status."""
        figures = self._journal.read(rows.counts)
        ended = sum(count for status, count in figures.items() if status not in OPEN)
        return {
            "total_runbooks": len(self._library.runbooks),
            "total_executions": sum(figures.values()),
            "success_rate": figures.get("succeeded", 0) / ended if ended else 0.0,
            "active_executions": sum(figures.get(status, 0) for status in OPEN),
            "auto_execution_enabled": self.is_enabled(),
            "by_status": figures,
            "intake": asdict(self._intake.counters),
        }

    # -- questions over the links -------------------------------------------------------------------------------------

    def _ask(self, question: Mapping[str, Any]) -> Any:
        """Raises BadQuestion for one nobody knows, JournalTrouble when there is no answer now."""
        match question:
            case {"ask": "execution", "execution_id": str(execution_id)}:
                return self.records.execution(execution_id)
            case {"ask": "statistics"}:
                return self.statistics()
            case {"ask": "alert", "id": str(alert_id)}:
                return self.records.alert(alert_id)
            case {"ask": "alerts", **rest}:
                limit = rest.get("limit", 50)
                return self.records.alerts(limit if isinstance(limit, int) and 0 < limit <= 100 else 50)
            case {"ask": "events"}:
                return self._happenings.answer(question)
            case {"ask": "where"}:
                return {name: pump.address for name, pump in self._pumps.items()} | {
                    "events": self._happenings.published_at()
                }
            case _:
                words = "execution (with execution_id), alert (with id), statistics, alerts, events or where"
                raise BadQuestion(f"ask for {words}")


def _node_of(what: str) -> str:
    return UPPER.get(what, f"root/links/{what}")


def _as_reached(pump: RouterPump | EventPublisher) -> str:
    """A link's address as a program on this machine uses it."""
    return f"{pump.address}\n".replace("//0.0.0.0:", "//127.0.0.1:")


def retention_of(journal: JournalConfig) -> Retention:
    return Retention(bodies_s=journal.keep, bodies=journal.max_alerts, ids_s=journal.keep_ids, ids=journal.max_ids)


def _load(plan: RecoveryPlan) -> Library:
    library = load_library((SHIPPED, *plan.runbook_directories))
    for problem in library.problems:
        structlog.get_logger().error("runbook refused, the others are used", problem=str(problem))
    return library
