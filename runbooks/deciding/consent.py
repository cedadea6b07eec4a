"""Whether somebody must agree before a runbook does anything. Pure."""

from __future__ import annotations

from typing import Final

from runbooks.model import RequiredWhen, Risk, Runbook

_ORDER: Final = tuple(Risk)
_FROM: Final = {RequiredWhen.ALWAYS: Risk.LOW, RequiredWhen.MEDIUM: Risk.MEDIUM, RequiredWhen.HIGH: Risk.HIGH}


def needs_approval(runbook: Runbook) -> bool:
    """Its own word with the risk of its worst action; or one of its actions asks for confirmation."""
    if any(action.requires_confirmation for action in runbook.actions):
        return True
    if runbook.approval is None:
        return False
    worst = max((_ORDER.index(action.risk) for action in runbook.actions), default=0)
    return worst >= _ORDER.index(_FROM[runbook.approval.required_when])
