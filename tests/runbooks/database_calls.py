"""Calls about databases, made as runbooks make them; no outcome may hold a password."""

from __future__ import annotations

from typing import Any

from runbooks.calls.family import CallOutcome, CheckOutcome
from runbooks.commands import LocalCommands
from runbooks.databases import LocalDatabases
from runbooks.model import Call, CallType
from runbooks.network import LocalHttp, LocalTcp
from runbooks.ports import Ports, ServiceView
from runbooks.steps import make_call, make_check
from tests.faults import postgres, redis

TOKEN = "x-test"


class Table:
    """One service that is as it is said to be."""

    def __init__(self, *, ready: bool = True) -> None:
        self.view = ServiceView("pg", ready, 1, "ready" if ready else "failed")

    def status(self, name: str) -> ServiceView | None:
        return self.view if name == "pg" else None


PORTS = Ports(Table(), LocalCommands(), LocalHttp(), LocalTcp(), databases=LocalDatabases())  # type: ignore[arg-type]


def do(snapshot: Any = None, timeout_s: float = 20.0, **arguments: Any) -> CallOutcome:
    outcome = make_call(Call(CallType.DATABASE_OPERATION, arguments, timeout_s), snapshot, PORTS, TOKEN)
    assert postgres.PASSWORD not in repr(outcome)
    assert redis.PASSWORD not in repr(outcome)
    return outcome


def look(kind: CallType, snapshot: Any = None, timeout_s: float = 20.0, **arguments: Any) -> CheckOutcome:
    outcome = make_check(Call(kind, arguments, timeout_s), snapshot, PORTS, TOKEN)
    assert postgres.PASSWORD not in repr(outcome)
    assert redis.PASSWORD not in repr(outcome)
    return outcome


def health(url: str, timeout_s: float = 20.0, **more: Any) -> dict[str, Any]:
    outcome = do(timeout_s=timeout_s, operation="health", url=url, **more)
    assert outcome.ok, outcome
    result: dict[str, Any] = outcome.result
    return result


OK, BELOW, UNBLOCKED = CallType.DATABASE_OK, CallType.DATABASE_SESSIONS_BELOW, CallType.DATABASE_UNBLOCKED
