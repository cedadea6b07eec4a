"""The pure part of the Docker runtime: causes, ports, labels, times. No engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.runtimes.base import ContainerSpec, LaunchError, LaunchSpec
from actors.runtimes.docker_exits import ContainerEvent, classify, read_event, signal_number
from actors.runtimes.docker_spec import (
    LABEL_VARIABLES,
    create_arguments,
    is_ours,
    parse_ports,
    spec_hash,
    unix_time,
)
from actors.runtimes.settings import EnvironmentFile, EnvironmentSources, Limit, ProcessSettings

SPEC = LaunchSpec("a", ("run",), environment={"K": "v"}, container=ContainerSpec(image="i:1"))


def kill(number: int, at: float) -> ContainerEvent:
    return ContainerEvent("c", "kill", at, signal=number)


@pytest.mark.parametrize(
    ("code", "oom", "events", "cause", "by_hand"),
    [
        (7, False, [], "exit 7", False),
        (0, False, [], "exit 0", False),
        (137, False, [], "signal SIGKILL", False),
        (139, False, [], "signal SIGSEGV", False),
        (137, True, [], "OOM", False),
        (0, True, [], "OOM", False),
        (0, False, [ContainerEvent("c", "oom", 99.0)], "OOM", False),
        (0, False, [ContainerEvent("c", "oom", 50.0)], "exit 0", False),
        (137, False, [kill(9, 99.9)], "docker kill", False),
        (137, False, [kill(9, 50.0)], "signal SIGKILL", False),
        (137, False, [kill(15, 90.0), kill(9, 99.9)], "docker stop", True),
        (143, False, [kill(15, 99.0)], "docker stop", True),
        (0, False, [kill(15, 50.0)], "docker stop", True),
        (1, False, [kill(15, 10.0)], "exit 1", False),
        (1, False, [kill(1, 99.9)], "exit 1", False),
        (1, False, [kill(15, 99.0)], "docker stop, exit 1", True),
        (1, False, [kill(15, 89.0)], "exit 1", False),
        (139, False, [kill(15, 45.0)], "signal SIGSEGV", False),
        (134, False, [kill(15, 80.0)], "signal SIGABRT", False),
        (139, False, [kill(15, 99.0)], "docker stop, signal SIGSEGV", True),
        (143, False, [kill(15, 45.0)], "docker stop", True),
        (137, False, [kill(15, 45.0)], "docker stop", True),
        (None, False, [kill(15, 80.0)], "unknown", False),
        (None, False, [], "unknown", False),
        (255, False, [], "exit 255", False),
    ],
)
def test_why_it_ended(code: int | None, oom: bool, events: list[ContainerEvent], cause: str, by_hand: bool) -> None:
    status = classify(code=code, oom_killed=oom, asked=False, at=100.0, events=events)
    assert (status.cause, status.stopped_by_hand, status.code) == (cause, by_hand, code)
    assert status.is_clean == (cause == "exit 0" or (by_hand and code == 0))


def test_our_own_stop_is_nobody_s_hand() -> None:
    status = classify(code=143, oom_killed=False, asked=True, at=100.0, events=[kill(15, 99.0)])
    assert (status.asked, status.stopped_by_hand, status.cause, status.signal) == (True, False, "signal SIGTERM", 15)


def test_a_container_with_its_own_stop_signal() -> None:
    events = [kill(3, 99.0)]
    assert classify(code=0, oom_killed=False, asked=False, at=100.0, events=events, stop_signal=3).stopped_by_hand
    assert not classify(code=0, oom_killed=False, asked=False, at=100.0, events=events).stopped_by_hand


@pytest.mark.parametrize(("name", "number"), [(None, 15), ("", 15), ("SIGQUIT", 3), ("QUIT", 3), ("3", 3), ("??", 15)])
def test_stop_signals(name: str | None, number: int) -> None:
    assert signal_number(name) == number


def test_events_are_read() -> None:
    raw = {
        "Action": "die",
        "Actor": {"ID": "c", "Attributes": {"exitCode": "7", "name": "x"}},
        "timeNano": 1_500_000_000,
    }
    assert read_event(raw) == ContainerEvent("c", "die", 1.5, exit_code=7)
    cut = read_event({"Action": "health_status: healthy", "Actor": {"ID": "c"}, "time": 2})
    assert cut == ContainerEvent("c", "health_status", 2.0)
    assert read_event({"Action": "die"}) is None


@pytest.mark.parametrize(
    ("ports", "parsed"),
    [
        (("127.0.0.1:6379:6379",), {"6379/tcp": ("127.0.0.1", 6379)}),
        (("8080:80",), {"80/tcp": ("127.0.0.1", 8080)}),
        (("0.0.0.0:8080:80/udp",), {"80/udp": ("0.0.0.0", 8080)}),
        (("80",), {"80/tcp": ("127.0.0.1",)}),
        (("1:80", "2:80"), {"80/tcp": [("127.0.0.1", 1), ("127.0.0.1", 2)]}),
        (("[::1]:8080:80",), {"80/tcp": ("::1", 8080)}),
    ],
)
def test_ports(ports: tuple[str, ...], parsed: dict[str, object]) -> None:
    assert parse_ports("a", ports) == parsed


@pytest.mark.parametrize("port", ["", "http", "1:2:3:4", "localhost:80:80", "80/sctp!"])
def test_a_port_that_cannot_be_read(port: str) -> None:
    with pytest.raises(LaunchError, match="cannot be read"):
        parse_ports("a", (port,))


def test_the_hash_changes_with_all_that_makes_the_container_and_with_nothing_else() -> None:
    base = spec_hash(SPEC)
    assert spec_hash(replace(SPEC, log_path=Path("/elsewhere"))) == base
    assert SPEC.container is not None
    container = SPEC.container
    changed = [
        replace(SPEC, command=("other",)),
        replace(SPEC, environment={"K": "w"}),
        replace(SPEC, working_dir=Path("/w")),
        replace(SPEC, memory_bytes=1),
        replace(SPEC, log_max_bytes=1),
        replace(SPEC, container=replace(container, image="i:2")),
        replace(SPEC, container=replace(container, ports=("80",))),
        replace(SPEC, container=replace(container, volumes=("/a:/b",))),
        replace(SPEC, container=replace(container, network="n")),
    ]
    assert len({spec_hash(spec) for spec in changed} | {base}) == len(changed) + 1


def test_what_makes_a_container_ours() -> None:
    labels = create_arguments(SPEC, 1, "me")["labels"]
    assert is_ours(labels, "me", "a")
    assert not is_ours(labels, "me", "b")
    assert not is_ours(labels, "you", "a")
    assert not is_ours(None, "me", "a")


def test_no_restart_policy_beside_ours_and_an_init() -> None:
    arguments = create_arguments(SPEC, 1, "me")
    assert arguments["restart_policy"] == {"Name": "no"}
    assert arguments["init"] is True


def test_engine_times() -> None:
    assert unix_time("1970-01-01T00:01:00.5Z") == 60.5
    assert unix_time("1970-01-01T00:01:00Z") == 60.0
    assert unix_time("0001-01-01T00:00:00Z") == 0.0
    assert unix_time("2026-11-24T00:29:55.047122062Z") == pytest.approx(1795480195.047122)


def test_limits_and_users_are_told_to_the_engine() -> None:
    limits = (Limit("nofile", 64, 128), Limit("core", -1, -1))
    spec = replace(SPEC, settings=ProcessSettings(limits, user="1000", group="www", groups=("7", "video")))
    made = create_arguments(spec, 1, "x")
    assert made["user"] == "1000:www"
    assert made["group_add"] == ["7", "video"]
    assert made["ulimits"] == [
        {"Name": "nofile", "Soft": 64, "Hard": 128},
        {"Name": "core", "Soft": -1, "Hard": -1},
    ]
    assert spec_hash(spec) != spec_hash(SPEC)
    assert not {"user", "group_add", "ulimits", "environment_files"} & create_arguments(SPEC, 1, "x").keys()


def test_changed_values_of_files_are_seen_at_a_start_and_not_at_an_adoption() -> None:
    spec = replace(SPEC, sources=EnvironmentSources((EnvironmentFile(Path("/etc/env")),)))
    first = create_arguments(spec, 1, "x", {"K": "one"})
    second = create_arguments(spec, 1, "x", {"K": "two"})
    assert first["environment"] == {"K": "one", "SELFHEAL_SERVICE": "a"}
    assert spec_hash(spec) != spec_hash(SPEC)
    assert first["labels"]["selfheal.spec_hash"] == second["labels"]["selfheal.spec_hash"] == spec_hash(spec)
    assert first["labels"][LABEL_VARIABLES] != second["labels"][LABEL_VARIABLES]
    assert LABEL_VARIABLES not in create_arguments(SPEC, 1, "x")["labels"]
