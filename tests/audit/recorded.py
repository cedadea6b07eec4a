"""A real daemon to which everything is done that must be on record, and what the record must say of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from actors.access.keyring import Keyring, utc_now
from actors.access.table import Line
from bridge_link.keys import new_client_key
from guardian_link import Alert, GuardianClient
from supervisors.manager import Record
from supervisors.people import user_name
from supervisors.remote import Base, RemoteManager
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually
from tests.system.running import LINKS, SLEEPER, daemon, write_config

ME: Final = f"user:{user_name(os.geteuid())}"
TOKEN: Final = "token-of-ann-2f6c"
OPEN: Final = frozenset({"queued", "awaiting_approval", "running"})


def _asks(argv: list[str]) -> dict[str, Any]:
    return {"call": {"type": "command_ok", "with": {"argv": argv}}}


STUCK: Final[dict[str, Any]] = {
    **GOOD,
    "id": "stuck",
    "priority": 99,
    "match": {"field": "/type", "op": "eq", "value": "stuck"},
    "actions": [
        {
            "id": "do",
            "name": "Do",
            "action_type": "command",
            "effect": "mutating",
            "command": ["true"],
            "probe": _asks(["true"]),
            "verify": _asks(["false"]),
            "rollback": {"call": {"type": "command", "with": {"argv": ["false"]}}, "verify": _asks(["false"])},
        }
    ],
}
"""Its step does not hold, and cannot be undone: the target is latched."""
ASKED: Final[dict[str, Any]] = {
    **GOOD,
    "id": "asked",
    "priority": 99,
    "match": {"field": "/type", "op": "eq", "value": "asked"},
    "preconditions": [{"call": {"type": "service_exists", "with": {"service": "{service}"}}}],
    "approval": {"timeout": "10m", "four_eyes": True},
}


@dataclass(frozen=True, slots=True)
class Act:
    """What a person did: a part of the record's text, who by his own word, who it was, and why."""

    text: str
    by: str
    proven: str
    why: str = ""


@dataclass
class Recorded:
    """``older``: the journal as it was in the middle; ``runs``: executions by what they were for."""

    state: Path
    acts: list[Act]
    runs: dict[str, str]
    older: Path


def record(folder: Path) -> Recorded:
    library, token = folder / "runbooks", folder / "ann.token"
    library.mkdir()
    for one in (STUCK, ASKED, {**GOOD, "match": {"field": "/type", "op": "eq", "value": "restart"}}):
        (library / f"{one['id']}.json").write_text(json.dumps(one))
    token.touch(0o600)
    token.write_text(TOKEN)
    operator = {**LINKS["operator"], "tokens": {"ann": str(token)}}
    more = {"runbooks": {"directories": [str(library)]}, "links": {**LINKS, "operator": operator}}
    config = write_config(folder, {"a": SLEEPER, "b": SLEEPER}, **more)
    with daemon(config, folder / "state") as running:
        running.until_ready()
        address = (running.state / "operator.address").read_text().strip()
        with (
            RemoteManager(Base(state_dir=running.state)) as root,
            RemoteManager(Base(address=address, token=TOKEN)) as ann,
            RemoteManager(Base(address=address)) as nobody,
        ):
            made = _acted(running.state, config, root, ann, nobody)
        assert running.process.wait(30) == 0
    return made


def _acted(state: Path, config: Path, root: RemoteManager, ann: RemoteManager, nobody: RemoteManager) -> Recorded:
    acts: list[Act] = []
    runs: dict[str, str] = {}
    older = state.parent / "older.db"

    def did(text: str, by: str, proven: str = ME, why: str = "") -> None:
        acts.append(Act(text, by, proven, why))

    silence = root.add_silence(["service=zz"], 60.0, by="cli:zoe", why="works on zz")
    did(f"silence {silence['id']} by cli:zoe", "cli:zoe", why="works on zz")
    nobody.end_silence(silence["id"], by="http", why="done with zz")
    did(f"silence {silence['id']} ended", "http", "", "done with zz")
    ann.set_recovery(False, by="cli:ann", why="release day")
    did("recovery off by cli:ann", "cli:ann", "token:ann", "release day")
    root.set_recovery(True, by="cli:bob", why="all quiet")
    did("recovery on by cli:bob", "cli:bob", why="all quiet")
    root.stop("b", by="cli:bob", why="a new disk")
    did("stop by cli:bob", "cli:bob", why="a new disk")
    root.start("b", by="cli:bob")
    did("start by cli:bob", "cli:bob")
    root.pause("b", by="cli:bob", why="month end")
    did("pause by cli:bob", "cli:bob", why="month end")
    root.resume("b", by="cli:bob")
    did("resume by cli:bob", "cli:bob")
    root.restart("b", by="cli:bob")
    did("restart by cli:bob", "cli:bob")
    root.apply(str(config), by="cli:eve")
    did("apply by cli:eve", "cli:eve", why=f"{config} (no node changes)")
    with GuardianClient(state_dir=state) as guardian:

        def alerted(kind: str, service: str = "a") -> str:
            ack = guardian.send(Alert(type=kind, service=service, message="m"), timeout_s=30)
            assert ack.execution_id is not None, ack
            return ack.execution_id

        runs["failed"] = alerted("stuck")
        _until(root, runs["failed"], lambda one: one["status"] == "rollback_failed")
        root.release("service:a", by="cli:bob", why="looked at it")
        did("service:a released", "cli:bob", why="looked at it")
        _copied(state / "journal.db", older)
        for what in ("approved", "rejected", "cancelled"):
            runs[what] = alerted("asked", "a" if what == "approved" else "b")
            eventually(lambda: any("plan" in one for one in root.approvals()), within_s=20, what="the request")
            if what == "approved":
                ann.approve(runs[what], by="", why="seen it")
                _until(root, runs[what], lambda one: one["status"] == "succeeded")
            elif what == "rejected":
                root.reject(runs[what], by="", why="not now")
            else:
                root.cancel(runs[what], by="cli:bob", why="by mistake")
                did(f"cancel {runs[what]}", "cli:bob", why="by mistake")
            _until(root, runs[what], lambda one: one["status"] not in OPEN)
    asked = root.run_runbook("restart_it", {"service": "b"}, by="", why="a drill")
    did("runbook restart_it asked for: run", ME, why="a drill")
    runs["asked for"] = asked["execution_id"]
    _until(root, runs["asked for"], lambda one: one["status"] == "succeeded")
    keyring = Keyring(state)
    key = new_client_key("desk-1", keyring.server_key().public)
    line = Line(name="desk-1", public=key.public, roles=("guardian",), made_at=utc_now())
    keyring.add(line, key, keyring.directory / "desk-1.key")
    _until_kept(root, "added: desk-1")
    keyring.change_table(lambda table: table.with_revoked("desk-1", utc_now()))
    _until_kept(root, "revoked: desk-1")
    root.shutdown(by="cli:bob")
    did("stop by cli:bob", "cli:bob")
    return Recorded(state, acts, runs, older)


def _copied(journal: Path, copy: Path) -> None:
    """As somebody would who wants to put it back later."""
    with closing(sqlite3.connect(journal)) as one, closing(sqlite3.connect(copy)) as other:
        one.backup(other)


def _until(manager: RemoteManager, execution_id: str, is_so: Callable[[Record], bool]) -> None:
    eventually(lambda: is_so(manager.execution(execution_id)), within_s=30, what=execution_id)


def _until_kept(manager: RemoteManager, text: str) -> None:
    eventually(lambda: any(text in one["text"] for one in manager.why("root/links", 50)), within_s=20, what=text)
