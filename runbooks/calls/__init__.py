"""How each call of a runbook is made: one module per family, joined in ``runbooks.steps``."""
