"""``python -m supervisors.cli``: the same as ``selfheal``."""

from supervisors.cli import main

main()
