"""What a family of calls is: how its acting calls are made, its looks taken, and what was before remembered.

Everything here may block, up to the call's ``timeout_s``, and runs on the I/O pool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runbooks.engine_words import Answer, Snapshot, Try
from runbooks.model import Call, CallType, Trouble
from runbooks.ports import Ports


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """``result`` is what the call gave back as a JSON value, for the ``outputs`` of its step. ``trouble``: the class of
    its failure. ``is_untouched``: it failed before anything was changed.
    """

    ok: bool
    output: str = ""
    error: str = ""
    result: Any = None
    trouble: Trouble = Trouble.OTHER
    is_untouched: bool = False


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """``seen`` is the value that was looked at (JSON), where a look gives one: an approval is bound to it.
    ``is_untouched``, of a probe's no: nothing of what it was asked about was ever begun.
    """

    answer: Answer
    detail: str = ""
    seen: Any = None
    is_untouched: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What a call is made with. ``token`` (the execution's id) marks what it starts, so that it can be found again;
    ``of`` says which attempt of which step it belongs to; ``names_secrets``: what stands where the call puts a secret
    may be one, too, and is not quoted.
    """

    snapshot: Snapshot
    ports: Ports
    token: str
    of: Try | None = None
    names_secrets: bool = False


Act = Callable[[Call, Context], CallOutcome]
Look = Callable[[Call, Context], CheckOutcome]
Before = Callable[[Call, Context], tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Family:
    """``acts`` and ``looks`` raise PortError for "failed" and "nobody can tell"; ``befores`` give the name and the
    JSON value under which what the call touches is remembered, and raise PortError when nobody can tell.
    """

    acts: Mapping[CallType, Act] = field(default_factory=dict)
    looks: Mapping[CallType, Look] = field(default_factory=dict)
    befores: Mapping[CallType, Before] = field(default_factory=dict)


def yes_no(is_so: bool, detail: str) -> CheckOutcome:
    return CheckOutcome(Answer.YES if is_so else Answer.NO, detail)


def as_result(said: str) -> Any:
    """What somebody wrote, for the ``outputs`` of a step: its JSON table or list; all else under ``output``."""
    try:
        value = json.loads(said)
    except ValueError:
        value = said
    return value if isinstance(value, (dict, list)) else {"output": value}
