"""Stands for the cross-language bridge: hands its typical errors to the daemon and prints each decision.

Run it beside a daemon: ``python examples/bridge_simulator.py --simulate-errors [--address tcp://127.0.0.1:5571]``
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bridge_link import BridgeClient, LinkError

ERRORS: list[dict[str, Any]] = [
    {
        "system": "mql4",
        "error_type": "MQL4Error",
        "error_code": 4051,
        "error_message": "Invalid function parameter value",
        "severity": "medium",
        "context": {"function": "OrderSend"},
    },
    {
        "system": "powershell",
        "error_type": "PowerShellError",
        "error_message": "Execution Policy Restricted",
        "exit_code": 1,
        "severity": "high",
    },
    {
        "system": "python",
        "error_type": "SyntaxError",
        "error_message": "invalid syntax",
        "traceback": 'File "strategy.py", line 7',
        "severity": "high",
    },
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--address", help="of the bridge link; found in the state directory by default")
    parser.add_argument("--simulate-errors", action="store_true", help="hand over each kind of error once")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="seconds to wait for each decision")
    options = parser.parse_args()
    if not options.simulate_errors:
        parser.print_help()
        return 2
    lost = 0
    with BridgeClient(options.address, name="simulator") as bridge:
        for error in ERRORS:
            try:
                execution_id = bridge.send_error(error, timeout_s=options.timeout_s)
            except LinkError as failed:
                lost += 1
                print(f"{error['system']}: not accepted: {failed}")
                continue
            print(
                f"{error['system']}: accepted, {'recovery ' + execution_id if execution_id else 'nothing recovers it'}"
            )
    print(f"{len(ERRORS) - lost} accepted, {lost} lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
