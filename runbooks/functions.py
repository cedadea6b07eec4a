"""Functions of other packages, by entry point, each call in a process of its own. Runs on the I/O pool."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

from runbooks.commands import LocalCommands, Order
from runbooks.ports import PortError

MAX_RESULT_BYTES: Final = 256 * 1024


class CustomFunctions:
    """Fulfils ``ports.Functions``: only what the configuration names may be called."""

    def __init__(self, allowed: Collection[str], commands: LocalCommands) -> None:
        self._allowed = frozenset(allowed)
        self._commands = commands

    def call(self, name: str, parameters: Mapping[str, Any], timeout_s: float, token: str) -> Any:
        if name not in self._allowed:
            raise PortError(f"function {name!r} is not allowed: name it in runbooks.functions")
        argv = (sys.executable, "-m", "runbooks.custom_host", name)
        path = os.pathsep.join(entry for entry in sys.path if entry)  # what the daemon itself would find
        order = Order(
            argv,
            timeout_s,
            token,
            environment={"PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            given=json.dumps(dict(parameters), default=list),
            head_bytes=MAX_RESULT_BYTES,
        )
        done = self._commands.carry_out(order)
        if done.code is None:
            raise PortError(f"function {name!r} was killed: it took longer than {timeout_s:g} s, or was cancelled")
        if done.code != 0:
            raise PortError(f"function {name!r} failed: {done.error or f'exit {done.code}'}")
        if done.is_cut:
            raise PortError(f"function {name!r}: its result is longer than {MAX_RESULT_BYTES} bytes")
        try:
            return json.loads(done.output)
        except ValueError as error:
            raise PortError(f"function {name!r}: its result is no JSON") from error
