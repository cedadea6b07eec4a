"""Peers of bridge endpoints that hang, refuse, send garbage, fall silent, or say that they are not well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from guardian_link import Alert, GuardianClient
from runbooks.parse import SHIPPED
from tests.faults.bridge_peers import command
from tests.faults.registry import Case, Ended, Kind
from tests.faults.stage import LONG_S, TERMINAL, executions, run_of, staged
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running, free_port

SILENCE: Final = "700ms"
MQL4, POWERSHELL = "bridge_mql4_failure", "bridge_powershell_failure"
PYTHON, CONFIG_SYNC = "bridge_python_failure", "bridge_config_sync_failure"


@dataclass(frozen=True)
class Patient:
    """An endpoint, the service behind it, and what will be wrong with it. ``cure``: the command that ends an error."""

    name: str
    fault: str
    kind: str = "zeromq"
    cure: str = ""
    error: str = ""

    @property
    def target(self) -> str:
        return f"bridge:{self.name}"

    @property
    def service(self) -> str:
        return f"{self.name}-peer"


def world(folder: Path, patients: tuple[Patient, ...], *, for_good: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Services and bridges of the configuration."""
    services: dict[str, Any] = {"bystander": SLEEPER}
    bridges: dict[str, Any] = {}
    for one in patients:
        words: tuple[str, ...] = ("--cure", one.cure, "--error", one.error) if one.fault == "err" else ()
        place: dict[str, Any] = {}
        if one.kind == "tcp":
            port = free_port()
            place, words = {"address": f"127.0.0.1:{port}"}, (*words, "--port", str(port))
        elif one.kind == "spool":
            place, words = {"directory": str(folder / one.name)}, (*words, "--spool", str(folder / one.name))
        argv = command(one.fault, folder / f"{one.name}.go", one.name, *words, for_good=for_good)
        services[one.service] = {"command": argv, "graceful_shutdown_timeout": "300ms"}
        bridges[one.name] = {"kind": one.kind, "silence": SILENCE, "service": one.service, **place}
    return services, bridges


def impatient(folder: Path, runbook: str) -> dict[str, Any]:
    """The shipped runbook, which does not wait long for what will not come."""
    raw = json.loads((SHIPPED / f"{runbook}.json").read_text(encoding="utf-8"))
    (restart,) = [one for one in raw["actions"] if one["id"] == "restart"]
    restart["verify"]["within"] = "2s"
    raw["success_criteria"][0]["within"] = "3s"
    place = folder / "runbooks"
    place.mkdir()
    (place / f"{runbook}.json").write_text(json.dumps(raw), encoding="utf-8")
    return {"directories": [str(place)]}


@contextmanager
def bridged(
    folder: Path, runbook: str, patients: tuple[Patient, ...], *, acts: bool = True, for_good: bool = False
) -> Iterator[Running]:
    """A daemon whose endpoints are all ready."""
    services, bridges = world(folder, patients, for_good=for_good)
    runbooks = impatient(folder, runbook) if for_good or not acts else {}
    with staged(folder, services, acts=acts, bridges=bridges, runbooks=runbooks) as selfheal:
        eventually(lambda: all(endpoint(selfheal, one)["state"] == "ready" for one in patients), within_s=LONG_S)
        yield selfheal


def endpoint(selfheal: Running, of: Patient) -> dict[str, Any]:
    tree = selfheal.get("/v1/tree")["root"]
    (upper,) = [child for child in tree["children"] if child["name"] == "bridges"]
    found: dict[str, Any] = next(child for child in upper["children"] if child["name"] == of.name)
    return found


def go_wrong(folder: Path, patients: tuple[Patient, ...]) -> float:
    began = time.monotonic()
    for one in patients:
        (folder / f"{one.name}.go").touch()
    return began


def all_over(selfheal: Running, patients: tuple[Patient, ...], began: float, *, acts: bool = True) -> Ended:
    """The first execution about each, once all are over: not "succeeded" unless each is; without teeth, if one is."""

    def look() -> list[Mapping[str, Any]] | None:
        known = executions(selfheal)
        firsts = [next((one for one in reversed(known) if one["target"] == each.target), None) for each in patients]
        ends = [one for one in firsts if one is not None and one["status"] in TERMINAL]
        return list(ends) if len(ends) == len(patients) else None

    ends = eventually(look, within_s=120, every_s=0.05, what="the ends of all")
    took_s = time.monotonic() - began
    wanted = [one for one in ends if (one["status"] == "succeeded") is not acts]
    first = (wanted or ends)[0]
    return Ended(first["status"], took_s, json.dumps(first)[:3000])


def told(folder: Path, of: Patient) -> list[str]:
    file = folder / f"{of.name}.told"
    return file.read_text(encoding="ascii").split() if file.exists() else []


# -- success ----------------------------------------------------------------------------------------------------------


def cured(runbook: str, patients: tuple[Patient, ...], folder: Path, *, acts: bool) -> Ended:
    """All go wrong at once. Who has an error is told the command that ends it, the others are started anew."""
    with bridged(folder, runbook, patients, acts=acts) as selfheal:
        bystander = selfheal.pid("bystander")
        began = go_wrong(folder, patients)
        end = all_over(selfheal, patients, began, acts=acts)
        if acts:
            for one in patients:
                assert endpoint(selfheal, one)["state"] == "ready", (one, end)
                assert run_of(selfheal, one.service) == (1 if one.cure else 2), (one, end)
                assert told(folder, one)[-1:] == ([one.cure] if one.cure else []), (one, end)
                assert len(told(folder, one)) == len(set(told(folder, one))), (one, end)
            assert selfheal.pid("bystander") == bystander
        return end


# -- failure, then rollback -------------------------------------------------------------------------------------------


def not_cured(runbook: str, patient: Patient, folder: Path, *, acts: bool) -> Ended:
    """Neither a command nor a restart helps. Its service runs and is wanted, as before; nobody else was touched."""
    del acts
    with bridged(folder, runbook, (patient,), for_good=True) as selfheal:
        bystander = selfheal.pid("bystander")
        began = go_wrong(folder, (patient,))
        end = all_over(selfheal, (patient,), began)
        assert selfheal.pid("bystander") == bystander
        service = selfheal.until_ready(patient.service, within_s=LONG_S)[patient.service]
        assert service["wanted"], end
        assert service["incarnation"] >= 2, end
        restart = [
            step for step in json.loads(json.dumps(executions(selfheal)[-1]))["steps"] if step["id"] == "restart"
        ]
        assert restart, end
        return end


# -- no match ---------------------------------------------------------------------------------------------------------


def others(runbook: str, folder: Path, *, acts: bool) -> Ended:
    """Another system's error, and a service (no endpoint) in a crash loop; an endpoint that nobody has configured."""
    del acts
    loop = Alert(type="crash_loop", service="bystander", labels={"scope": "service"})
    other = Alert(type="bridge_other_failure", labels={"system": "other", "endpoint": "other"})
    with staged(folder, {"bystander": SLEEPER}) as selfheal, GuardianClient(state_dir=selfheal.state) as guardian:
        bystander = selfheal.pid("bystander")
        outcomes = [one.decision.outcome for sent in (loop, other) if (one := guardian.send(sent, LONG_S)).decision]
        assert outcomes == ["no_match", "no_match"]
        ack = guardian.send(Alert(type=runbook), LONG_S)
        assert ack.execution_id is not None
        assert guardian.wait(ack.execution_id, LONG_S).status == "rejected"
        assert selfheal.pid("bystander") == bystander
        return Ended(outcomes[0])


TCP: Final = (
    Patient("hanging", "hang", "tcp"),
    Patient("refusing", "refuse", "tcp"),
    Patient("babbling", "garbage", "tcp"),
    Patient("mql4", "err", "tcp", "reset", "error 4051: invalid function parameter value"),
)
SHELL: Final = Patient("powershell", "err", "powershell", "reset", "execution policy Restricted")
CODE: Final = Patient("python", "err", "zeromq", "reload", "SyntaxError: invalid syntax (strategy.py, line 7)")
STOPPED: Final = Patient("worker", "hang")
SYNC: Final = Patient("config_sync", "err", "zeromq", "resync", "version 41 here, version 42 there")
SPOOL: Final = Patient("inbox", "idle", "spool")

CASES: tuple[Case, ...] = (
    Case(MQL4, "peers", Kind.SUCCESS, partial(cured, MQL4, TCP), ("succeeded",)),
    Case(MQL4, "rollback", Kind.ROLLBACK, partial(not_cured, MQL4, TCP[2]), ("rolled_back",)),
    Case(MQL4, "no-match", Kind.NO_MATCH, partial(others, MQL4), ("no_match",)),
    Case(POWERSHELL, "policy", Kind.SUCCESS, partial(cured, POWERSHELL, (SHELL,)), ("succeeded",)),
    Case(POWERSHELL, "rollback", Kind.ROLLBACK, partial(not_cured, POWERSHELL, SHELL), ("rolled_back",)),
    Case(POWERSHELL, "no-match", Kind.NO_MATCH, partial(others, POWERSHELL), ("no_match",)),
    Case(PYTHON, "peers", Kind.SUCCESS, partial(cured, PYTHON, (CODE, STOPPED)), ("succeeded",)),
    Case(PYTHON, "rollback", Kind.ROLLBACK, partial(not_cured, PYTHON, CODE), ("rolled_back",)),
    Case(PYTHON, "no-match", Kind.NO_MATCH, partial(others, PYTHON), ("no_match",)),
    Case(CONFIG_SYNC, "peers", Kind.SUCCESS, partial(cured, CONFIG_SYNC, (SYNC, SPOOL)), ("succeeded",)),
    Case(CONFIG_SYNC, "rollback", Kind.ROLLBACK, partial(not_cured, CONFIG_SYNC, SYNC), ("rolled_back",)),
    Case(CONFIG_SYNC, "no-match", Kind.NO_MATCH, partial(others, CONFIG_SYNC), ("no_match",)),
)
