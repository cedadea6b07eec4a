"""A run is shown on the board at every moment of it, whatever it looks at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from tests.recovery.place import recovering
from tests.runbooks.files import GOOD, READY

NEVER: dict[str, Any] = {"call": {"type": "command_ok", "argv": ["false"]}}


@pytest.mark.parametrize(("last", "end"), [(READY, "succeeded"), (NEVER, "rolled_back")])
def test_a_runbook_with_more_checks_than_steps_runs_to_its_end(tmp_path: Path, last: dict[str, Any], end: str) -> None:
    """In one go: its actor is not brought back on the way."""
    folder = tmp_path / "runbooks"
    folder.mkdir()
    checks = {"success_criteria": [READY, READY, last], "preconditions": [READY] * 3}
    match = {"field": "/type", "op": "eq", "value": "many_checks"}
    (folder / "one.json").write_text(json.dumps(GOOD | checks | {"match": match}), encoding="utf-8")
    with recovering(tmp_path / "state", runbooks=(folder,)) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(Alert(type="many_checks", service="a"))
        assert ack.execution_id is not None
        assert guardian.wait(ack.execution_id, timeout_s=30).status == end
        assert place.world.restarts[0] == "a"
        journal = place.recovery.records.journal
        (begun,) = journal.read(lambda db: db.execute("SELECT epoch FROM executions").fetchall())
        assert begun["epoch"] == 1
