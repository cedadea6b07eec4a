"""Race approvals against rejections, expiry, edits and duplicates: python -m tests.approval [--rounds 10000]."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import structlog

from tests.approval.races import race


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = race(Path(folder), asked.rounds, asked.seed)
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    took_s = time.monotonic() - began_s
    print(f"{asked.rounds} races in {took_s:.0f} s: {said}; each had one outcome, none after its time")


if __name__ == "__main__":
    main()
