"""Runbooks that act on money: a real endpoint on the bridge link orders from a real broker over HTTP. The endpoint and
the broker live on when the daemon dies, as they do.

What is ordered cannot be taken back: where the broker refuses, the run fails, nothing is tried again, and new orders
are blocked, once.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from guardian_link import Alert
from supervisors.manager import ManagerError
from supervisors.remote import Base, RemoteManager
from tests.crash.warm import DaemonProcess
from tests.crash.world import World
from tests.crash_runbooks import broker
from tests.crash_runbooks.aside import run_aside, speak
from tests.crash_runbooks.stages import AHEAD, BACK, Stage, both
from tests.support.eventually import eventually
from tests.system.running import LINKS

ENDPOINT: Final = "mql4"
TOKEN: Final = "canary-token-of-cleo"
LIMIT_S: Final = 20.0


class Traded(Stage):
    """``labels``: of the alert."""

    wanted = "succeeded"
    variant = "success"
    answered = "awaiting_approval"
    passes: ClassVar[Sequence[str]] = AHEAD
    has_probe = False  # its first step only asks
    order = 40
    labels: ClassVar[dict[str, Any]]
    refuses: ClassVar[bool] = False

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._aside: list[DaemonProcess] = []

    def begin(self) -> None:
        port, own = self.folder / "broker.port", self.folder / "endpoint"
        own.mkdir()
        log, effects, state = self.world.folder / "broke", self.effects_file, self.world.state
        self._aside.append(run_aside(lambda: broker.serve(port, effects, refuses=self.refuses), log))
        eventually(port.exists, within_s=LIMIT_S)
        number = int(port.read_text(encoding="ascii"))
        self._aside.append(run_aside(lambda: speak(state, ENDPOINT, own, broker.orders(number)), log))

    def config(self) -> dict[str, Any]:
        token = self.folder / "cleo.token"
        token.write_text(f"{TOKEN}\n", encoding="ascii")
        token.chmod(0o600)
        operator = {**LINKS["operator"], "tokens": {"cleo": str(token)}}
        bridges = {ENDPOINT: {"kind": "zeromq", "silence": "5s"}}
        return {"bridges": bridges, "links": {**LINKS, "operator": operator}}

    def alert(self) -> Alert:
        return Alert(type=self.runbook, source="crash-matrix", severity="critical", labels=self.labels)

    def break_it(self) -> None:
        """No fault of ours: the account is what it is. But the endpoint must be heard, or nobody may agree."""
        eventually(lambda: self.world.bridges() == {ENDPOINT: "ready"}, within_s=LIMIT_S)

    def meanwhile(self) -> None:
        """A person other than the asker agrees, as soon as there is a plan to agree to."""
        for execution_id in self._waiting():
            with contextlib.suppress(ManagerError, FileNotFoundError):  # no plan yet, or the daemon is dead
                address = (self.world.state / "operator.address").read_text(encoding="ascii").strip()
                with RemoteManager(Base(address=address, token=TOKEN)) as cleo:
                    cleo.approve(execution_id, by="cleo")

    def ill(self) -> list[str]:
        gone = sum(one.wait(0) is not None for one in self._aside)
        return [f"{gone} of broker and endpoint ended"] if gone else []

    def close(self) -> None:
        for one in self._aside:
            one.kill()

    def _waiting(self) -> list[str]:
        asked = "SELECT id FROM executions WHERE status='awaiting_approval'"
        file = f"file:{self.world.state / 'journal.db'}?mode=ro"
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, uri=True)) as db:
            return [row[0] for row in db.execute(asked)]
        return []


class Refused(Traded):
    variant = "failure"
    wanted = "failed"
    then: ClassVar[dict[str, str]] = {"block_new_orders": "succeeded"}
    right: ClassVar[Sequence[str]] = ("block",)
    passes: ClassVar[Sequence[str]] = (*AHEAD, "runbook.looked.probe", *both("skipped"), *both("failing"))
    refuses = True
    order = 41


class Reduced(Traded):
    runbook = "position_limit_exceeded"
    labels: ClassVar = {"symbol": broker.SYMBOL, "limit_lots": 2.0}
    right: ClassVar[Sequence[str]] = (f"sell {broker.SYMBOL} 1.5",)


class NotReduced(Refused):
    runbook = "position_limit_exceeded"
    labels = Reduced.labels


class Freed(Traded):
    runbook = "margin_call_recovery"
    labels: ClassVar = {"wanted_margin_percent": 150}
    right: ClassVar[Sequence[str]] = (f"close {broker.SYMBOL} 150",)


class NotFreed(Refused):
    runbook = "margin_call_recovery"
    labels = Freed.labels


class Closed(Traded):
    runbook = "drawdown_exceeded_recovery"
    labels: ClassVar = {"limit_percent": 20}
    right: ClassVar[Sequence[str]] = (*(f"close {symbol}" for symbol in broker.POSITIONS), "block 20")


class NotClosed(Refused):
    runbook = "drawdown_exceeded_recovery"
    labels = Closed.labels


class Blocked(Traded):
    runbook = "block_new_orders"
    labels: ClassVar = {"endpoint": ENDPOINT}
    right: ClassVar[Sequence[str]] = ("block",)
    passes: ClassVar[Sequence[str]] = (*AHEAD, *both("skipped"))  # the endpoint cannot be asked whether it is so
    answered = "run"
    order = 38


class NotBlocked(Blocked):
    """A criterion never holds: orders are allowed again, as before."""

    variant = "rollback"
    wanted = "rolled_back"
    helps = False
    right: ClassVar[Sequence[str]] = ("block", "allow")
    passes: ClassVar[Sequence[str]] = (*Blocked.passes, *both("failing"), *BACK)
    order = 39


STAGES = (Reduced, NotReduced, Freed, NotFreed, Closed, NotClosed, Blocked, NotBlocked)
