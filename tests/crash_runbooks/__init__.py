"""The crash matrix of runbooks: the real daemon gets a real SIGKILL at every fail point of every shipped runbook."""
