"""What ``selfheal runbook test`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbooks.parse import Read
from runbooks.rehearsal import Rehearsed, rehearse
from supervisors.cli.exits import FAILED, Quit
from supervisors.cli.libraries import asked_by_name
from supervisors.cli.outside import Outside
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA


def rehearse_files(outside: Outside, named: Sequence[str], config: str | None) -> None:
    """Every test of the files, folders or ids named; of all runbooks without any.

    Raises:
        Quit: a test failed, or a file cannot be used.
    """
    asked = asked_by_name(config, named)
    library = asked.library
    done = [(read, rehearse(read.runbook, test, library)) for read in asked.reads for test in read.runbook.tests]
    failed = sum(not one.passed for _, one in done)
    for problem in asked.problems:
        complain(problem)
    if outside.as_json:
        told = [_as_json(read, one) for read, one in done]
        print_json({"schema": SCHEMA, "tests": told, "problems": [str(one) for one in asked.problems]})
    else:
        for read, one in done:
            say(f"{'passed' if one.passed else 'FAILED'}  {read.runbook.id}: {one.test.name}{_end(one)}")
            for problem_text in one.problems:
                say(f"        {problem_text}")
        for read in asked.reads:
            if not read.runbook.tests:
                say(f"none    {read.runbook.id}: the file has no tests")
        say(f"{len(done) - failed} passed, {failed} failed")
    if failed or asked.problems:
        raise Quit(FAILED)


def _end(one: Rehearsed) -> str:
    if one.run is not None:
        return f" ({one.run.status.value}, {one.run.lasted_s:.1f} s)"
    return f" ({one.decision.outcome.value})" if one.decision is not None else ""


def _as_json(read: Read, one: Rehearsed) -> dict[str, Any]:
    run, decision = one.run, one.decision
    return {
        "runbook": read.runbook.id,
        "file": read.file,
        "name": one.test.name,
        "passed": one.passed,
        "problems": list(one.problems),
        "outcome": decision.outcome.value if decision is not None else None,
        "status": run.status.value if run is not None else None,
        "steps": dict(run.steps) if run is not None else {},
        "calls": list(run.calls) if run is not None else [],
    }
