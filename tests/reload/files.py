"""Random configuration files for the reload tests: services that sleep, groups of all strategies, replicas, and the
settings of our own that are changed in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from config import SystemConfig, parse_config
from config.replicas import expanded

NAMES = ("a", "b", "c", "d", "e", "f")
"""For services and groups alike: what is a group in one file may be a service in the next."""
SLEEPS = ("1000", "1001")
FOLDERS = ("/", "/proc", "/tmp")
"""Places that are there: of each file some are its runbook directories."""
STRATEGIES = ("one_for_one", "rest_for_one", "one_for_all")


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """A file's data. Dependencies go from later to earlier names, so that nothing waits for itself."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5))
    services: dict[str, Any] = {}
    for name in names:
        services[name] = {
            "command": ["sleep", draw(st.sampled_from(SLEEPS))],
            "max_restarts": draw(st.integers(1, 3)),
            "restart_policy": draw(st.sampled_from(["always", "on_failure"])),
            "graceful_shutdown_timeout": draw(st.sampled_from(["3s", "4s"])),
            "replicas": draw(st.sampled_from([1, 1, 1, 1, 0, 2, 3])),
        }
    free = draw(st.permutations(names))
    groups = {}
    for group in draw(st.permutations([name for name in NAMES if name not in names]))[:2]:
        members = [free.pop() for _ in range(draw(st.integers(0, 2))) if free]
        if members:
            groups[group] = {"strategy": draw(st.sampled_from(STRATEGIES)), "services": members}
    own = {
        "runbooks": {"directories": draw(st.lists(st.sampled_from(FOLDERS), unique=True))},
        "watch": {"every": draw(st.sampled_from(["5s", "6s"])), "box": {"cpu_percent": draw(st.integers(50, 52))}},
    }
    return {"version": 1, "services": services, "groups": groups} | own


def parsed(data: dict[str, Any]) -> SystemConfig:
    text = yaml.safe_dump({"version": 1} | data, sort_keys=False)
    return parse_config("selfheal.yaml", text, {}, Path("/base"))


def nodes(data: dict[str, Any]) -> SystemConfig:
    """The configuration with one service a node."""
    return expanded(parsed(data)).config
