"""How bridge endpoints are reached: one transport a kind, each with its own thread or none."""
