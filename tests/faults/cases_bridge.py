"""Peers of bridge endpoints that hang, refuse, send garbage, fall silent, or say that they are not well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.faults.bridge_peers import command
from tests.faults.registry import Case, Ended, Kind
from tests.faults.ward import ENDS_WITHIN_S, FRESH_S, LONG_S, TERMINAL, Bed, Part, Play
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, free_port

PLACE: Final = "bridges"
"""A daemon of their own: it is to hear the peers that are well in time, also while it does much else."""
SILENCE, PATIENCE = "2s", "3s"
MQL4, POWERSHELL = "bridge_mql4_failure", "bridge_powershell_failure"
PYTHON, CONFIG_SYNC = "bridge_python_failure", "bridge_config_sync_failure"


@dataclass(frozen=True)
class Patient:
    """An endpoint's last name, and what will be wrong with it. ``system``: whose error it reports, and ``cure``: the
    command that ends it.
    """

    name: str
    fault: str
    kind: str = "zeromq"
    cure: str = ""
    error: str = ""
    system: str = ""


@dataclass(frozen=True)
class Post:
    """A patient's endpoint and the service behind it, in a bed."""

    bed: Bed
    of: Patient

    @property
    def name(self) -> str:
        return f"{self.bed.name}-{self.of.name}"

    @property
    def target(self) -> str:
        return f"bridge:{self.name}"

    @property
    def service(self) -> str:
        return f"{self.name}-peer"

    @property
    def go(self) -> Path:
        return self.bed.folder / f"{self.of.name}.go"

    def config(self, *, for_good: bool) -> dict[str, Any]:
        words: tuple[str, ...] = ()
        if self.of.fault == "err":
            words = ("--cure", self.of.cure, "--error", self.of.error, "--system", self.of.system)
        place: dict[str, Any] = {}
        if self.of.kind == "tcp":
            port = free_port()
            place, words = {"address": f"127.0.0.1:{port}"}, (*words, "--port", str(port))
        elif self.of.kind == "spool":
            spool = str(self.bed.folder / self.of.name)
            place, words = {"directory": spool}, (*words, "--spool", spool)
        argv = command(self.of.fault, self.go, self.name, *words, for_good=for_good)
        bridge = {"kind": self.of.kind, "silence": SILENCE, "start_period": PATIENCE, "service": self.service, **place}
        return {
            "services": {self.service: {"command": argv, "graceful_shutdown_timeout": "300ms"}},
            "bridges": {self.name: bridge},
        }

    def is_ready(self) -> bool:
        tree = self.bed.ward.get("/v1/tree")["root"]
        (upper,) = [child for child in tree["children"] if child["name"] == "bridges"]
        state: str = next(child for child in upper["children"] if child["name"] == self.name)["state"]
        return state == "ready"

    def first(self) -> dict[str, Any] | None:
        """The first execution about it, once that is over."""
        mine = [one for one in self.bed.ward.executions() if one["target"] == self.target]
        return mine[-1] if mine and mine[-1]["status"] in TERMINAL else None

    def told(self) -> list[str]:
        file = self.go.with_suffix(".told")
        return file.read_text(encoding="ascii").split() if file.exists() else []


@dataclass(frozen=True)
class World:
    """All patients of a case, and a service that has nothing to do with them."""

    posts: tuple[Post, ...]

    @property
    def bed(self) -> Bed:
        return self.posts[0].bed

    @property
    def bystander(self) -> str:
        return f"{self.bed.name}-bystander"

    def go_wrong(self) -> float:
        """All at once, when all endpoints were ready."""
        eventually(lambda: all(one.is_ready() for one in self.posts), within_s=LONG_S, every_s=FRESH_S, what="ready")
        began = time.monotonic()
        for one in self.posts:
            one.go.touch()
        return began

    def over(self, began: float) -> Ended:
        """Once the first executions about all are: not "succeeded" unless each is; without teeth, if one is."""

        def look() -> list[Mapping[str, Any]] | None:
            ends = [end for one in self.posts if (end := one.first()) is not None]
            return list(ends) if len(ends) == len(self.posts) else None

        ends = eventually(look, within_s=ENDS_WITHIN_S, every_s=FRESH_S, what="the ends of all")
        took_s = time.monotonic() - began
        wanted = [one for one in ends if (one["status"] == "succeeded") is not self.bed.acts]
        first = (wanted or ends)[0]
        return Ended(first["status"], took_s, json.dumps(first)[:3000])


def _play(run: Callable[[World], Ended], *patients: Patient, for_good: bool = False) -> Play:
    @contextmanager
    def play(bed: Bed) -> Iterator[Part]:
        world = World(tuple(Post(bed, one) for one in patients))
        configs = [one.config(for_good=for_good) for one in world.posts]
        services = {name: it for config in configs for name, it in config["services"].items()}
        bridges = {name: it for config in configs for name, it in config["bridges"].items()}
        yield Part({"services": {world.bystander: SLEEPER, **services}, "bridges": bridges}, lambda: run(world))

    return play


# -- success ----------------------------------------------------------------------------------------------------------


def cured(world: World) -> Ended:
    """All go wrong at once. Who has an error is told the command that ends it, the others are started anew."""
    bed = world.bed
    bystander = bed.pid(world.bystander)
    end = world.over(world.go_wrong())
    if bed.acts:
        for one in world.posts:
            cure = one.of.cure
            assert one.is_ready(), (one.name, end)
            assert bed.runs(one.service) == (1 if cure else 2), (one.name, bed.service(one.service), end)
            assert one.told()[-1:] == ([cure] if cure else []), (one.name, one.told(), end)
            assert len(one.told()) == len(set(one.told())), (one.name, end)
        assert bed.pid(world.bystander) == bystander
    return end


# -- failure, then rollback -------------------------------------------------------------------------------------------


def not_cured(world: World) -> Ended:
    """Neither a command nor a restart helps. Its service runs and is wanted, as before; nobody else was touched."""
    bed, (patient,) = world.bed, world.posts
    bystander = bed.pid(world.bystander)
    end = world.over(world.go_wrong())
    assert bed.pid(world.bystander) == bystander
    eventually(lambda: bed.service(patient.service)["state"] == "ready", within_s=LONG_S, every_s=FRESH_S)
    service = bed.service(patient.service)
    assert service["wanted"], end
    assert service["incarnation"] >= 2, end
    first = patient.first()
    assert first is not None
    assert [step for step in first["steps"] if step["id"] == "restart"], end
    return end


# -- no match ---------------------------------------------------------------------------------------------------------


def others(bed: Bed, runbook: str) -> Ended:
    """Another system's error, and a service (no endpoint) in a crash loop; an endpoint that nobody has configured."""
    pid = bed.pid()
    loop = bed.send("crash_loop", scope="service").decision
    other = bed.send("bridge_other_failure", None, system="other", endpoint=f"{bed.name}-other").decision
    assert loop is not None
    assert other is not None
    assert (loop.outcome, other.outcome) == ("no_match", "no_match")
    end = bed.answered(runbook, time.monotonic(), None)
    assert end.status == "rejected", end
    assert bed.pid() == pid
    return Ended(loop.outcome)


def _others(runbook: str) -> Play:
    @contextmanager
    def play(bed: Bed) -> Iterator[Part]:
        yield Part({"services": {bed.name: SLEEPER}}, lambda: others(bed, runbook))

    return play


TCP: Final = (
    Patient("hanging", "hang", "tcp"),
    Patient("refusing", "refuse", "tcp"),
    Patient("babbling", "garbage", "tcp"),
    Patient("mql4", "err", "tcp", "reset", "error 4051: invalid function parameter value", "mql4"),
)
SHELL: Final = Patient("policy", "err", "powershell", "reset", "execution policy Restricted", "powershell")
CODE: Final = Patient("code", "err", "zeromq", "reload", "SyntaxError: invalid syntax (strategy.py, line 7)", "python")
STOPPED: Final = Patient("worker", "hang")
SYNC: Final = Patient("sync", "err", "zeromq", "resync", "version 41 here, version 42 there", "config_sync")
SPOOL: Final = Patient("inbox", "idle", "spool")
OK: Final = ("succeeded",)
BACK: Final = ("rolled_back",)
NO: Final = ("no_match",)


def _of(runbook: str, name: str, patients: tuple[Patient, ...], hopeless: Patient) -> tuple[Case, ...]:
    not_mended = _play(not_cured, hopeless, for_good=True)
    return (
        Case(runbook, name, Kind.SUCCESS, _play(cured, *patients), OK, place=PLACE),
        Case(runbook, "rollback", Kind.ROLLBACK, not_mended, BACK, place=PLACE),
        Case(runbook, "no-match", Kind.NO_MATCH, _others(runbook), NO, place=PLACE),
    )


CASES: tuple[Case, ...] = (
    *_of(MQL4, "peers", TCP, TCP[2]),
    *_of(POWERSHELL, "policy", (SHELL,), SHELL),
    *_of(PYTHON, "peers", (CODE, STOPPED), CODE),
    *_of(CONFIG_SYNC, "peers", (SYNC, SPOOL), SYNC),
)
