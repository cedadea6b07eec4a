"""``python -m tests.conformance SCENARIOS.json``: one line a scenario, then ``N passed, N failed, N skipped``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import structlog

from tests.conformance.runner import SKIPPED_TAGS, run, skipped_for


def main(arguments: list[str]) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for argument in arguments:
        for scenario in json.loads(Path(argument).read_text(encoding="utf-8"))["scenarios"]:
            tag = skipped_for(scenario)
            if tag is not None:
                outcome, text = "skipped", f"skipped: {tag} ({SKIPPED_TAGS[tag]})"
            else:
                outcome, text = _run(scenario)
            counts[outcome] += 1
            print(f"{scenario['id']} {text}", flush=True)
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["failed"] or not any(counts.values()) else 0


def _run(scenario: dict[str, object]) -> tuple[str, str]:
    try:
        run(scenario)
    except Exception as differed:  # one scenario's failure must not hide the others
        return "failed", f"failed: {type(differed).__name__}: {differed}"
    return "passed", "passed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
