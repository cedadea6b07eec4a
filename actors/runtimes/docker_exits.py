"""Why a container ended. Pure: from its exit code, the engine's OOM flag and the events seen shortly before.

Code 137 alone says nothing: it is an OOM kill, ``docker kill``, the hard end of a ``docker stop`` or a kill from the
host. The ``stop`` event comes only after ``die``; a wish to stop shows by the ``kill`` event with the container's own
stop signal before it. That wish is the cause of an end that looks like one: exit 0, the stop signal itself, or the
engine's SIGKILL when the grace was over. Any other end (an exit code of the program's own, a crash on the way down) is
an answer to the signal only while the engine's own grace lasts; later it is a crash of a program that had ignored it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.runtimes.base import ExitStatus

STOP_WISH_S: Final = 60.0
"""How long a polite stop may take to still count as the cause of an end that looks like one."""
STOP_ANSWER_S: Final = 10.0
"""The engine's own grace: how long any other end counts as the answer to a polite stop."""
KILL_S: Final = 2.0
_SIGKILL: Final = 9
_SIGTERM: Final = 15
_MAX_SIGNAL: Final = 64


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """One event of the engine; ``at`` is Unix seconds by the engine's clock."""

    container_id: str
    action: str
    at: float
    exit_code: int | None = None
    signal: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The container's name and labels, among others."""


def read_event(raw: Mapping[str, Any]) -> ContainerEvent | None:
    """The event in a decoded line of the stream; None when it is of no use. ``health_status: healthy`` is cut."""
    actor = raw.get("Actor") or {}
    container_id = actor.get("ID") or raw.get("id")
    action = str(raw.get("Action") or raw.get("status") or "").partition(":")[0]
    if not container_id or not action:
        return None
    attributes = actor.get("Attributes") or {}
    at = raw["timeNano"] / 1e9 if "timeNano" in raw else float(raw.get("time") or 0)
    return ContainerEvent(
        str(container_id),
        action,
        at,
        _number(attributes.get("exitCode")),
        _number(attributes.get("signal")),
        attributes,
    )


KILL_TOLD_LATE_S: Final = 0.5
"""The engine notes a signal when it was sent: a quick process has ended by then."""


def classify(
    *,
    code: int | None,
    oom_killed: bool,
    asked: bool,
    at: float,
    events: Iterable[ContainerEvent] = (),
    stop_signal: int = _SIGTERM,
) -> ExitStatus:
    """How the run ended.

    Args:
        code: the engine's exit code; 128 + n for signal n.
        oom_killed: by the kernel, also when the main process itself ended with 0.
        asked: our own stop or kill.
        at: when, Unix seconds.
        events: this run's events up to its end.
        stop_signal: what ``docker stop`` sends to this container.
    """
    number = code - 128 if code is not None and 128 < code <= 128 + _MAX_SIGNAL else None
    if asked:
        return ExitStatus(_plain(code, number), code, number, oom_killed=oom_killed, asked=True, at=at)
    seen = list(events)
    if oom_killed or any(event.action == "oom" and at - event.at <= KILL_S for event in seen):
        return ExitStatus("OOM", code, number, oom_killed=True, at=at)
    kills = [event for event in seen if event.action == "kill" and event.at <= at + KILL_TOLD_LATE_S]
    is_stop_like = code == 0 or number in (stop_signal, _SIGKILL)
    wish_s = STOP_WISH_S if is_stop_like else STOP_ANSWER_S
    if any(event.signal == stop_signal and at - event.at <= wish_s for event in kills):
        cause = "docker stop" if is_stop_like else f"docker stop, {_plain(code, number)}"
        return ExitStatus(cause, code, number, stopped_by_hand=True, at=at)
    if any(event.signal == _SIGKILL and at - event.at <= KILL_S for event in kills):
        return ExitStatus("docker kill", code, number, at=at)
    return ExitStatus(_plain(code, number), code, number, at=at)


def signal_number(name: str | None) -> int:
    """The number of a stop signal as the engine writes it: ``SIGQUIT``, ``QUIT``, ``3`` or nothing (SIGTERM)."""
    if not name:
        return _SIGTERM
    if name.isdigit():
        return int(name)
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")].value
    except KeyError:
        return _SIGTERM


def _plain(code: int | None, number: int | None) -> str:
    if number is not None:
        try:
            return f"signal {signal.Signals(number).name}"
        except ValueError:
            return f"signal {number}"
    return "unknown" if code is None else f"exit {code}"


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdigit() else None
