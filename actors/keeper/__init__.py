"""The keeper: one small process per state directory that is the parent of all service processes.

It spawns on request, keeps how each process ended until the daemon has fetched it, starts an *armed* service again at
once by itself, rotates logs while no daemon lives, and replaces a daemon that is frozen. It outlives the daemon. One
thread, standard library only: a small process forks cheaply, starts in milliseconds and has little that can fail.

``main`` runs in the keeper's process, ``client`` in the daemon's; ``words`` is what they say to each other.
"""
