"""One service as several nodes: names, numbers, places in the group, and what cannot be multiplied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config import ConfigError, SystemConfig, parse_config
from config.replicas import expanded


def config(services: dict[str, Any], **more: Any) -> SystemConfig:
    return parse_config(
        "f.yaml", yaml.safe_dump({"version": 1, "services": services} | more, sort_keys=False), {}, Path("/f")
    )


def test_replicas_are_nodes_right_behind_each_other() -> None:
    worker = {"command": ["w", "--port", "{8080+replica}"], "environment": {"NAME": "w-{replica}"}, "replicas": 3}
    one = {"command": ["x"]}
    groups = {"g": {"strategy": "rest_for_one", "services": ["a", "worker", "b"]}}
    made = expanded(config({"a": one, "worker": worker, "b": one}, groups=groups))
    assert list(made.config.services) == ["a", "worker", "worker.2", "worker.3", "b"]
    assert made.config.groups["g"].services == ("a", "worker", "worker.2", "worker.3", "b")
    assert made.families["worker"] == ("worker", "worker.2", "worker.3")
    third = made.config.services["worker.3"]
    assert third.command == ("w", "--port", "8083")
    assert third.environment == {"SELFHEAL_REPLICA": "3", "NAME": "w-3"}


def test_a_remembered_scale_wins_over_the_file_and_touches_no_other_replica() -> None:
    given = config({"worker": {"command": ["w"], "replicas": 2}})
    two, four = expanded(given), expanded(given, {"worker": 4})
    assert len(four.families["worker"]) == 4
    for name, service in two.config.services.items():
        assert four.config.services[name] == service


def test_scaled_to_nothing_keeps_the_node() -> None:
    made = expanded(config({"worker": {"command": ["w"], "replicas": 2}}), {"worker": 0})
    assert [(name, one.replicas) for name, one in made.config.services.items()] == [("worker", 0)]


def test_health_checks_can_differ_by_replica() -> None:
    checked = {"command": ["w"], "health_check": {"tcp": "127.0.0.1:{7000+replica}"}, "replicas": 2}
    made = expanded(config({"w": checked}))
    check = made.config.services["w.2"].health_check
    assert check is not None
    assert check.tcp == "127.0.0.1:7002"


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ({"runtime": "docker", "container": "db"}, "an attached container is one container"),
        ({"runtime": "docker", "image": "i", "ports": ["80:80"]}, "port '80:80' is published for one replica only"),
        ({"command": ["w"], "health_check": {"tcp": "127.0.0.1:7000"}}, "all would be asked at '127.0.0.1:7000'"),
    ],
)
def test_what_cannot_be_multiplied_is_refused_with_its_place(service: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config({"w": service | {"replicas": 2}})
    assert [problem.key for problem in caught.value.problems] == ["services.w.replicas"]
    assert text in str(caught.value)
    alone = expanded(config({"w": service}), {"w": 2})
    assert text in alone.ignored["w"]
    assert alone.families["w"] == ("w",)


def test_names_and_ports_of_replicas_that_clash_are_named() -> None:
    with pytest.raises(ConfigError, match=r"the name 'w\.2' of a replica is taken"):
        config({"w": {"command": ["w"], "replicas": 2}, "w.2": {"command": ["x"]}})
    with pytest.raises(ConfigError, match=r"services\.x\.health_check\.tcp.*7002 is used by service 'w\.2'"):
        config(
            {
                "w": {"command": ["w"], "replicas": 2, "health_check": {"tcp": "127.0.0.1:{7000+replica}"}},
                "x": {"command": ["x"], "health_check": {"tcp": "127.0.0.1:7002"}},
            }
        )
