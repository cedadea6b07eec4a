"""What a configuration file may say, and how it is read. Knows nothing of actors, runbooks or links."""

from config.errors import ConfigError, Problem
from config.loader import DEMO, ending_with, find_config, load_config, parse_config, resolve_state_dir
from config.models import SystemConfig

__all__ = [
    "DEMO",
    "ConfigError",
    "Problem",
    "SystemConfig",
    "ending_with",
    "find_config",
    "load_config",
    "parse_config",
    "resolve_state_dir",
]
