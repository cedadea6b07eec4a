"""Runs one registered function in this process: ``python -m runbooks.custom_host NAME``.

Parameters come as one JSON object on standard input, the result goes out as JSON. What the function itself prints goes
to standard error, so that it cannot be taken for the result.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import entry_points
from typing import Final

GROUP: Final = "selfheal.functions"


def main() -> int:
    """0: the result was written; 1: the function raised; 2: there is no such function."""
    results = os.dup(1)
    os.dup2(2, 1)
    name = sys.argv[1]
    found = entry_points(group=GROUP, name=name)
    if len(found) != 1:
        what = "is registered more than once" if found else "is not registered"
        print(f"{name!r} {what} in the entry point group {GROUP}", file=sys.stderr)  # noqa: T201  to who reads it
        return 2
    try:
        (entry,) = found
        raw = json.dumps(entry.load()(json.load(sys.stdin))).encode()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    with os.fdopen(results, "wb") as out:
        out.write(raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
