"""The init: what ``selfheal run`` becomes as PID 1 of a container (or with ``--init``).

It starts the real daemon as its child, reaps everything that falls to it, passes signals on, starts a daemon that
crashed again (which adopts what lives), and ends with the daemon's exit code. One thread, standard library only: PID 1
must not die. It is entered by ``exec``, so nothing of the command line's imports stays behind.

``process`` runs as the init, ``link`` in the daemon; ``judgement`` is pure.
"""
