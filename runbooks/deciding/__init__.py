"""Whether a run may begin, and which one next: the pure rules behind ``matching.decide`` and the guardian's queue."""
