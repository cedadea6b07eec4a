"""The daemon with runbooks that have no teeth: every acting call does nothing and says that it did.

``python -m tests.faults.toothless run ...`` stands for ``selfheal run ...``. A case that still ends well with it does
not show that its runbook helps. What shipped runbooks only look with (``effect: none``) looks as ever.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from runbooks import steps
from runbooks.calls.family import CallOutcome, Context
from runbooks.model import DOING, Call, Effect
from runbooks.parse import SHIPPED, load_library
from supervisors.cli import main

_WHICH: Final = ("command", "operation", "method")
"""What tells one call of a type from another."""


def word(call: Call) -> tuple[Any, ...]:
    return (call.type, *(call.arguments.get(name) for name in _WHICH))


def looks() -> set[tuple[Any, ...]]:
    actions = [action for runbook in load_library([SHIPPED]).runbooks for action in runbook.actions]
    return {word(one.call) for one in actions if one.call is not None and one.effect is Effect.NONE}


if __name__ == "__main__":
    harmless = looks()
    for kind in DOING & steps._ACTS.keys():  # the one place all acting calls go through
        real = steps._ACTS[kind]

        def pretend(call: Call, context: Context, real: Any = real) -> CallOutcome:
            if word(call) in harmless:
                found: CallOutcome = real(call, context)
                return found
            return CallOutcome(ok=True, output="(did nothing)")

        steps._ACTS[kind] = pretend
    main(sys.argv[1:])
