"""The crash matrix: the real daemon and its keeper are killed at every fail point, alone, together and twice in a row.

``python -m tests.crash`` runs it. Nothing here runs inside the daemon; the world is looked at from outside.
"""
