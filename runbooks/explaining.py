"""Why an alert fits a runbook or not: every comparison that failed, with the alert's own value. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runbooks.matching import Rules, is_in_use, rank
from runbooks.model import AllOf, AnyOf, Facts, Not, Predicate, Runbook
from runbooks.parameters import BadParameter, resolve
from runbooks.plan import bind
from runbooks.predicates import holds, why_not
from runbooks.templating import BadTemplate


@dataclass(frozen=True, slots=True)
class Explained:
    """``reasons``: why it does not fit, all of them; of one that fits, why it cannot be begun."""

    runbook: str
    fits: bool
    in_use: bool
    reasons: tuple[str, ...]


def explained(alert: Facts, library: Rules) -> tuple[Explained, ...]:
    """Each runbook: first those that fit, in the order in which they are asked."""
    told = [(one, holds(one.match, alert)) for one in library.runbooks]
    ordered = sorted(told, key=lambda pair: (not pair[1], rank(pair[0])))
    return tuple(
        Explained(one.id, fits, is_in_use(one), tuple(_hindrances(one, alert) if fits else failures(one.match, alert)))
        for one, fits in ordered
    )


def failures(predicate: Predicate, alert: Facts) -> Iterator[str]:
    """Every comparison that does not hold. A missing field is said to be missing."""
    if holds(predicate, alert):
        return
    match predicate:
        case AllOf(parts):
            for part in parts:
                yield from failures(part, alert)
        case AnyOf(parts):
            yield "none of: " + "; or ".join(" and ".join(failures(part, alert)) for part in parts)
        case Not():
            yield why_not(predicate, alert)
        case _:
            yield why_not(predicate, alert)


def _hindrances(runbook: Runbook, alert: Facts) -> Iterator[str]:
    if not runbook.enabled:
        yield "it is disabled"
    if runbook.mode.value != "auto":
        yield f"its mode is {runbook.mode.value}"
    try:
        bind(runbook, resolve(runbook.parameters, alert))
    except (BadParameter, BadTemplate) as bad:
        yield str(bad)
