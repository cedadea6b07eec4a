"""Runbooks that restart a service: it is restarted once, whoever dies meanwhile, also where that does not help."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from guardian_link import Alert
from tests.crash import witness
from tests.crash.world import World
from tests.crash_runbooks.stages import AHEAD, BACK, SNAPSHOT, Services, Stage, both
from tests.system.running import free_port


class Restarted(Stage):
    runbook = "service_failure"
    variant = "success"
    wanted = "succeeded"
    right: ClassVar[Sequence[str]] = ("start a", "start a")
    order = 20

    def services(self) -> Services:
        return {"a": witness.process(self.folder, "a")}

    def alert(self) -> Alert:
        return Alert(type=self.runbook, service="a", source="crash-matrix")

    def effects(self) -> list[str]:
        return ["start a"] * self.world.witnesses.births("a")

    def ill(self) -> list[str]:
        alive = len(self.world.processes("a"))
        return [f"{alive} of a live"] if alive != 1 else []


class NotHelped(Restarted):
    """A criterion never holds: what was done is undone, the service is wanted and runs, as it was before."""

    variant = "rollback"
    wanted = "rolled_back"
    helps = False
    passes: ClassVar[Sequence[str]] = (*AHEAD, *SNAPSHOT, *both("failing"), *BACK)
    order = 21


class Burning(Restarted):
    """Anything is over a limit of 0: what is tried here is not the measuring (``tests.faults`` does) but the run."""

    runbook = "high_cpu_usage"
    order = 30


class BurningOn(NotHelped):
    runbook = "high_cpu_usage"
    order = 31


class Leaking(Burning):
    runbook = "memory_exhaustion"


class LeakingOn(BurningOn):
    runbook = "memory_exhaustion"


_LISTENER: Final = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()[0].close()
"""
_DEAF: Final = """
echo 1 >>{name}.births; exec 9>>{name}.alive; flock -n 9 || echo 1 >>{name}.twins
[ "$(wc -l <{name}.births)" -ge 2 ] && exec {python} -I -S {listener} {port}
exec sleep 1000000
"""


class Deaf(Restarted):
    """Its first run accepts nothing on its port, the next does."""

    runbook = "network_connectivity"
    order = 32

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.port = free_port()

    def begin(self) -> None:
        (self.folder / "listener.py").write_text(_LISTENER, encoding="ascii")

    def services(self) -> Services:
        listener = self.folder / "listener.py"
        script = _DEAF.format(name=self.folder / "a", python=sys.executable, listener=listener, port=self.port)
        return {"a": {"command": ["sh", "-c", script], "graceful_shutdown_timeout": "5s"}}

    def alert(self) -> Alert:
        return Alert(type=self.runbook, service="a", source="crash-matrix", labels={"port": self.port})

    def ill(self) -> list[str]:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return super().ill()
        return ["nobody accepts on its port", *super().ill()]


class DeafOn(Deaf):
    variant = "rollback"
    wanted = "rolled_back"
    helps = False
    passes: ClassVar[Sequence[str]] = NotHelped.passes
    order = 33


STAGES = (Restarted, NotHelped, Burning, BurningOn, Leaking, LeakingOn, Deaf, DeafOn)
