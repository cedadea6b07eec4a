"""The supervision tree as a library: your own actors as children, OTP's rules, OTP's run-time calls.

Run it: ``python examples/supervised_actors.py``
"""

from __future__ import annotations

import logging
import time
from typing import Any

import structlog

from supervisors import ChildSpec, Restart, Strategy, SupervisedActor, Supervisor


class Counter(SupervisedActor):
    """Counts what it is told; ``crash`` is a bug."""

    def setup(self) -> None:
        self.count = 0

    def handle(self, message: Any) -> int:
        if message == "crash":
            raise ValueError("a bug")
        self.count += 1
        return self.count


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # only our own lines
    root = Supervisor.start(
        strategy=Strategy.REST_FOR_ONE,
        intensity=3,
        period_s=5.0,
        children=[
            ChildSpec(id="prices", start=Counter),
            ChildSpec(id="signals", start=Counter),
            ChildSpec(id="report", start=Counter, restart=Restart.TEMPORARY),
        ],
    )
    show(root)
    signals = root.child("signals")
    if signals is None:
        raise SystemExit("signals does not run")
    signals.tell("a price")
    print("signals counted", signals.ask("a price", timeout_s=5.0))
    signals.tell("crash")  # signals is restarted, report (temporary, after it) is dropped, prices goes on
    while len(root.which_children()) > 2 or root.child("signals") in (None, signals):
        time.sleep(0.01)
    show(root)
    print("ended:", root.stop())


def show(root: Supervisor) -> None:
    print(", ".join(f"{child.id} {child.state}" for child in root.which_children()))


if __name__ == "__main__":
    main()
