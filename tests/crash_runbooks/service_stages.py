"""``service_failure``: the service is restarted once, whoever dies meanwhile, also where that does not help."""

from __future__ import annotations

from guardian_link import Alert
from tests.crash import witness
from tests.crash_runbooks.stages import Services, Stage, never_helps


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
        return {"service_failure.json": never_helps("service_failure")}


STAGES = (Restarted, NotHelped)
