"""One real daemon for many cases, side by side: each has services of its own, and its fault touches only those.

A case is its ``play``: given a ``Bed`` it makes its world, says what it needs of the daemon's configuration, and how
the case goes. All threads here are the cases'; the daemon is a process.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from guardian_link import Alert, GuardianClient
from guardian_link.messages import Ack
from tests.faults.ended import Ended
from tests.faults.patience import HASTY, copies, names
from tests.support.eventually import eventually
from tests.system.running import LINKS, SELFHEAL, Running, daemon, write_config

TOOTHLESS: Final = (sys.executable, "-m", "tests.faults.toothless")
LONG_S: Final = 60.0
ENDS_WITHIN_S: Final = 150.0
FRESH_S: Final = 0.4
"""Dozens of cases ask: the daemon is to mend them, not to answer."""
APPROVER: Final = "ann"
UNDECIDED: Final = "undecided"
TERMINAL: Final = frozenset(
    {"succeeded", "failed", "rolled_back", "rollback_failed", "unknown", "rejected", "expired", "cancelled"}
)
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What a case adds to the daemon's configuration, and how it goes once the daemon is up.

    ``ready``: its services that are ready before anything is broken; all of them when not said.
    """

    config: Mapping[str, Any]
    run: Callable[[], Ended]
    ready: tuple[str, ...] | None = None
    before: tuple[str, ...] = ()
    """What runs the daemon: in a place of the case's own, so that it cannot share."""

    @property
    def awaited(self) -> tuple[str, ...]:
        return tuple(self.config.get("services", {})) if self.ready is None else self.ready


@dataclass
class Bed:
    """What a case is given. ``name``: of its service, endpoint or disk, nobody else's. ``acts``: its runbook has
    effects; else nothing it does is done.
    """

    name: str
    folder: Path
    acts: bool
    ward: Ward

    @property
    def selfheal(self) -> Running:
        return self.ward.selfheal

    def send(self, kind: str, service: str | None = "", **labels: Any) -> Ack:
        """An alert from outside, about the case's own service when nothing else is said."""
        alert = Alert(type=kind, service=self.name if service == "" else service, labels=labels)
        with GuardianClient(state_dir=self.selfheal.state) as guardian:
            ack = guardian.send(alert, timeout_s=LONG_S)
        assert ack.decision is not None, ack
        return ack

    def answered(self, kind: str, began: float, service: str | None = "", **labels: Any) -> Ended:
        """What became of such an alert. ``began``: monotonic seconds of the fault."""
        ack = self.send(kind, service, **labels)
        assert ack.decision is not None
        if ack.decision.execution_id is None:
            return Ended(ack.decision.outcome, None, str(ack.decision))
        return self.over(ack.decision.execution_id, began)

    def over(self, execution_id: str, began: float) -> Ended:
        """How this execution ended."""

        def look() -> Ended | None:
            found = self.execution(execution_id)
            assert found is not None, execution_id
            assert found["status"] in TERMINAL, json.dumps(found)[:1500]
            return Ended(found["status"], time.monotonic() - began, json.dumps(found)[:3000])

        return eventually(look, within_s=ENDS_WITHIN_S, every_s=FRESH_S, what=execution_id)

    def ended(self, runbook: str, target: str, began: float) -> Ended:
        """How the first execution of this runbook on this target ended, whoever asked for it."""

        def look() -> dict[str, Any]:
            mine = self.executions(runbook, target)
            assert mine, [(one["runbook"], one["target"]) for one in self.ward.executions()]
            return mine[-1]

        found = eventually(look, within_s=LONG_S, every_s=FRESH_S, what=f"a run of {runbook} on {target}")
        return self.over(found["id"], began)

    def executions(self, runbook: str, target: str) -> list[dict[str, Any]]:
        return [one for one in self.ward.executions() if one["runbook"] in names(runbook) and one["target"] == target]

    def execution(self, execution_id: str) -> dict[str, Any] | None:
        return next((one for one in self.ward.executions() if one["id"] == execution_id), None)

    def steps(self, runbook: str, target: str) -> dict[str, str]:
        """How each step of the newest such run ended."""
        newest, *_ = self.executions(runbook, target)
        return {step["id"]: step["status"] for step in newest["steps"]}

    def decided(self, kind: str, is_it: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        """The newest such alert, once it is decided."""

        def look() -> dict[str, Any] | None:
            found = [one for one in self.ward.alerts() if one["type"] == kind and is_it(one)]
            return found[0] if found and found[0].get("outcome", UNDECIDED) != UNDECIDED else None

        return eventually(look, within_s=LONG_S, every_s=FRESH_S, what=f"a decision about {kind}")

    def service(self, name: str | None = None) -> dict[str, Any]:
        return self.ward.services()[name or self.name]

    def pid(self, name: str | None = None) -> int:
        pid = self.service(name).get("pid")
        assert isinstance(pid, int), self.service(name)
        return pid

    def runs(self, name: str | None = None) -> int:
        """How many runs the service had."""
        incarnation = self.service(name)["incarnation"]
        assert isinstance(incarnation, int)
        return incarnation


Play = Callable[[Bed], AbstractContextManager[Part]]


@dataclass
class _Fresh:
    """What the daemon said not longer than ``FRESH_S`` ago."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    at: float = float("-inf")


@dataclass
class Ward:
    folder: Path
    acts: bool
    _selfheal: Running | None = None
    _client: httpx.Client | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _shared: dict[str, Any] = field(default_factory=dict)
    _said: defaultdict[str, _Fresh] = field(default_factory=lambda: defaultdict(_Fresh))

    @property
    def selfheal(self) -> Running:
        assert self._selfheal is not None, "the daemon is not up yet"
        return self._selfheal

    def up(self, selfheal: Running) -> None:
        """From here on the daemon can be asked."""
        way = httpx.HTTPTransport(uds=str(selfheal.state / "operator.sock"), verify=False)
        self._client = self._stack.enter_context(
            httpx.Client(transport=way, base_url="http://127.0.0.1", timeout=LONG_S)
        )
        self._selfheal = selfheal

    def get(self, path: str) -> Any:
        """What the daemon says; many ask, the daemon is asked little."""
        said = self._said[path]
        with said.lock:
            if time.monotonic() - said.at > FRESH_S:
                began = time.monotonic()
                assert self._client is not None, "the daemon is not up yet"
                answer = self._client.get(path)
                assert answer.status_code == 200, (path, answer.text)
                said.value, said.at = answer.json(), began
            return said.value

    def executions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v1/executions?limit=1000")["executions"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v1/alerts?limit=1000")["alerts"]
        return found

    def services(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.get("/v1/services")["services"]}

    def shared(self, name: str, make: Callable[[], AbstractContextManager[T]]) -> T:
        """Something that several cases use, made when the first one asks for it; only while beds are made."""
        if name not in self._shared:
            self._shared[name] = self._stack.enter_context(make())
        made: T = self._shared[name]
        return made


@dataclass(frozen=True)
class Outcome:
    """How a case went: as it ended, or what went wrong with it."""

    ended: Ended | None = None
    error: BaseException | None = None

    def result(self) -> Ended:
        if self.error is not None:
            raise self.error
        assert self.ended is not None
        return self.ended


def played(plays: Mapping[str, tuple[Play, bool]], folder: Path, *, acts: bool) -> dict[str, Outcome]:
    """Each case once, by its id, all in one daemon. ``plays``: how it goes, and whether it meets less patient runbooks.

    What is wrong with the daemon as a whole is raised; what is wrong with a case is its outcome.
    """
    ward = Ward(folder, acts)
    with ward._stack:
        parts = {name: _part(ward, name, play, hasty) for name, (play, hasty) in plays.items()}
        with _running(ward, parts.values()) as selfheal:
            ward.up(selfheal)
            awaited = [one for part in parts.values() for one in part.awaited]
            if awaited:
                selfheal.until_ready(*awaited, within_s=LONG_S)
            with ThreadPoolExecutor(len(parts)) as pool:
                going = {name: pool.submit(_went, part) for name, part in parts.items()}
            return {name: one.result() for name, one in going.items()}


def _went(part: Part) -> Outcome:
    try:
        return Outcome(part.run())
    except BaseException as error:
        return Outcome(error=error)


def _part(ward: Ward, name: str, play: Play, hasty: bool) -> Part:
    place = ward.folder / name
    place.mkdir(parents=True)
    word = f"{HASTY}-" if hasty or not ward.acts else ""
    short = name.replace("_", "-")
    return ward._stack.enter_context(play(Bed(f"{word}{short}"[:60].rstrip("-"), place, ward.acts, ward)))


@contextmanager
def _running(ward: Ward, parts: Iterable[Part]) -> Iterator[Running]:
    parts = tuple(parts)
    token = ward.folder / f"{APPROVER}.token"
    token.write_text(f"{APPROVER}-{'x' * 32}\n", encoding="ascii")
    token.chmod(0o600)
    common: dict[str, Any] = {
        "watch": {"every": "200ms", "for": "500ms", "clear_for": "500ms", "box": _OFF_BOX, "daemon": _OFF_DAEMON},
        "recovery": {"max_concurrent": 100},
        "runbooks": {"directories": [str(copies(ward.folder / "patience"))]},
        "links": {**LINKS, "operator": {**LINKS["operator"], "tokens": {APPROVER: str(token)}}},
    }
    config = merged([common, *(part.config for part in parts)])
    file = write_config(ward.folder, config.pop("services", {}), **config)
    (before,) = {part.before for part in parts}
    program = SELFHEAL if ward.acts else TOOTHLESS
    with daemon(file, ward.folder / "state", program=program, before=before) as selfheal:
        yield selfheal


_OFF_BOX: Final = {"cpu_percent": None, "memory_percent": None, "disk_percent": None}
_OFF_DAEMON: Final = {"cpu_percent": None, "memory_mb": None}


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tables into tables, lists one after the other; of all else the last word counts."""
    made: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            known = made.get(key)
            if isinstance(known, Mapping) and isinstance(value, Mapping):
                made[key] = merged([known, value])
            elif isinstance(known, list) and isinstance(value, list):
                made[key] = [*known, *value]
            else:
                made[key] = value
    return made
