"""What ``selfheal runbook lint`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runbooks.lint import Linted, lint
from runbooks.problems import Level, Problem
from supervisors.cli.exits import FAILED, Quit
from supervisors.cli.libraries import asked_by_name
from supervisors.cli.outside import Outside
from supervisors.cli.recorded import facts_of_file
from supervisors.cli.terminal import complain, print_json, say
from supervisors.manager import SCHEMA


def lint_files(
    outside: Outside, named: Sequence[str], config: str | None, alerts: Path | None, *, strict: bool
) -> None:
    """Tell every problem.

    Raises:
        Quit: there is an error; with ``strict``, or a warning.
    """
    asked = asked_by_name(config, named)
    recorded = () if alerts is None else facts_of_file(alerts)
    doubtful = lint([Linted(one.file, one.runbook) for one in asked.reads], asked.around, recorded)
    found = [*asked.problems, *(problem for one in asked.reads for problem in one.report), *doubtful]
    failing = {Level.ERROR, Level.WARNING} if strict else {Level.ERROR}
    if outside.as_json:
        print_json({"schema": SCHEMA, "problems": [str(one) for one in found], "found": list(map(_as_json, found))})
    else:
        for one in found:
            (say if one.level is Level.NOTE else complain)(str(one))
        if not any(one.level is not Level.NOTE for one in found):
            say("no problems")
    if any(one.level in failing for one in found):
        raise Quit(FAILED)


def _as_json(problem: Problem) -> dict[str, str]:
    return {"file": problem.file, "pointer": problem.pointer, "text": problem.text, "level": problem.level.value}
