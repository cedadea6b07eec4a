"""The commands, one file for what belongs together."""
