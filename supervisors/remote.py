"""The manager over HTTP: what the command line and the live view use from outside the daemon. Any thread; blocks.

Finds the daemon by its state directory (the unix socket in it, else the loopback address the daemon wrote there) or by
a URL. Keeps one connection pool; threads may share it.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.parse import quote

import httpx

from supervisors.manager import (
    DEFAULT_TIMEOUT_S,
    Applied,
    BadConfig,
    CommandFailed,
    DaemonInfo,
    DaemonUnreachable,
    ManagerError,
    Node,
    NotAllowed,
    PlanShown,
    Record,
    RecoveryStatus,
    Result,
    TimedOut,
    Transition,
    Tree,
    UnknownNode,
)

SOCKET_NAME: Final = "operator.sock"
ADDRESS_NAME: Final = "operator.address"
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 15.0
"""An answer that waits for nothing takes moments; this is for a loaded machine."""
_VOTE_S: Final = 120.0
_MARGIN_S: Final = 15.0
"""A command that waits answers by itself when its time is over; only then is the daemon given up."""
_SILENCE_S: Final = 15.0
"""A followed log says that it lives every second."""


@dataclass(frozen=True, slots=True)
class Base:
    """Where the daemon is: by ``state_dir``, or by ``address`` with a ``token`` (sent as Bearer)."""

    state_dir: Path | None = None
    address: str | None = None
    token: str | None = None

    @property
    def place(self) -> str:
        """For error texts."""
        return f"at {self.address}" if self.address is not None else f"in the state directory {self.state_dir}"


class RemoteManager:
    """Fulfils ``supervisors.manager.Manager``. Use it as a context manager, or ``close`` it."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._client = _client(base)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def info(self) -> DaemonInfo:
        return cast("DaemonInfo", _without_schema(self._get("/v1/info")))

    def tree(self) -> Tree:
        return cast("Tree", self._get("/v1/tree"))

    def services(self) -> list[Node]:
        return cast("list[Node]", self._get("/services/status")["services"])

    def alerts(self, limit: int = 50) -> Sequence[Record]:
        return cast("list[Record]", self._get("/v1/alerts", limit=limit)["alerts"])

    def executions(self, limit: int = 50) -> Sequence[Record]:
        return cast("list[Record]", self._get("/v1/executions", limit=limit)["executions"])

    def execution(self, execution_id: str) -> Record:
        return cast("Record", self._get(f"/v1/executions/{quote(execution_id, safe='')}")["executions"][0])

    def approvals(self) -> Sequence[Record]:
        return cast("list[Record]", self._get("/v1/approvals")["approvals"])

    def approve(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        return self._vote("approve", execution_id, by, plan, why)

    def reject(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        return self._vote("reject", execution_id, by, plan, why)

    def _vote(self, says: str, execution_id: str, by: str, plan: str | None, why: str) -> Record:
        """The preconditions are looked at first: that may take as long as their times allow."""
        del by  # the daemon knows who asks
        order = {"plan": plan, "why": why}
        path = f"/v1/approvals/{quote(execution_id, safe='')}/{says}"
        return _without_schema(self._ask("POST", path, _VOTE_S, json=order))

    def runbooks(self) -> Mapping[str, Any]:
        return _without_schema(self._get("/v1/runbooks"))

    def run_runbook(self, runbook_id: str, values: Mapping[str, str], *, by: str, why: str = "") -> Record:
        del by  # the daemon knows who asks
        path = f"/v1/runbooks/{quote(runbook_id, safe='')}/run"
        return _without_schema(self._ask("POST", path, _VOTE_S, json={"values": dict(values), "why": why}))

    def cancel(self, execution_id: str, *, by: str, why: str = "") -> Record:
        path = f"/v1/executions/{quote(execution_id, safe='')}/cancel"
        return cast("Record", self._ask("POST", path, _ANSWER_S, json={"by": by, "why": why})["executions"][0])

    def recovery_status(self) -> RecoveryStatus:
        return cast("RecoveryStatus", _without_schema(self._get("/v1/recovery")))

    def set_recovery(self, enabled: bool, *, by: str, why: str = "") -> RecoveryStatus:
        order = {"enabled": enabled, "by": by, "why": why}
        answer = self._ask("POST", "/v1/recovery", _ANSWER_S, json=order)
        return cast("RecoveryStatus", _without_schema(answer))

    def silences(self) -> Sequence[Record]:
        return cast("list[Record]", self._get("/v1/silences")["silences"])

    def add_silence(self, matchers: Sequence[str], for_s: float, *, by: str, why: str = "") -> Record:
        order = {"matchers": list(matchers), "for_s": for_s, "by": by, "why": why}
        return cast("Record", self._ask("POST", "/v1/silences", _ANSWER_S, json=order)["silences"][0])

    def end_silence(self, silence_id: str, *, by: str, why: str = "") -> Record:
        path = f"/v1/silences/{quote(silence_id, safe='')}"
        return cast("Record", self._ask("DELETE", path, _ANSWER_S, params={"by": by, "why": why})["silences"][0])

    def latches(self) -> Sequence[Record]:
        return cast("list[Record]", self._get("/v1/latches")["latches"])

    def release(self, target: str, *, by: str, why: str) -> Record:
        order = {"target": target, "by": by, "why": why}
        return cast("Record", self._ask("POST", "/v1/latches/release", _ANSWER_S, json=order)["latches"][0])

    def statistics(self) -> Mapping[str, Any]:
        return _without_schema(self._get("/v1/statistics"))

    def log_tail(self, service: str, lines: int = 50) -> list[str]:
        return cast("list[str]", self._get(f"/v1/logs/{_in_path(service)}", lines=lines)["lines"])

    def log_follow(self, service: str, lines: int = 50, *, closed: threading.Event) -> Iterator[str]:
        request = self._client.build_request(
            "GET",
            f"/v1/logs/{_in_path(service)}",
            params={"lines": lines, "follow": "true"},
            timeout=httpx.Timeout(_CONNECT_S, read=_SILENCE_S),
        )
        with self._reachable():
            response = self._client.send(request, stream=True)
            if response.status_code >= 400:
                response.read()
        _raise_for(response)
        return self._lines(response, closed)

    def why(self, node: str, limit: int = 20) -> Sequence[Transition]:
        return cast("list[Transition]", self._get(f"/v1/why/{_in_path(node)}", limit=limit)["transitions"])

    def wait_for(self, node: str, state: str, *, timeout_s: float) -> Node:
        params = {"state": state, "timeout_s": timeout_s}
        answer = self._ask("GET", f"/v1/wait/{_in_path(node)}", timeout_s + _MARGIN_S, params=params)
        return cast("Node", answer["node"])

    # -- steering ---------------------------------------------------------------------------------------------------

    def start(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        return self._command(f"{_in_path(name)}/start", timeout_s, by=by, wait=wait)

    def stop(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        return self._command(f"{_in_path(name)}/stop", timeout_s, by=by, wait=wait, why=why)

    def pause(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        return self._command(f"{_in_path(name)}/pause", timeout_s, by=by, wait=wait, why=why)

    def resume(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        return self._command(f"{_in_path(name)}/resume", timeout_s, by=by, wait=wait)

    def restart(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        return self._command(f"{_in_path(name)}/restart", timeout_s, by=by, wait=wait)

    def start_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        return self._command_all("start-all", timeout_s, by=by, wait=wait)

    def stop_all(
        self, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[Result]:
        return self._command_all("stop-all", timeout_s, by=by, wait=wait, why=why)

    def restart_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        return self._command_all("restart-all", timeout_s, by=by, wait=wait)

    def plan(self, config: str | None = None) -> PlanShown:
        answer = self._ask("POST", "/v1/plan", _ANSWER_S, json={"config": config})
        return cast("PlanShown", answer)

    def apply(
        self, config: str | None = None, *, by: str, plan: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        return self._edit("/v1/apply", {"config": config, "by": by, "plan": plan, "timeout_s": timeout_s})

    def scale(
        self, name: str, replicas: int | None, *, by: str, why: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        order = {"replicas": replicas, "by": by, "why": why, "timeout_s": timeout_s}
        return self._edit(f"/services/{_in_path(name)}/scale", order)

    def _edit(self, path: str, order: Mapping[str, Any]) -> Applied:
        """Services are stopped with their own graces: only the daemon knows how long an edit takes."""
        with self._reachable():
            response = self._client.post(path, json=order, timeout=httpx.Timeout(_CONNECT_S, read=None))
        body = _body(response)
        if "nodes" not in body:
            _raise_for(response)
        return cast("Applied", body)

    def shutdown(self, *, keep_services: bool = False, by: str) -> None:
        self._ask("POST", "/v1/stop", _ANSWER_S, params={"keep_services": keep_services, "by": by})

    # -- inside -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._ask("GET", path, _ANSWER_S, params=params)

    def _command(self, path: str, timeout_s: float, **params: Any) -> Node:
        answer = self._ask("POST", f"/services/{path}", timeout_s + _MARGIN_S, params=params | {"timeout_s": timeout_s})
        return cast("Node", answer["service"])

    def _command_all(self, path: str, timeout_s: float, **params: Any) -> list[Result]:
        """Services are handled one after the other or together: only the daemon knows how long all of them take."""
        with self._reachable():
            response = self._client.post(
                f"/services/{path}",
                params=params | {"timeout_s": timeout_s},
                timeout=httpx.Timeout(_CONNECT_S, read=None),
            )
        body = _body(response)
        if "results" not in body:
            _raise_for(response)
        return cast("list[Result]", body["results"])

    def _ask(self, method: str, path: str, answer_s: float, **request: Any) -> dict[str, Any]:
        timeout = httpx.Timeout(answer_s, connect=_CONNECT_S)
        with self._reachable():
            response = self._client.request(method, path, timeout=timeout, **request)
        _raise_for(response)
        return _body(response)

    def _lines(self, response: httpx.Response, closed: threading.Event) -> Iterator[str]:
        try:
            with self._reachable():
                for text in response.iter_lines():
                    if closed.is_set():
                        return
                    if text and "line" in (said := json.loads(text)):
                        yield said["line"]
        finally:
            response.close()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            text = f"no daemon answers {self._base.place}; 'selfheal run' starts one"
            raise _unreachable(self._base, text) from error
        except httpx.TimeoutException as error:
            raise _unreachable(self._base, f"the daemon {self._base.place} does not answer") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(self._base, f"the daemon {self._base.place} broke off: {error}") from error


def _client(base: Base) -> httpx.Client:
    headers = {"authorization": f"Bearer {base.token}"} if base.token else {}
    url, transport = _way_to(base)
    try:
        return httpx.Client(base_url=url, transport=transport, headers=headers, trust_env=False)
    except httpx.InvalidURL as error:
        raise DaemonUnreachable(f"{url!r} is no address of a daemon: {error}") from error


def _way_to(base: Base) -> tuple[str, httpx.HTTPTransport]:
    """The URL and the transport. Raises DaemonUnreachable."""
    if base.address is not None:
        url = base.address if "://" in base.address else f"http://{base.address}"
        return url, httpx.HTTPTransport()
    directory = base.state_dir
    if directory is None:
        raise DaemonUnreachable("neither a state directory nor an address of a daemon is given")
    path = directory / SOCKET_NAME
    if path.exists():
        _check_listening(path, base)
        return "http://localhost", httpx.HTTPTransport(verify=False, uds=str(path))  # no TLS: nothing to be read for it
    written = directory / ADDRESS_NAME
    if written.exists():
        return written.read_text(encoding="utf-8").strip(), httpx.HTTPTransport(verify=False)  # plain HTTP on loopback
    text = f"no daemon runs {base.place}; 'selfheal run' starts one, --state names another directory"
    raise _unreachable(base, text)


def _unreachable(base: Base, text: str) -> DaemonUnreachable:
    """The error with ``text``, or with what the lock of the state directory knows better."""
    directory = base.state_dir
    if directory is None:
        return DaemonUnreachable(text)
    if directory.exists() and not directory.is_dir():
        return DaemonUnreachable(f"{directory} is no state directory: it is no directory at all")
    if not directory.exists():
        return DaemonUnreachable(
            f"there is no state directory {directory}; 'selfheal run' makes it, --state names another"
        )
    from supervisors.single_root import holder  # noqa: PLC0415  only when nobody answers

    owner = holder(directory)
    if owner is None:
        return DaemonUnreachable(text)
    if owner.is_ending:
        why = f"the daemon (pid {owner.pid}) {base.place} is stopping; 'selfheal stop' waits for its end"
    else:
        why = f"the daemon (pid {owner.pid}) {base.place} does not answer: it is starting, or hangs"
    return DaemonUnreachable(why)


def _check_listening(path: Path, base: Base) -> None:
    """A daemon that was killed leaves its socket behind. Raises DaemonUnreachable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            text = f"no daemon answers {base.place} ({error.strerror or error}); 'selfheal run' starts one"
            raise _unreachable(base, text) from error


def _in_path(name: str) -> str:
    """A node's name or path as part of a URL. Raises UnknownNode for what a URL would mean as another place."""
    if {"", ".", ".."} & set(name.split("/")):
        raise UnknownNode(name)
    return quote(name)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError as error:
        raise CommandFailed(
            f"the daemon's answer is no JSON (HTTP {response.status_code}): is it a selfheal?"
        ) from error
    if not isinstance(body, dict):
        raise CommandFailed(f"the daemon's answer is no JSON object (HTTP {response.status_code}): is it a selfheal?")
    return body


def _raise_for(response: httpx.Response) -> None:
    """The error the owner in the daemon raised, raised here."""
    if response.status_code < 400:
        return
    body = _body(response)
    text = str(body.get("error", f"HTTP {response.status_code}"))
    raise _error(body, text)


def _error(body: Mapping[str, Any], text: str) -> ManagerError:
    match body.get("kind"):
        case "unknown_node":
            return UnknownNode(str(body.get("name")), body.get("suggestion"), str(body.get("what")))
        case "timed_out":
            return TimedOut(text)
        case "unreachable":
            return DaemonUnreachable(text)
        case "not_allowed":
            return NotAllowed(text)
        case "bad_config":
            return BadConfig(text, body.get("problems", ()))
        case _:
            return CommandFailed(text)


def _without_schema(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "schema"}
