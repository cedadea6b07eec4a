"""What a runbook may ask of an endpoint: is it configured, how is it, what does it offer. Over a real link."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.bridge_commands import BridgeCommands
from actors.bridge_sessions import BridgeSessions
from bridge_link import BridgeClient
from runbooks.calls.family import CallOutcome
from runbooks.catalogue import EXAMPLES, RESULTS
from runbooks.commands import LocalCommands
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.network import LocalHttp, LocalTcp
from runbooks.ports import Ports, ServiceView
from runbooks.steps import make_call, make_check
from tests.bridge.desk import desk
from tests.runbooks.test_steps import Table
from tests.support.eventually import eventually
from tests.support.plain_links import key_file

__all__ = ["key_file"]

WELL = {"status": "healthy"}
Handler = Callable[[Mapping[str, Any]], Any]


@dataclass
class Looks:
    """The calls of a runbook; ``nodes`` are the endpoints of the tree, each ready or not."""

    sessions: BridgeSessions
    nodes: dict[str, bool]
    behind: dict[str, str] = field(default_factory=dict)
    services: Table = field(default_factory=Table)

    @property
    def ports(self) -> Ports:
        bridges = BridgeCommands(self.sessions, self.nodes.get, self.behind)
        return Ports(self.services, LocalCommands(), LocalHttp(), LocalTcp(), bridges=bridges)

    def health(self, endpoint: str = "mql4", timeout_s: float = 10.0) -> CallOutcome:
        return make_call(Call(CallType.BRIDGE_HEALTH, {"endpoint": endpoint}, timeout_s), None, self.ports, "x-1")

    def look(self, kind: CallType, endpoint: str = "mql4", **more: Any) -> tuple[Answer, str]:
        found = make_check(Call(kind, {"endpoint": endpoint, **more}, 10.0), None, self.ports, "x-1")
        return found.answer, found.detail


@contextmanager
def looking(commands: Mapping[str, Handler] | None = None, **behind: str) -> Iterator[Looks]:
    """An endpoint ``mql4`` that is ready, with a client that knows ``commands``; None: nobody speaks for it."""
    with desk() as daemon:
        looks = Looks(daemon.sessions, {"mql4": True, "pipe": True}, behind)
        if commands is None:
            yield looks
            return
        with BridgeClient(daemon.address, name="mql4", beat_every_s=0.1, commands=commands):
            eventually(lambda: getattr(daemon.sessions.session("mql4"), "commands", None) is not None)
            yield looks


def broken(_parameters: Mapping[str, Any]) -> Any:
    raise RuntimeError("the terminal is not logged in")


@pytest.mark.parametrize(
    ("said", "state", "error"),
    [
        (lambda _: WELL, "healthy", ""),
        (lambda _: "healthy", "healthy", ""),
        (lambda _: {"status": "unhealthy", "error": "error 4051"}, "unhealthy", "error 4051"),
        (lambda _: {"status": "degraded"}, "unhealthy", "degraded"),
        (lambda _: None, "unhealthy", "None"),
        (broken, "unhealthy", "RuntimeError: the terminal is not logged in"),
    ],
)
def test_what_an_endpoint_says_of_itself(said: Handler, state: str, error: str) -> None:
    """Whatever is not plainly healthy is not."""
    with looking({"health": said, "reset": lambda _: None}, mql4="a") as looks:
        done = looks.health()
        assert done.ok
        assert done.result == {
            "state": state,
            "error": error,
            "commands": {"health": True, "reset": True},
            "service": "a",
            "service_wanted": True,
            "directory": None,
        }
        assert set(done.result) == RESULTS[CallType.BRIDGE_HEALTH] == set(EXAMPLES[CallType.BRIDGE_HEALTH])
        answer, told = looks.look(CallType.BRIDGE_HEALTHY)
        assert answer is (Answer.YES if state == "healthy" else Answer.NO)
        assert error in told


def test_a_service_that_a_person_stopped_is_told_so() -> None:
    with looking(None, mql4="a") as looks:
        looks.services.views["a"] = ServiceView("a", False, 3, "stopped", is_wanted=False)
        assert looks.health(timeout_s=0.3).result["service_wanted"] is False
        looks.behind["mql4"] = "nobody"
        assert looks.health(timeout_s=0.3).result["service_wanted"] is None


def test_one_that_has_no_such_command_is_as_well_as_its_node() -> None:
    with looking({"reset": lambda _: None}) as looks:
        assert looks.health().result["state"] == "untold"
        assert looks.look(CallType.BRIDGE_HEALTHY)[0] is Answer.YES
        looks.nodes["mql4"] = False
        assert looks.health().result["state"] == "silent"
        assert looks.look(CallType.BRIDGE_HEALTHY)[0] is Answer.NO


def test_one_that_hangs_is_silent_and_not_waited_for_longer_than_asked() -> None:
    let_go = threading.Event()
    try:
        with looking({"health": lambda _: let_go.wait(60)}) as looks:
            done = looks.health(timeout_s=0.3)
            assert done.result["state"] == "silent"
            assert "no end of it was heard within 0.3 s" in done.result["error"]
    finally:
        let_go.set()


def test_each_question_is_a_new_one() -> None:
    """An answer from the table of commands would be an old one."""
    answers = iter(("error 4051", "healthy"))
    with looking({"health": lambda _: next(answers)}) as looks:
        assert [looks.health().result["state"] for _ in range(2)] == ["unhealthy", "healthy"]


def test_one_that_is_not_configured() -> None:
    with looking(None) as looks:
        done = looks.health("nobody")
        assert (done.ok, done.error) == (False, "bridge 'nobody' is not configured")
        for kind in (CallType.BRIDGE_EXISTS, CallType.BRIDGE_HEALTHY, CallType.BRIDGE_READY):
            answer, told = looks.look(kind, "nobody")
            assert (answer, "bridge 'nobody' is not configured" in told) == (Answer.NO, True)
        assert looks.look(CallType.BRIDGE_OFFERS, "nobody", commands=["reset"])[0] is Answer.NO
        assert looks.look(CallType.BRIDGE_EXISTS)[0] is Answer.YES
        looks.nodes["mql4"] = False
        assert looks.look(CallType.BRIDGE_EXISTS)[0] is Answer.YES, "silent or not, it is there"


@pytest.mark.parametrize(
    ("commands", "behind", "or_restart", "answer", "told"),
    [
        ({"reset"}, {}, False, Answer.YES, "offers reset"),
        ({"reset", "reconnect"}, {}, True, Answer.YES, "offers reconnect, reset"),
        ({"ping"}, {}, False, Answer.NO, "offers none of reset, reconnect: nothing else can mend this"),
        ({"ping"}, {"mql4": "a"}, False, Answer.NO, "nothing else can mend this"),
        ({"ping"}, {"mql4": "a"}, True, Answer.YES, "service 'a' is behind it"),
        (set(), {}, True, Answer.NO, "its configuration names no service to restart (bridges.mql4.service)"),
    ],
)
def test_what_there_is_to_mend_it_with(
    commands: set[str], behind: dict[str, str], or_restart: bool, answer: Answer, told: str
) -> None:
    with looking(dict.fromkeys(commands, lambda _: None), **behind) as looks:
        said = looks.look(CallType.BRIDGE_OFFERS, commands=["reset", "reconnect"], or_restart=or_restart)
        assert (said[0], told in said[1]) == (answer, True), said


def test_what_an_endpoint_without_a_client_offers() -> None:
    """A named pipe cannot be told anything: only what is behind it can be restarted."""
    with looking(None, pipe="a") as looks:
        assert looks.look(CallType.BRIDGE_OFFERS, "pipe", commands=["reset"])[0] is Answer.NO
        assert looks.look(CallType.BRIDGE_OFFERS, "pipe", commands=["reset"], or_restart=True)[0] is Answer.YES
