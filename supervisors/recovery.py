"""Everything that turns an alert into a recovery, built and joined: journal, intake, decisions, runbooks, links.

Built by ``app`` on the main thread; its methods are called from HTTP threads, supervisors' threads and link pumps.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import structlog

from actors.access.audit import Audit
from actors.access.book import Book, ClientBook, PlainBook
from actors.access.keyring import Keyring
from actors.access.table import Table
from actors.alertmanager import AlertmanagerIntake, AlertmanagerParts, AlertmanagerPlan
from actors.approvals import ApprovalParts, Approvals, NotTaken
from actors.board import NodeKind, NodeState
from actors.bridge_commands import BridgeCommands
from actors.bridge_sessions import BridgeSessions
from actors.chain.anchor import Anchor, AnchorParts
from actors.context import ActorSystem
from actors.deciding.making import body_of
from actors.deciding.words import DECIDER_PATH, WARM_UP_S
from actors.endpoints.tcp import CLIENT
from actors.guardian import RUNBOOKS_PATH, EndUnbegun, GuardianActor, GuardianParts, RecoverySwitched, RunbooksChanged
from actors.intake import AlertIntake, IntakeParts
from actors.journal import events, happened, keys_seen, rows, runs
from actors.journal.conditions import JournalAlerts
from actors.journal.journal import Journal
from actors.journal.retention import Retention
from actors.journal.room import Room, RoomLimits
from actors.journal.rows import Execution
from actors.journal.schema import JournalTrouble
from actors.monitor import MonitorActor, Watched
from actors.own_alerts import OwnAlerts
from actors.plain_alerts import PlainAlerts, Sink
from actors.questions import BadQuestion
from actors.refs import Ref
from actors.runbook import RunbookParts, StopPolicy, StopRun
from actors.spec import ChildSpec
from bridge_link.wire import Kind
from config.models import JournalConfig
from guardian_link.messages import BadAlert, is_service_name
from runbooks.approval import Say
from runbooks.asking import asked_facts
from runbooks.matching import foregone
from runbooks.model import Status
from runbooks.parameters import BadParameter
from runbooks.parse import SHIPPED, load_library
from runbooks.ports import Services
from runbooks.secret_files import LocalSecrets
from runbooks.shelf import Difference
from supervisors.action_ports import ActionsPlan, Outside, Purger, action_ports
from supervisors.decisions.model import Report, ReportKind, Strategy
from supervisors.degradation import Degradation
from supervisors.endpoint_errors import endpoint_error, sender_of
from supervisors.happenings import Happenings
from supervisors.held import Held
from supervisors.library import Supervisor
from supervisors.link_sockets import LinkSockets
from supervisors.manager import CommandFailed, Record, RecoveryStatus, UnknownNode
from supervisors.people import user_name, who_asks
from supervisors.plain_sinks import LogSink
from supervisors.records import JournalRecords
from supervisors.recovery_switch import RecoverySwitch
from supervisors.report_words import said
from supervisors.runbook_files import RunbookFiles
from supervisors.telling import Telling
from supervisors.tree_json import rfc3339

GUARDIAN_PATH: Final = DECIDER_PATH
FILES_PATH: Final = "root/links/runbook-files"
BRIDGES_PATH: Final = "root/bridges"
ENDED: Final = frozenset(status.value for status in Status if status.is_terminal)
ACTIVE: Final = frozenset({Status.QUEUED.value, Status.RUNNING.value})
UPPER: Final = {"journal": "root/journal", "ledger": "root/runtimes/exit-watcher", "keeper": "root/runtimes/keeper"}
"""Nodes whose troubles are told by these words; all others are links."""
OUTER: Final = ("root/services/", "root/bridges/")
"""What a start is an event of; our own actors' starts are none."""


ASKED_WITHIN_S: Final = 10.0


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
    sinks: tuple[Sink, ...] = (LogSink(),)
    """Where every alert is told first."""
    warm_up_s: float = WARM_UP_S
    behind: Mapping[str, str] = field(default_factory=dict)
    """The services behind the endpoints, by the endpoint's name, where one is configured."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """The folders of endpoints of kind spool, by the endpoint's name."""
    audit_tip: Path | None = None
    audit_say: Callable[[str], object] | None = None
    """Where the audit chain's tip goes beside the state directory: a file, and whoever is told each tip."""
    actions: ActionsPlan = field(default_factory=ActionsPlan)
    on_switch_off: StopPolicy = StopPolicy.FINISH


class Recovery:
    def __init__(
        self, plan: RecoveryPlan, system: ActorSystem, services: Services, outside: Outside | None = None
    ) -> None:
        self._plan = plan
        self._max_concurrent = plan.max_concurrent
        self._system = system
        room = Room(plan.state_dir, plan.room)
        self.plain = PlainAlerts(plan.sinks, system.clock.wall)
        self.plain.begin()
        self._anchor = Anchor(
            AnchorParts(plan.state_dir, system.clock.wall, self._audit_alarm, plan.audit_tip, plan.audit_say)
        )
        self._journal = Journal(
            plan.state_dir / "journal.db",
            self._journal_opened,
            self._committed,
            room=room,
            retention=plan.retention,
            audit_key=self._anchor.key,
            adopts=self._anchor.begins,
            on_sealed=self._anchor.wake,
        )
        self._happenings = Happenings(self._journal, lambda: self._sockets.events_place)
        self._unrecorded = 0
        self.held = Held(self._journal, system.clock, system.board, self._tell_guardian)
        self.records = JournalRecords(self._journal, self.held.waiting)
        self.runbook_files = RunbookFiles(
            (SHIPPED, *plan.runbook_directories), system.clock.wall, system.io.run, self._runbooks_changed
        )
        self._switch = RecoverySwitch(
            plan.state_dir, self._journal, system.clock.wall, plan.enabled, plan.on_switch_off, self._switched
        )
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
                judge_alerts=self._book.judge_alerts,
                may_answer=self._may_answer,
                say=self.plain.offer_all,
                foregone=self._foregone,
            )
        )
        self.alertmanager = AlertmanagerIntake(
            AlertmanagerParts(
                self._journal,
                system.clock,
                hint=self._tell_guardian,
                say=self.plain.offer,
                is_known=lambda name: services.status(name) is not None,
            ),
            plan.alertmanager,
        )
        bridges = BridgeCommands(self.sessions, self._bridge_is_ready, plan.behind, plan.folders)
        state, world = plan.state_dir, outside or Outside()
        ports, quarantine = action_ports(
            plan.actions, state, services, bridges, world, system.clock.moment, self._open_runs
        )
        self._ports = replace(ports, alerts=JournalAlerts(self._journal, system.clock))
        self._purger = Purger(quarantine.purge, system.io.run, system.clock.now)
        self.own_alerts = OwnAlerts(self._journal, system.clock, self._tell_guardian, self.plain.offer)
        self.approvals = Approvals(
            ApprovalParts(
                self._journal,
                system.waits,
                system.clock,
                self._ports,
                library=lambda: load_library(self.runbook_files.directories),
                granted=self._tell_guardian,
                finished=self._tell_guardian,
                alert=self._intake.take_mapping,
                own_user=user_name(os.geteuid()),
            )
        )
        addresses = {"guardian": plan.guardian_address, "bridge": plan.bridge_address}
        self._sockets = LinkSockets(
            {name: address for name, address in addresses.items() if address is not None},
            plan.events_address,
            plan.state_dir,
            self._book,
            self._intake,
            self._happenings.batch,
            system.io,
            system.clock,
            self.told,
        )
        system.board.listen(Degradation(lambda path, event, text: self._event(path, event, text, {})).look)

    def keep(self, retention: Retention) -> None:
        """What the journal forgets from now on."""
        self._journal.retention = retention

    def _open_runs(self) -> frozenset[str] | None:
        """Those that have not ended, ours or begun by a daemon that died; None when nobody can tell now."""
        try:
            return frozenset(one.id for one in self._journal.read(rows.unfinished))
        except JournalTrouble:  # told by the journal itself
            return None

    # -- nodes of the tree --------------------------------------------------------------------------------------------

    def journal_spec(self) -> ChildSpec:
        journal = self._journal

        def begin() -> None:
            if not journal.is_open:
                journal.start_anyway()  # services must run, whatever becomes of the records
                self._anchor.begin(journal)
                self._event("root/journal", "journal_opened", "events are recorded from here", {"pid": os.getpid()})

        watched = Watched(begin, lambda: journal.is_open, journal.close, trouble=self.told("journal", self._trouble))
        return ChildSpec(id="journal", start=MonitorActor, args=(NodeKind.JOURNAL, watched), shutdown=15.0)

    def _journal_opened(self, db: sqlite3.Connection) -> None:
        """On the journal's thread, before anything is decided by it. A person's word outlives a lost file."""
        with suppress(sqlite3.OperationalError):  # an older journal on a full disk: when it is opened again
            events.ensure_epoch(db)
        self._switch.journal_opened(db)

    def _committed(self) -> None:
        """On the journal's thread."""
        self._sockets.ring()

    def _trouble(self) -> str | None:
        self._purger.look()
        trouble = self._journal.trouble or self._anchor.trouble
        if trouble is None or not self._unrecorded:
            return trouble
        return f"{trouble} ({self._unrecorded} events not recorded)"

    def _audit_alarm(self, text: str) -> None:
        """From the anchor's thread: said once, as an alert too."""
        self._event("root/journal", "audit_broken", text, {})
        alert = {"type": "audit_broken", "service": "journal", "message": text}
        self._intake.take_mapping({**alert, "severity": "critical", "source": "selfheal"})

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
        return Supervisor.spec("runbooks", strategy=Strategy.SIMPLE_ONE_FOR_ONE, intensity=50, period_s=60.0)

    def links(self) -> tuple[ChildSpec, ...]:
        parts = GuardianParts(
            self._journal,
            lambda: self.runbook_files.library,
            RunbookParts(
                self._journal,
                self._ports,
                self._tell_guardian,
                self._recovery_failed,
                redact=self._redacted,
                must_stop=self._switch.stop,
            ),
            self._intake.decided,
            self._intake.finished,
            self.is_enabled,
            lambda: self._max_concurrent,
            self._decider_began,
            health=self.held.health,
            alert=self._intake.take_mapping,
            show_queue=self.held.show_queue,
            warm_up_s=self._plan.warm_up_s,
            asked=self.approvals.asked,
        )
        alerts = ChildSpec(id="alerts", start=GuardianActor, args=(parts,))
        return (
            alerts,
            self._approvals_spec(),
            self._plain_spec(),
            self._runbook_files_spec(),
            *self._sockets.specs(),
        )

    def _redacted(self, text: str) -> str:
        secrets = self._ports.secrets
        return secrets.redact(text) if isinstance(secrets, LocalSecrets) else text

    def _approvals_spec(self) -> ChildSpec:
        """Without the journal there is nothing to approve; with it the desk looks at what is over once a second."""
        desk = self.approvals
        watched = Watched(lambda: None, lambda: True, lambda: None, trouble=desk.look)
        return ChildSpec(id="approvals", start=MonitorActor, args=(NodeKind.LINK, watched), shutdown=5.0)

    def _decider_began(self) -> None:
        self._intake.decider_began()
        self._system.io.run(self._tell_failures)

    def _tell_failures(self) -> None:
        """Those whose alert an earlier daemon did not come to tell."""
        try:
            latches = self._journal.read(runs.untold_failures)
        except JournalTrouble as trouble:
            structlog.get_logger().error("failed recoveries could not be read", trouble=str(trouble))
            return
        for latch in latches:
            try:  # one that cannot be told keeps nobody from hearing of the others
                self._alert_failure(latch["execution_id"], latch["target"], latch["why"])
            except Exception:
                structlog.get_logger().exception("a failed recovery could not be told", **latch)

    def _recovery_failed(self, execution: Execution, status: Status, detail: str) -> None:
        self._alert_failure(execution.id, execution.target, f"{execution.runbook} {status.value}: {detail}")

    def _alert_failure(self, execution_id: str, target: str, why: str) -> None:
        """Nobody knows what the target is like: a person must look. The id makes it one alert, however often told."""
        name = target.rpartition(":")[2]  # not every target is named so: a folder, for one
        about = {"service": name} if is_service_name(name) else {}
        alert = {"type": "recovery_failed", **about, "message": why[:2000]}
        told = {"severity": "critical", "source": "selfheal", "labels": {"target": target, "execution": execution_id}}
        self._intake.take_mapping({**alert, **told, "id": f"{runs.FAILED_ID}{execution_id}"})

    def _plain_spec(self) -> ChildSpec:
        """Its threads run since before the tree was built, and after it has ended; here they are looked after."""
        plain = self.plain
        watched = Watched(plain.begin, lambda: plain.is_alive, lambda: None, trouble=plain.trouble)
        return ChildSpec(id="plain-alerts", start=MonitorActor, args=(NodeKind.LINK, watched), shutdown=5.0)

    # -- the runbooks' files ------------------------------------------------------------------------------------------

    def _runbook_files_spec(self) -> ChildSpec:
        files = self.runbook_files
        look = Telling("runbook-files", files.trouble, self._runbook_trouble).look
        watched = Watched(lambda: None, lambda: True, lambda: None, trouble=look)
        return ChildSpec(id="runbook-files", start=MonitorActor, args=(NodeKind.LINK, watched), shutdown=5.0)

    def _runbook_trouble(self, _what: str, trouble: str) -> None:
        """A file that cannot be used is protection that is not there: people are told once."""
        self._event(FILES_PATH, "runbook_refused", trouble, {})
        alert = {"type": "runbook_refused", "service": "runbook-files", "message": trouble[:2000]}
        self._intake.take_mapping({**alert, "severity": "medium", "source": "selfheal"})

    def reread_runbooks(self, directories: Sequence[Path], by: str) -> list[str]:
        """Read all runbook files now, of these directories from now on; what came of it, in words. Blocks."""
        return self.runbook_files.reread(by, (SHIPPED, *directories))

    def _runbooks_changed(self, found: Sequence[Difference], by: str) -> None:
        for one in found:
            hashes = {"old": one.old, "new": one.new}
            evidence = {key: runbook.sha256 for key, runbook in hashes.items() if runbook is not None}
            self._event(FILES_PATH, "runbook_changed", f"{one}, by {by}", {**who_asks(by), **evidence})
        self._tell_guardian(RunbooksChanged())

    # -- links --------------------------------------------------------------------------------------------------------

    def _clients(self) -> Book:
        keyring, clock = Keyring(self._plan.state_dir), self._system.clock
        if not self._plan.curve:
            return PlainBook(keyring)

        def tell(event: str, text: str, evidence: Mapping[str, Any]) -> None:
            self._event("root/links", event, text, evidence)

        return ClientBook(keyring, clock, Audit(clock, tell), self._record_keys)

    def _record_keys(self, table: Table, told: Callable[[bool], object]) -> None:
        """Who may speak to the daemon goes into the audit chain whenever it is not what the chain says."""
        at, marks = self._system.clock.wall(), table.marks()
        writing = self._journal.submit(lambda db: keys_seen.note(db, at, "root/links", marks))
        writing.add_done_callback(lambda done: told(done.exception() is None))

    def bind(self) -> None:
        """Take the links' addresses before anything is started. Raises BindFailed, BadAddress, KeyRefused."""
        self._sockets.bind()

    def close(self) -> None:
        self._sockets.close()
        self._journal.close()
        self._anchor.close()
        self.plain.close()

    # -- what happens -------------------------------------------------------------------------------------------------

    def reported(self, path: str, report: Report) -> None:
        """A supervisor's report, on its thread: handed to the journal."""
        quiet = {ReportKind.STOPPED} | (set() if path.startswith(OUTER) else {ReportKind.STARTED})
        if report.kind in quiet and report.reason is None:
            return
        evidence = dict(report.reason.evidence) if report.reason is not None else {}
        self._event(path, report.kind.value, said(report), {key: str(value) for key, value in evidence.items()})

    def commanded(self, path: str, command: str, by: str, why: str) -> None:
        """A person's or a runbook's command."""
        self._event(path, command, _command_text(command, by, why), who_asks(by, why))

    def happened(self, path: str, event: str, text: str) -> None:
        """What somebody outside did to a service."""
        self._event(path, event, text, {"by": "outside"})

    def bridge_error(self, endpoint: str, error: Mapping[str, Any]) -> None:
        """An error a bridge endpoint reported becomes an alert."""
        try:
            kind = (self._plan.endpoints or {}).get(endpoint)
            alert = endpoint_error(endpoint, kind, self._plan.behind.get(endpoint), error)
            self._intake.take_mapping(alert, sender_of(endpoint))
        except BadAlert as bad:
            structlog.get_logger().warning("bridge error refused", endpoint=endpoint, problem=str(bad))

    def _may_answer(self, client: str) -> bool:
        return client == CLIENT or self._book.may(client, Kind.REPLY)

    def _bridge_is_ready(self, endpoint: str) -> bool | None:
        status = self._system.board.get(f"{BRIDGES_PATH}/{endpoint}")
        return None if status is None else status.state is NodeState.READY

    def _event(self, path: str, event: str, text: str, evidence: Mapping[str, Any]) -> None:
        at = self._system.clock.wall()
        future = self._journal.submit(lambda db: happened.tell(db, at, path, event, text, evidence))

        def written(done: Any) -> None:
            error = done.exception()
            if error is not None and self._journal.is_open:  # at the very end the journal ends first
                self._unrecorded += 1
                structlog.get_logger().warning("event not recorded", path=path, text=text, error=str(error))

        future.add_done_callback(written)

    def _foregone(self, kind: str) -> Mapping[str, Any] | None:
        """On pumps: what no past has a word in is decided with the commit that stores it."""
        decision = foregone(kind, self.runbook_files.library) if self.is_enabled() else None
        return None if decision is None else body_of(decision)

    def _tell_guardian(self, message: object) -> None:
        guardian = self._system.whereis(GUARDIAN_PATH)
        if guardian is not None:  # else it reads what is undecided when it starts
            guardian.tell(message)

    # -- the switch ---------------------------------------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """The file's word, unless a person switched it."""
        return self._switch.is_on

    def status(self) -> RecoveryStatus:
        trouble = self._switch.trouble
        try:
            figures = self._journal.read(rows.counts)
        except JournalTrouble as unread:  # the switch itself is known all the same
            figures = {"running": len(self._running())}
            trouble = trouble or f"what is queued cannot be read: {unread}"
        status = RecoveryStatus(
            enabled=self.is_enabled(), active=figures.get("running", 0), queued=figures.get("queued", 0)
        )
        by = self._switch.by
        if by:
            status["by"], status["since"] = str(by.get("by", "")), rfc3339(float(by["at"]))
            if by.get("why"):
                status["why"] = str(by["why"])
        if trouble is not None:
            status["trouble"] = trouble
        return status

    def switch(self, *, enabled: bool, by: str, why: str = "") -> RecoveryStatus:
        """It counts at once, also when it cannot be remembered: then ``trouble`` says so."""
        self._switch.switch(enabled=enabled, by=by, why=why)
        return self.status()

    def configured(self, *, enabled: bool, policy: StopPolicy, max_concurrent: int, by: str) -> None:
        """The file was read again. More runs than ``max_concurrent`` that are at work go on."""
        self._max_concurrent = max_concurrent
        self._switch.configured(enabled=enabled, policy=policy, by=by)

    def _switched(self, enabled: bool, stop: StopRun | None) -> None:
        """Before it is remembered: nothing new begins, and what runs is told."""
        if stop is not None:
            self.stop_runs(stop)
        self._tell_guardian(RecoverySwitched(enabled))

    # -- approvals ----------------------------------------------------------------------------------------------------

    def waiting_approvals(self) -> Sequence[Record]:
        return [_with_times(one) for one in self.approvals.waiting()]

    def approve(self, execution_id: str, *, by: str, plan: str | None, why: str) -> Record:
        """``by``: the authenticated name. Raises CommandFailed, JournalTrouble."""
        return self._vote(execution_id, by, Say.APPROVE, plan, why)

    def reject(self, execution_id: str, *, by: str, plan: str | None, why: str) -> Record:
        return self._vote(execution_id, by, Say.REJECT, plan, why)

    def _vote(self, execution_id: str, by: str, says: Say, plan: str | None, why: str) -> Record:
        try:
            return self.approvals.vote(execution_id, by, says, plan, why)
        except NotTaken as refused:
            raise CommandFailed(str(refused)) from None

    def runbooks(self) -> Mapping[str, Any]:
        """Those in use now, and what is wrong with files."""
        return self.runbook_files.shown()

    def run_runbook(self, runbook_id: str, values: Mapping[str, str], *, by: str, why: str) -> Record:
        """What was decided about the wish.

        Raises:
            UnknownNode: there is no such runbook.
            CommandFailed: it is disabled, the values do not fit, or nothing was decided in time.
        """
        runbook = self.runbook_files.library.get(runbook_id)
        if runbook is None:
            raise UnknownNode(runbook_id, what="runbook")
        if not runbook.enabled:
            raise CommandFailed(f"{runbook_id} is disabled: its file says enabled false")
        try:
            alert_id, decided = self._intake.take_asked(asked_facts(runbook, values, by=by, why=why))
            body = decided.result(ASKED_WITHIN_S)
        except (BadParameter, BadAlert) as bad:
            raise CommandFailed(str(bad)) from None
        except TimeoutError:
            raise CommandFailed(f"nothing was decided within {ASKED_WITHIN_S:g} s; see 'selfheal alerts'") from None
        self.commanded(GUARDIAN_PATH, f"runbook {runbook_id} asked for: {body['outcome']}", by, why)
        return {"alert_id": alert_id, **body}

    def cancel(self, execution_id: str, *, by: str, why: str) -> None:
        """Remembered before it counts; it acts at the next safe place, also when the daemon dies meanwhile.

        Raises:
            UnknownNode: there is no such execution.
            CommandFailed: it has ended.
            JournalTrouble: it cannot be remembered now.
        """
        stop = StopRun(StopPolicy.ROLLBACK, f"by {by}: {why}" if why else f"by {by}")
        command, asked, at = f"cancel {execution_id}", who_asks(by, why), self._system.clock.wall()

        def write(db: sqlite3.Connection) -> bool:
            is_asked = runs.ask_stop(db, execution_id, stop.as_json())
            if is_asked:
                happened.tell(db, at, GUARDIAN_PATH, command, _command_text(command, by, why), asked)
            return is_asked

        if not self._journal.submit(write).result(10.0):
            known = self.records.execution(execution_id)
            if known is None:
                raise UnknownNode(execution_id, what="execution")
            raise CommandFailed(f"{execution_id} has ended: {known['status']}")
        running = self._system.whereis(f"{RUNBOOKS_PATH}/{execution_id}")
        if running is not None:
            running.tell(stop)
        self._tell_guardian(EndUnbegun(execution_id, stop.reason))

    def stop_runs(self, stop: StopRun) -> int:
        """Tell all running executions to end at their next safe place; how many there were."""
        running = self._running()
        for ref in running:
            ref.tell(stop)
        return len(running)

    def _running(self) -> list[Ref]:
        paths = [path for path in list(self._system.names) if path.startswith(f"{RUNBOOKS_PATH}/")]
        return [ref for path in paths if (ref := self._system.whereis(path)) is not None]

    def statistics(self) -> Mapping[str, Any]:
        """The platform's five figures, and executions by status."""
        figures = self._journal.read(rows.counts)
        ended = sum(count for status, count in figures.items() if status in ENDED)
        return {
            "total_runbooks": len(self.runbook_files.library.runbooks),
            "total_executions": sum(figures.values()),
            "success_rate": figures.get("succeeded", 0) / ended if ended else 0.0,
            "active_executions": sum(figures.get(status, 0) for status in ACTIVE),
            "auto_execution_enabled": self.is_enabled(),
            "by_status": figures,
            "intake": asdict(self._intake.counters),
            "plain_alerts": self.plain.figures(),
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
            case {"ask": "endpoints"}:
                return self._endpoints()
            case {"ask": "where"}:
                return {**self._sockets.places(), "events": self._happenings.published_at()}
            case _:
                words = "execution (with execution_id), alert (with id), statistics, alerts, events, endpoints or where"
                raise BadQuestion(f"ask for {words}")

    def _endpoints(self) -> Record:
        """Those of the configuration: their kind, and where and how they are."""
        found: dict[str, Any] = {}
        for name, kind in (self._plan.endpoints or {}).items():
            status = self._system.board.get(f"{BRIDGES_PATH}/{name}")
            is_ready = status is not None and status.state is NodeState.READY
            found[name] = {"kind": kind, "place": status.endpoint if status is not None else None, "ready": is_ready}
        return found


def _with_times(shown: Mapping[str, Any]) -> Record:
    return {key: rfc3339(value) if key.endswith("_at") else value for key, value in shown.items()}


def _command_text(command: str, by: str, why: str) -> str:
    return f"{command} by {by}" + (f": {why}" if why else "")


def _node_of(what: str) -> str:
    return UPPER.get(what, f"root/links/{what}")


def retention_of(journal: JournalConfig) -> Retention:
    return Retention(bodies_s=journal.keep, bodies=journal.max_alerts, ids_s=journal.keep_ids, ids=journal.max_ids)
