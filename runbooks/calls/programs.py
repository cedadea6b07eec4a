"""Calls that run a program: an argument list, never a shell."""

from __future__ import annotations

from typing import Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType, Trouble


def _command(call: Call, context: Context) -> CallOutcome:
    given = call.arguments
    done = context.ports.commands.run(given["argv"], call.timeout_s, context.token, given.get("working_dir"))
    if done.code == 0:
        return CallOutcome(ok=True, output=done.output)
    ended = f"took longer than {call.timeout_s:g} s" if done.code is None else f"exit {done.code}"
    trouble = Trouble.TIMEOUT if done.code is None else Trouble.REFUSED
    said = f"{ended}: {done.error or done.output}".rstrip(": ")
    return CallOutcome(ok=False, output=done.output, error=said, trouble=trouble)


def _command_ok(call: Call, context: Context) -> CheckOutcome:
    """Exit code 0 is a yes, 1 a no; any other says that the program could not tell."""
    given = call.arguments
    done = context.ports.commands.run(given["argv"], call.timeout_s, context.token, given.get("working_dir"))
    answer = {0: Answer.YES, 1: Answer.NO}.get(-1 if done.code is None else done.code, Answer.UNKNOWN)
    said = done.error or done.output
    return CheckOutcome(answer, f"exit {'(killed: out of time)' if done.code is None else done.code} {said}".strip())


FAMILY: Final = Family(acts={CallType.COMMAND: _command}, looks={CallType.COMMAND_OK: _command_ok})
