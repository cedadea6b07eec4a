"""Alerts from many senders through random deaths of the daemon and of the senders: what became of each alert.

    python benchmarks/alert_storm.py [--alerts 100000] [--senders 8] [--kills 50] [--seed 1]

Prints each death and one line at the end. Exit code 0 when no alert was lost, left undecided, or handled twice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.links.alert_storm import AlertStorm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alert-storm-") as folder:
        storm = AlertStorm(
            Path(folder), chosen.alerts, chosen.senders, chosen.kills, chosen.seed, lambda text: print(text, flush=True)
        )
        outcome = storm.run()
    print(outcome)
    return int(not outcome.is_right)


if __name__ == "__main__":
    sys.exit(main())
