"""A real tree of real processes in this very process, with the real reloader: only the daemon round it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from actors.board import NodeState
from actors.clock import SystemClock
from actors.context import ActorSystem
from actors.exit_watcher import ExitWatcher
from actors.ledger import Ledger
from actors.live_runs import LiveRuns
from actors.runtimes.process import ProcessRuntime
from actors.service import ServiceParts
from config.replicas import expanded
from supervisors.catalog import Catalog, moment
from supervisors.leftovers import Cleaner
from supervisors.library import Supervisor
from supervisors.live_edit import LiveEdit
from supervisors.manager import Applied
from supervisors.reload import OwnFile, Reloader
from supervisors.tree import TreeParts, build_tree
from tests.reload.files import parsed
from tests.support.eventually import eventually

LONG_S = 30.0


@dataclass
class Place:
    """One running tree. ``file`` is what a reload reads."""

    folder: Path
    system: ActorSystem
    catalog: Catalog
    ledger: Ledger
    reloader: Reloader
    live: LiveRuns
    notes: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "selfheal.yaml"

    def write(self, data: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump({"version": 1} | data, sort_keys=False), encoding="utf-8")

    def apply(self, data: dict[str, Any], **more: Any) -> Applied:
        self.write(data)
        return self.reloader.apply(by="test", timeout_s=LONG_S, **more)

    def pids(self) -> dict[str, int | None]:
        """Every service's pid by name."""
        paths = {name: f"{home}/{name}" for name, home in self.catalog.homes.items()}
        found = {name: self.system.board.get(path) for name, path in paths.items()}
        return {name: None if status is None else status.pid for name, status in found.items()}

    def until_ready(self) -> dict[str, int | None]:
        def look() -> bool:
            for name, home in self.catalog.homes.items():
                status = self.system.board.get(f"{home}/{name}")
                is_idle = self.catalog.is_idle(name)
                assert status is not None, name
                assert status.state is (NodeState.STOPPED if is_idle else NodeState.READY), (name, status.state)
            return True

        eventually(look, within_s=LONG_S)
        return self.pids()

    def shown(self) -> dict[str, tuple[str, ...]]:
        """The services' supervisors and their children in order, as the board shows them."""
        snapshot = self.system.board.snapshot()
        return {
            path: status.children
            for path, status in snapshot.items()
            if path == "root/services" or (path.startswith("root/services/") and status.strategy is not None)
        }


def alive(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def place(folder: Path, data: dict[str, Any]) -> Iterator[Place]:
    """A tree that runs ``data``; everything is stopped when the block is left."""
    system, ledger, watcher, live = ActorSystem(), Ledger(folder / "ledger.jsonl"), ExitWatcher(), LiveRuns()
    runtime = ProcessRuntime(ledger, watcher)
    runtimes = {"process": runtime}
    source = parsed(data)
    made = expanded(source)
    catalog = Catalog(moment(source, made.config, made.families))
    parts = TreeParts(ServiceParts(runtimes, ledger, live), folder / "logs")

    def parts_now() -> TreeParts:
        stopped = (name for name, record in ledger.records().items() if record.stopped is not None)
        return replace(parts, held=frozenset(stopped))

    cleaner = Cleaner((), runtimes, ledger.retire, lambda name: ledger.record(name).stopped is not None)
    editor = LiveEdit(system, catalog, ledger, live, runtimes, cleaner, parts_now)
    here = Place(folder, system, catalog, ledger, Reloader(
        OwnFile(folder / "selfheal.yaml", {}), catalog, editor, ledger, SystemClock().wall,
        lambda *facts: here.notes.append(facts),
    ), live)  # fmt: skip
    here.write(data)
    root = Supervisor.start_spec(build_tree(made.config, parts), system=system)
    try:
        yield here
    finally:
        root.stop()
        cleaner.close()
        runtime.close()
        system.close()
        ledger.close()
