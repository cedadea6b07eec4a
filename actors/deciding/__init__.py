"""The parts of the guardian actor: what it is told, what it knows, its queue, and what it does later."""
