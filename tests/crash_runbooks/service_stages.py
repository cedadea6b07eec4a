"""Runbooks that restart a service: it is restarted once, whoever dies meanwhile, also where that does not help."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Final

from guardian_link import Alert
from tests.crash import witness
from tests.crash.world import World
from tests.crash_runbooks.stages import Services, Stage, never_helps
from tests.system.running import free_port


class Restarted(Stage):
    runbook = "service_failure"
    variant = "success"
    wanted = "succeeded"
    order = 20

    def services(self) -> Services:
        return {name: witness.process(self.folder, name) for name in ("a", "b")}

    def alert(self) -> Alert:
        return Alert(type="service_failure", service="a", message="no heartbeat", source="crash-matrix")

    def wrong(self) -> list[str]:
        seen, found = self.world.witnesses, []
        for name, births in (("a", 2), ("b", 1)):
            alive = len(self.world.processes(name))
            found += [f"{alive} of {name} live"] if alive != 1 else []
            born = seen.births(name)
            found += [f"{name} was started {born} times, not {births}"] if born != births else []
        return found + [f"twins of {name}" for name in seen.twins()]


class NotHelped(Restarted):
    """A criterion never holds: what was done is undone, the service is wanted and runs, as it was before."""

    variant = "rollback"
    wanted = "rolled_back"
    order = 21

    def runbooks(self) -> dict[str, object]:
        return {f"{self.runbook}.json": never_helps(self.runbook)}


class Burning(Restarted):
    """Anything is over a limit of 0: what is tried here is not the measuring (``tests.faults`` does) but the run."""

    runbook = "high_cpu_usage"
    order = 30

    def alert(self) -> Alert:
        return Alert(type=self.runbook, service="a", source="crash-matrix")


class BurningOn(NotHelped):
    runbook = "high_cpu_usage"
    order = 31
    alert = Burning.alert


class Leaking(Burning):
    runbook = "memory_exhaustion"


class LeakingOn(BurningOn):
    runbook = "memory_exhaustion"


_DEAF: Final = """
echo 1 >>{name}.births; exec 9>>{name}.alive; flock -n 9 || echo 1 >>{name}.twins
[ "$(wc -l <{name}.births)" -ge 2 ] && exec {python} -m http.server {port} --bind 127.0.0.1
exec sleep 1000000
"""


class Deaf(Restarted):
    """Its first run accepts nothing on its port, the next does."""

    runbook = "network_connectivity"
    order = 32

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.port = free_port()

    def services(self) -> Services:
        script = _DEAF.format(name=self.folder / "a", python=sys.executable, port=self.port)
        deaf = {"command": ["sh", "-c", script], "graceful_shutdown_timeout": "5s"}
        return {"a": deaf, "b": witness.process(self.folder, "b")}

    def alert(self) -> Alert:
        return Alert(type=self.runbook, service="a", source="crash-matrix", labels={"port": self.port})

    def wrong(self) -> list[str]:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return super().wrong()
        return ["nobody accepts on its port", *super().wrong()]


class DeafOn(Deaf):
    variant = "rollback"
    wanted = "rolled_back"
    order = 33
    runbooks = NotHelped.runbooks


STAGES = (Restarted, NotHelped, Burning, BurningOn, Leaking, LeakingOn, Deaf, DeafOn)
