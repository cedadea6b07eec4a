"""Which specs and flags are taken. Pure; the kinds of refusal are OTP's."""

from __future__ import annotations

from collections.abc import Iterable

from actors.spec import BadSpec, ChildSpec, Restart, parse_child_spec
from supervisors.decisions.model import AutoShutdown, Flags, Strategy


def check_flags(flags: Flags) -> None:
    """Raises:
    BadSpec: invalid_strategy, invalid_intensity, invalid_period, invalid_auto_shutdown.
    """
    if not isinstance(flags.strategy, Strategy):
        raise BadSpec("invalid_strategy", repr(flags.strategy))
    if not _is_number(flags.intensity) or int(flags.intensity) != flags.intensity or flags.intensity < 0:
        raise BadSpec("invalid_intensity", repr(flags.intensity))
    if not _is_number(flags.period_s) or flags.period_s <= 0:
        raise BadSpec("invalid_period", repr(flags.period_s))
    if not isinstance(flags.auto_shutdown, AutoShutdown):
        raise BadSpec("invalid_auto_shutdown", repr(flags.auto_shutdown))


def check_child(raw: object, flags: Flags) -> ChildSpec:
    """A spec this supervisor may take.

    Raises:
        BadSpec: the kinds of ``parse_child_spec``, and bad_combination for a significant child that could never end
            the supervisor (OTP).
    """
    spec = parse_child_spec(raw)
    if spec.significant and spec.restart is Restart.PERMANENT:
        raise BadSpec("bad_combination", f"child {spec.id!r}: significant and permanent")
    if spec.significant and flags.auto_shutdown is AutoShutdown.NEVER:
        raise BadSpec("bad_combination", f"child {spec.id!r}: significant, but auto_shutdown is never")
    return spec


def check_children(raw: Iterable[object], flags: Flags) -> tuple[ChildSpec, ...]:
    """Raises:
    BadSpec: also duplicate_child_name.
    """
    specs = tuple(check_child(one, flags) for one in raw)
    seen: set[str] = set()
    for spec in specs:
        if spec.id in seen:
            raise BadSpec("duplicate_child_name", spec.id)
        seen.add(spec.id)
    return specs


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
