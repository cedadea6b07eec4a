"""How each call of a runbook is made, through the ports. Blocking: runs on the I/O pool.

Nothing here raises: a call's failure is its answer, and what nobody can tell is ``Answer.UNKNOWN``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runbooks import bridge_calls
from runbooks.engine_words import Answer, Snapshot, Try
from runbooks.model import Call, CallType
from runbooks.ports import HttpAnswer, PortError, Ports, ServiceView

STOPPED: Final = "stopped"


@dataclass(frozen=True, slots=True)
class CallOutcome:
    ok: bool
    output: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    answer: Answer
    detail: str = ""


def make_call(call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None = None) -> CallOutcome:
    """Make one acting call of attempt ``of``. ``token`` marks what it starts, so that it can be found again."""
    try:
        if call.type is CallType.BRIDGE_COMMAND:
            ok, said = bridge_calls.command(call, ports, bridge_calls.request_of(token, of))
            return CallOutcome(ok, output=said) if ok else CallOutcome(ok, error=said)
        return _CALLS[call.type](call, snapshot or {}, ports, token)
    except PortError as error:
        return CallOutcome(ok=False, error=str(error))
    except Exception as error:  # a port that breaks is a failed call, never a crashed run
        return CallOutcome(ok=False, error=f"{type(error).__name__}: {error}")


def make_check(call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None = None) -> CheckOutcome:
    """Make one reading call, about attempt ``of``."""
    try:
        if call.type is CallType.BRIDGE_DONE:
            return CheckOutcome(*bridge_calls.is_done(call, ports, bridge_calls.request_of(token, of)))
        return _CHECKS[call.type](call, snapshot or {}, ports, token)
    except PortError as error:
        return CheckOutcome(Answer.UNKNOWN, str(error))
    except Exception as error:
        return CheckOutcome(Answer.UNKNOWN, f"{type(error).__name__}: {error}")


def take_snapshot(services: tuple[str, ...], ports: Ports) -> Snapshot:
    """What the services are now.

    Raises:
        PortError: nobody can tell.
    """
    return {name: _facts(ports.services.status(name)) for name in services}


def _facts(view: ServiceView | None) -> dict[str, Any] | None:
    if view is None:
        return None
    return {"run": view.run, "state": view.state, "ready": view.ready, "wanted": view.is_wanted}


# -- acting -----------------------------------------------------------------------------------------------------------


def _restart(call: Call, _: Snapshot, ports: Ports, __: str) -> CallOutcome:
    run = ports.services.restart(call.arguments["service"], call.timeout_s)
    return CallOutcome(ok=True, output=f"run {run.run}")


def _start(call: Call, _: Snapshot, ports: Ports, __: str) -> CallOutcome:
    run = ports.services.start(call.arguments["service"], call.timeout_s)
    return CallOutcome(ok=True, output=f"run {run.run}")


def _stop(call: Call, _: Snapshot, ports: Ports, __: str) -> CallOutcome:
    ports.services.stop(call.arguments["service"], call.timeout_s)
    return CallOutcome(ok=True)


def _restore(call: Call, snapshot: Snapshot, ports: Ports, token: str) -> CallOutcome:
    """A run that ended cannot come back; whether the service is to run can."""
    before = snapshot.get(call.arguments["service"])
    if before is None:
        return CallOutcome(ok=False, error="it is not known what the service was before")
    return _start(call, snapshot, ports, token) if before["wanted"] else _stop(call, snapshot, ports, token)


def _command(call: Call, _: Snapshot, ports: Ports, token: str) -> CallOutcome:
    done = ports.commands.run(call.arguments["argv"], call.timeout_s, token, call.arguments.get("working_dir"))
    if done.code == 0:
        return CallOutcome(ok=True, output=done.output)
    ended = f"took longer than {call.timeout_s:g} s" if done.code is None else f"exit {done.code}"
    return CallOutcome(ok=False, output=done.output, error=f"{ended}: {done.error or done.output}".rstrip(": "))


def _http(call: Call, _: Snapshot, ports: Ports, __: str) -> CallOutcome:
    given = call.arguments
    answer = ports.http.request(
        given.get("method", "POST"), given["url"], call.timeout_s, given.get("headers", {}), given.get("body")
    )
    if _is_expected(answer, given):
        return CallOutcome(ok=True, output=f"HTTP {answer.status} {answer.body}".strip())
    return CallOutcome(ok=False, error=f"HTTP {answer.status} {answer.body}".strip())


def _is_expected(answer: HttpAnswer, given: Mapping[str, Any]) -> bool:
    return answer.status in given["expect"] if "expect" in given else 200 <= answer.status < 300


_CALLS: Final[dict[CallType, Callable[[Call, Snapshot, Ports, str], CallOutcome]]] = {
    CallType.SERVICE_RESTART: _restart,
    CallType.SERVICE_START: _start,
    CallType.SERVICE_STOP: _stop,
    CallType.SERVICE_RESTORE: _restore,
    CallType.COMMAND: _command,
    CallType.HTTP_REQUEST: _http,
}


# -- looking ----------------------------------------------------------------------------------------------------------


def _yes_no(is_so: bool, detail: str) -> CheckOutcome:
    return CheckOutcome(Answer.YES if is_so else Answer.NO, detail)


def _exists(call: Call, _: Snapshot, ports: Ports, __: str) -> CheckOutcome:
    name = call.arguments["service"]
    is_known = ports.services.status(name) is not None
    return _yes_no(is_known, f"service {name!r} is {'' if is_known else 'not '}configured")


def _ready(call: Call, _: Snapshot, ports: Ports, __: str) -> CheckOutcome:
    name = call.arguments["service"]
    view = ports.services.status(name)
    if view is None:
        return CheckOutcome(Answer.NO, f"service {name!r} is not configured")
    return _yes_no(view.ready, f"service {name!r} is {view.state} (run {view.run})")


def _generation(call: Call, snapshot: Snapshot, ports: Ports, _: str) -> CheckOutcome:
    """Yes when the service has a newer run than before. Who started it does not matter: it was restarted."""
    name = call.arguments["service"]
    before, view = snapshot.get(name), ports.services.status(name)
    if before is None or view is None:
        return CheckOutcome(Answer.UNKNOWN, f"service {name!r}: its run {'now' if before else 'before'} is not known")
    return _yes_no(view.run > before["run"], f"service {name!r}: run {before['run']} before, {view.run} now")


def _restored(call: Call, snapshot: Snapshot, ports: Ports, _: str) -> CheckOutcome:
    name = call.arguments["service"]
    before, view = snapshot.get(name), ports.services.status(name)
    if before is None or view is None:
        return CheckOutcome(Answer.UNKNOWN, f"service {name!r}: its state {'now' if before else 'before'} is not known")
    has_ended = view.state == STOPPED
    is_as_before = view.is_wanted if before["wanted"] else (not view.is_wanted and has_ended)
    return _yes_no(is_as_before, f"service {name!r} is {view.state}, {'wanted' if view.is_wanted else 'not wanted'}")


def _tcp(call: Call, _: Snapshot, ports: Ports, __: str) -> CheckOutcome:
    host, port = call.arguments.get("host", "127.0.0.1"), int(call.arguments["port"])
    accepts = ports.tcp.connects(host, port, call.timeout_s)
    return _yes_no(accepts, f"tcp {host}:{port} {'accepts' if accepts else 'refuses'}")


def _http_ok(call: Call, _: Snapshot, ports: Ports, __: str) -> CheckOutcome:
    """404 and 410 are a no; other unexpected answers say nothing about what is asked."""
    url = call.arguments["url"]
    answer = ports.http.request("GET", url, call.timeout_s, {})
    if _is_expected(answer, call.arguments):
        return CheckOutcome(Answer.YES, f"HTTP {answer.status}")
    is_no = answer.status in (404, 410)
    return CheckOutcome(Answer.NO if is_no else Answer.UNKNOWN, f"{url}: HTTP {answer.status}")


def _command_ok(call: Call, _: Snapshot, ports: Ports, token: str) -> CheckOutcome:
    """Exit code 0 is a yes, 1 a no; any other says that the program could not tell."""
    done = ports.commands.run(call.arguments["argv"], call.timeout_s, token, call.arguments.get("working_dir"))
    answer = {0: Answer.YES, 1: Answer.NO}.get(-1 if done.code is None else done.code, Answer.UNKNOWN)
    said = done.error or done.output
    return CheckOutcome(answer, f"exit {'(killed: out of time)' if done.code is None else done.code} {said}".strip())


def _bridge_ready(call: Call, _: Snapshot, ports: Ports, __: str) -> CheckOutcome:
    return CheckOutcome(*bridge_calls.is_ready(call, ports))


_CHECKS: Final[dict[CallType, Callable[[Call, Snapshot, Ports, str], CheckOutcome]]] = {
    CallType.SERVICE_EXISTS: _exists,
    CallType.SERVICE_READY: _ready,
    CallType.SERVICE_GENERATION: _generation,
    CallType.SERVICE_RESTORED: _restored,
    CallType.TCP_CONNECT: _tcp,
    CallType.HTTP_OK: _http_ok,
    CallType.COMMAND_OK: _command_ok,
    CallType.BRIDGE_READY: _bridge_ready,
}
