"""Reload by plan, and scale: reads the file, plans, and has the plan carried out. Any ordinary thread.

One edit at a time; a file with a problem changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from actors.ledger import Ledger, Scaled
from config import ConfigError, SystemConfig, load_config
from config.cautions import cautions
from config.models import MAX_REPLICAS
from config.replicas import Expanded, expanded, scale_problem
from supervisors.catalog import Catalog
from supervisors.layouts import settled
from supervisors.manager import (
    DEFAULT_TIMEOUT_S,
    SCHEMA,
    Applied,
    BadConfig,
    CommandFailed,
    ManagerError,
    NodeEdit,
    PlanShown,
    UnknownNode,
)
from supervisors.people import whose
from supervisors.plans import Action, Change, Entry, Plan, at_once, make_plan

PLAN_ID_LETTERS = 12


class CarriesOut(Protocol):
    def carry_out(self, plan: Plan, wanted: SystemConfig, timeout_s: float) -> dict[tuple[str, str], str]:
        """What failed, by kind and node."""


@dataclass(frozen=True, slots=True)
class OwnFile:
    """The daemon's own file, and how any file is read: with the environment the daemon was started with."""

    path: Path
    environ: Mapping[str, str]

    def read(self, other: str | None) -> tuple[Path, SystemConfig]:
        """Raises BadConfig, CommandFailed."""
        path = self.path if other is None else Path(other)
        if not path.is_absolute():
            raise CommandFailed(f"{other}: give the file by its full path")
        if path != self.path:
            check_owner(path)
        try:
            return path, load_config(path, self.environ)
        except ConfigError as error:
            problems = [
                {"file": one.file, "line": one.line, "key": one.key, "message": one.message, "text": str(one)}
                for one in error.problems
            ]
            raise BadConfig(str(error), problems) from error

    def cautions(self, config: SystemConfig) -> list[str]:
        """What the file names that is not there now."""
        return list(cautions(config, self.environ))


def check_owner(path: Path) -> None:
    """Who may ask the daemon over its socket is not always who may say what it runs.

    Raises:
        BadConfig: there is no such file, or it cannot be read.
        CommandFailed: it is not the right people's.
    """
    try:
        status = path.stat()
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        text = "there is no such file" if is_missing else f"cannot be read: {error.strerror}"
        problem = {"file": str(path), "line": 0, "key": "", "message": text, "text": f"{path}: {text}"}
        raise BadConfig(f"{path}: {text}", [problem]) from error
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o002:
        raise CommandFailed(f"{path}: must belong to the daemon's user or root, and be writable by nobody else")


class Reloader:
    """Args: ``note``: told of every edit (path, command, by, why), for the record; ``heed``: told of every file that
    is applied (what it says, by), for what counts at once and for what our own nodes do otherwise from now on
    (``plans.LIVE``); it returns what that changed beside the nodes, in words.
    """

    def __init__(
        self,
        file: OwnFile,
        catalog: Catalog,
        editor: CarriesOut,
        ledger: Ledger,
        wall: Callable[[], float],
        note: Callable[[str, str, str, str], None],
        heed: Callable[[SystemConfig, str], Sequence[str]] = lambda _source, _by: (),
    ) -> None:
        self._file = file
        self._catalog = catalog
        self._editor = editor
        self._ledger = ledger
        self._wall = wall
        self._note = note
        self._heed = heed
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)

    def plan(self, file: str | None = None) -> PlanShown:
        """What the file would change now. Raises BadConfig, CommandFailed."""
        path, source = self._read(file)
        made = self._expanded(source)
        shown = self._shown(make_plan(self._catalog.config, made.config), made, path)
        return {**shown, "warnings": self._file.cautions(source)}

    def apply(self, file: str | None = None, *, by: str, plan: str | None = None, timeout_s: float) -> Applied:
        """Carry the plan out; ``plan``: only if it is the one that was shown.

        Raises:
            BadConfig, CommandFailed: nothing was changed.
        """
        with self._lock:
            path, source = self._read(file)
            made = self._expanded(source)
            running = self._catalog.config
            todo = make_plan(running, made.config)
            shown = self._shown(todo, made, path)
            if plan is not None and plan != shown["plan"]:
                raise CommandFailed(
                    f"the plan is another by now ({shown['plan']}, not {plan}): look at 'selfheal plan' again"
                )
            self._note("root/services", "apply", by, str(path) if todo.changed else f"{path} (no node changes)")
            for entry in todo.own:
                self._note(entry.node, "apply", by, "; ".join(map(_said, entry.changes)))
            shown["notes"] += self._heed(source, by)  # before what takes long
            self._catalog.become(settled(running, made.config))
            self._catalog.read(source, made.families)
            warnings = self._file.cautions(source)
            return {**_applied(shown, self._editor.carry_out(todo, made.config, timeout_s)), "warnings": warnings}

    def scale(self, name: str, replicas: int | None, *, by: str, why: str = "", timeout_s: float) -> Applied:
        """Run so many replicas, and remember who wanted it; None: the file's number again. Who chose the same number
        before, and why, stays remembered unless there is a new ``why``.

        Raises:
            UnknownNode, CommandFailed: nothing was changed.
        """
        with self._lock:
            source = self._catalog.now.source
            base = name.rsplit("/", 1)[-1]
            if base not in source.services:
                raise UnknownNode(name, what="service")
            self._check(source, base, replicas)
            known = self._ledger.record(base).scaled
            is_same = known is not None and known.replicas == replicas
            if not is_same or why:
                scaled = None if replicas is None else Scaled(replicas, by, self._wall(), why)
                self._ledger.scaled_by(base, scaled)
            words = "the file's number" if replicas is None else str(replicas)
            self._note(self._path(base), f"scale to {words}", by, why)
            before = frozenset(self._catalog.now.families.get(base, ()))
            made = self._expanded(source)
            todo = make_plan(self._catalog.config, made.config).only(before | frozenset(made.families[base]))
            self._catalog.read(source, made.families)
            shown = self._shown(todo, made, self._file.path)
            if known is not None and is_same:
                shown["notes"] += [f"{base}: already scaled to {replicas} by {whose(known.by, known.why)}"]
            return _applied(shown, self._editor.carry_out(todo, made.config, timeout_s))

    def _read(self, file: str | None) -> tuple[Path, SystemConfig]:
        """Raises BadConfig, CommandFailed. A file that was cut short is no wish to stop everything."""
        path, source = self._file.read(file)
        known = len(self._catalog.now.source.services)
        if known and "services" not in source.model_fields_set:
            key, many = "services", "the one there is" if known == 1 else f"all {known}"
            text = f"is missing: is the file whole? 'services: {{}}' says that {many} shall be removed"
            told = f"{path}: {key}: {text}"
            raise BadConfig(told, [{"file": str(path), "line": 0, "key": key, "message": text, "text": told}])
        return path, source

    def _check(self, source: SystemConfig, name: str, replicas: int | None) -> None:
        service = source.services[name]
        if replicas is not None and not 0 <= replicas <= MAX_REPLICAS:
            raise CommandFailed(f"{name}: cannot scale: {replicas} is not between 0 and {MAX_REPLICAS}")
        if replicas is not None and (service.container is not None or service.compose is not None):
            raise CommandFailed(f"{name}: cannot scale: an attached container is one container, and not ours")
        problem = scale_problem(source, name, service.replicas if replicas is None else replicas)
        if problem is not None:
            raise CommandFailed(f"{name}: cannot scale: {problem}")

    def _path(self, name: str) -> str:
        return f"{self._catalog.homes.get(name, 'root/services')}/{name}"

    def _expanded(self, source: SystemConfig) -> Expanded:
        records = self._ledger.records()
        return expanded(source, {name: one.scaled.replicas for name, one in records.items() if one.scaled is not None})

    def _shown(self, plan: Plan, made: Expanded, path: Path) -> PlanShown:
        facts = f"{self._catalog.config.model_dump_json()}\n{made.config.model_dump_json()}"
        number = hmac.new(self._key, facts.encode(), hashlib.sha256).hexdigest()[:PLAN_ID_LETTERS]
        changes = at_once(self._catalog.now.source, made.config)
        notes = [f"{one.key}: {one.old} -> {one.new}, at once" for one in changes]
        notes += [f"{name}: its remembered scale is not used: {why}" for name, why in made.ignored.items()]
        return PlanShown(
            schema=SCHEMA,
            plan=number,
            file=str(path),
            empty=plan.is_empty,
            nodes=[_node(entry) for entry in plan.entries],
            daemon=[_change(change) for change in plan.daemon],
            notes=notes,
        )


def _node(entry: Entry) -> NodeEdit:
    made = NodeEdit(
        node=entry.node,
        kind=entry.kind,
        action=entry.action.value,
        changes=[_change(change) for change in entry.changes],
    )
    if entry.moves_to is not None:
        made["moves_to"] = entry.moves_to
    return made


def _change(change: Change) -> dict[str, Any]:
    return {"key": change.key, "old": change.old, "new": change.new}


def _said(change: Change) -> str:
    old, new = (json.dumps(value, ensure_ascii=False) for value in (change.old, change.new))
    return f"{change.key}: {old} -> {new}"


def _applied(shown: PlanShown, errors: Mapping[tuple[str, str], str]) -> Applied:
    """The nodes that were touched, each with what came of it."""
    nodes: list[NodeEdit] = []
    for edit in shown["nodes"]:
        error = errors.get((edit["kind"], edit["node"]))
        if error is not None:
            nodes.append({**edit, "ok": False, "error": error})
        elif edit["action"] != Action.UNCHANGED.value:
            nodes.append({**edit, "ok": True})
    named = {(edit["kind"], edit["node"]) for edit in nodes}
    more = [
        NodeEdit(node=name, kind=kind, action=Action.UPDATE.value, changes=[], ok=False, error=text)
        for (kind, name), text in errors.items()
        if (kind, name) not in named
    ]
    return Applied(
        schema=SCHEMA,
        plan=shown["plan"],
        file=shown["file"],
        ok=not errors,
        nodes=[*nodes, *more],
        daemon=shown["daemon"],
        notes=shown["notes"],
    )


def reload_by_signal(reloader: Reloader) -> None:
    """SIGHUP: apply the daemon's own file; what comes of it stands in the daemon's log."""
    log = structlog.get_logger()
    try:
        made = reloader.apply(by="SIGHUP", timeout_s=DEFAULT_TIMEOUT_S)
    except ManagerError as error:
        for line in str(error).splitlines():
            log.error("reload: nothing was changed", problem=line)  # noqa: TRY400  a person's mistake needs no traceback
        return
    changed = {one["node"]: one["action"] for one in made["nodes"]}
    needs = [change["key"] for change in made["daemon"]]
    for line in made.get("warnings", ()):
        log.warning("the file names what is not there", file=made["file"], warning=line)
    log.info("reloaded", ok=made["ok"], nodes=changed, needs_restart_of_daemon=needs)
