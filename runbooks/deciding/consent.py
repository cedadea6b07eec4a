"""Whether somebody must agree before a runbook does anything: see ``runbooks.approval``. Pure."""

from __future__ import annotations

from runbooks.approval import needs_approval

__all__ = ["needs_approval"]
