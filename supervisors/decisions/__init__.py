"""The supervisor's judgement as pure functions: no thread, clock, pykka or I/O below here."""
