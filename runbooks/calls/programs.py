"""Calls that run a program: an argument list, never a shell."""

from __future__ import annotations

from typing import Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, as_result
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType, Trouble
from runbooks.ports import CommandResult


def _run(call: Call, context: Context) -> CommandResult:
    given = call.arguments
    return context.ports.commands.run(
        tuple(given["argv"]),
        call.timeout_s,
        context.token,
        given.get("working_dir"),
        given.get("run_as"),
        given.get("environment"),
    )


def _command(call: Call, context: Context) -> CallOutcome:
    done = _run(call, context)
    if done.code == 0:
        return CallOutcome(ok=True, output=done.output, result=as_result(done.output))
    is_killed = done.code is None
    ended = f"killed: took longer than {call.timeout_s:g} s, or was cancelled" if is_killed else f"exit {done.code}"
    said = f"{ended}: {done.error or done.output}".rstrip(": ")
    trouble = Trouble.TIMEOUT if is_killed else Trouble.REFUSED
    return CallOutcome(ok=False, output=done.output, error=said, trouble=trouble)


def _command_ok(call: Call, context: Context) -> CheckOutcome:
    """Exit code 0 is a yes, 1 a no; any other says that the program could not tell."""
    done = _run(call, context)
    answer = {0: Answer.YES, 1: Answer.NO}.get(-1 if done.code is None else done.code, Answer.UNKNOWN)
    said = done.error or done.output
    return CheckOutcome(answer, f"exit {'(killed: out of time)' if done.code is None else done.code} {said}".strip())


FAMILY: Final = Family(acts={CallType.COMMAND: _command}, looks={CallType.COMMAND_OK: _command_ok})
