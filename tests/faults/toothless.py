"""The daemon with runbooks that have no teeth: every acting call does nothing and says that it did.

``python -m tests.faults.toothless run ...`` stands for ``selfheal run ...``. A case that still ends well with it does
not show that its runbook helps.
"""

from __future__ import annotations

import sys

from runbooks import steps
from runbooks.calls.family import CallOutcome, Context
from runbooks.model import DOING, Call, CallType
from supervisors.cli import main


def pretend(call: Call, context: Context) -> CallOutcome:
    del call, context
    return CallOutcome(ok=True, output="(did nothing)")


ONLY_LOOKS = frozenset({CallType.BRIDGE_HEALTH})
"""Made like an acting call, and changes nothing: without it nothing would be tried at all."""

if __name__ == "__main__":
    for kind in (DOING & steps._ACTS.keys()) - ONLY_LOOKS:  # the one place all acting calls go through
        steps._ACTS[kind] = pretend
    main(sys.argv[1:])
