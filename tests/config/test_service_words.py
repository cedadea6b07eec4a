"""Limits, users, environment files and secrets in a file: what may be said, and what is told of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.runtimes.settings import EnvironmentFile, EnvironmentSources, Limit, ProcessSettings, SecretFile
from config import ConfigError, parse_config
from config.models import ServiceConfig
from supervisors.service_plans import service_plan


def service(words: str) -> ServiceConfig:
    return parse_config("f", f"services:\n  a: {{command: [x], {words}}}\nversion: 1\n", {}, Path("/base")).services[
        "a"
    ]


def problem(words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config("f", f"services:\n  a: {{{words}}}\nversion: 1\n", {}, Path("/base"))
    (one,) = caught.value.problems
    return str(one).removeprefix("f:2: services.")


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        ("1024", (1024, 1024)),
        ("'1024'", (1024, 1024)),
        ("'64:128'", (64, 128)),
        ("64MiB", (64 * 2**20, 64 * 2**20)),
        ("'1MiB:unlimited'", (2**20, -1)),
        ("unlimited", (-1, -1)),
        ("0", (0, 0)),
    ],
)
def test_limits(written: str, limit: tuple[int, int]) -> None:
    assert service(f"limits: {{nofile: {written}}}").limits == {"nofile": limit}


def test_everything_reaches_the_launch() -> None:
    words = (
        "limits: {nofile: '64:128', as: 1GiB}, nice: -5, umask: '027', user: 1000, group: www, groups: [a, 7],"
        "environment_files: [one.env, -/etc/two.env], environment: {A: b},"
        "secrets: {DB: {file: db.secret}, KEY: {file: /k, as_file: true, world_readable: true}}"
    )
    launch = service_plan("a", service(words), Path("/logs")).launch
    assert launch.settings == ProcessSettings(
        (Limit("as", 2**30, 2**30), Limit("nofile", 64, 128)), -5, 0o027, "1000", "www", ("a", "7")
    )
    assert launch.sources == EnvironmentSources(
        (EnvironmentFile(Path("/base/one.env")), EnvironmentFile(Path("/etc/two.env"), is_optional=True)),
        {
            "DB": SecretFile(Path("/base/db.secret")),
            "KEY": SecretFile(Path("/k"), is_path_passed=True, may_be_world_readable=True),
        },
    )


def test_a_service_that_asks_for_nothing_gets_nothing() -> None:
    launch = service_plan("a", service("nice: null"), Path("/logs")).launch
    assert launch.settings == ProcessSettings()
    assert not launch.sources


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("limits: {nofiles: 1}", "a.limits.nofiles: 'nofiles' is not one of as, core, cpu"),
        ("limits: {nofile: lots}", "a.limits.nofile: 'lots' is no limit; write it as 1024, 1024:4096, 64MiB or"),
        ("limits: {nofile: -5}", "a.limits.nofile: -5 is no limit"),
        ("limits: {nofile: true}", "a.limits.nofile: True is no limit"),
        ("limits: {nofile: '5:3'}", "a.limits.nofile: has a soft limit above its hard one"),
        ("limits: {nofile: 'unlimited:3'}", "a.limits.nofile: has a soft limit above its hard one"),
        ("nice: 20", "a.nice: 20 is too large; the most is 19"),
        ("umask: 027", 'a.umask: 23 is no umask; write it in quotes: "027"'),
        ("umask: '999'", "a.umask: '999' is no umask"),
        ("group: 4294967297", "a.group: 4294967297 is no number of a user or group: the biggest is 4294967294"),
        ("user: 4294967295", "a.user: 4294967295 is no number of a user or group: the biggest is 4294967294"),
        ("groups: [1, '99999999999999999999']", "a.groups[1]: '99999999999999999999' is no number of a user or group"),
        ("user: 'a b'", "a.user: 'a b' is no name or number of a user or group"),
        ("groups: [':']", "a.groups[0]: ':' is no name or number of a user or group"),
        ("environment_files: one", "a.environment_files: 'one' is no list"),
        ("secrets: {A-B: {file: x}}", "a.secrets.A-B: 'A-B' is no name of a variable"),
        ("secrets: {SELFHEAL_TOKEN: {file: x}}", "a.secrets.SELFHEAL_TOKEN: 'SELFHEAL_TOKEN' is a variable of the"),
        ("secrets: {A: {}}", "a.secrets.A.file: is missing"),
        ("environment: {A: x}, secrets: {A: {file: x}}", "a: A stands in environment and in secrets; keep one"),
    ],
)
def test_what_cannot_be_is_told(words: str, told: str) -> None:
    assert problem(f"command: [x], {words}").startswith(told)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (f"environment_files: [{'x' * 256}]", "environment_files[0]"),
        (f"environment_files: [-/{'x/' * 2100}]", "environment_files[0]"),
        (f"working_dir: /{'x' * 256}", "working_dir"),
        (f"secrets: {{A: {{file: {'x' * 256}}}}}", "secrets.A.file"),
    ],
    ids=["name", "path", "working_dir", "secret"],
)
def test_a_path_that_no_file_can_have_is_told(words: str, key: str) -> None:
    told = problem(f"command: [x], {words}")
    assert told.startswith(f"a.{key}: ")
    assert "is too long for a path: at most 255 bytes a name and 4095 in all" in told


def test_a_zero_byte_in_a_path_is_told() -> None:
    assert "is no name of a file: it holds a zero byte" in problem('command: [x], environment_files: ["a\\0b"]')


def test_a_secret_written_into_the_file_by_mistake_is_not_repeated() -> None:
    told = problem("command: [x], secrets: {DB: hunter2}")
    assert told.startswith("a.secrets.DB:")
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("image: i, nice: 3", "nice needs runtime: process"),
        ("image: i, umask: '022'", "umask needs runtime: process"),
        ("image: i, limits: {as: 1}", "limits.as needs runtime: process"),
        ("image: i, group: x", "group needs a user beside it"),
        ("image: i, secrets: {A: {file: x, as_file: true}}", "secrets.A.as_file needs runtime: process"),
        ("image: i, network: host, ports: ['80:80']", "ports cannot be given with network: host"),
        ("image: i, network: 'container:x', ports: ['80']", "ports cannot be given with network: container:x"),
        ("container: c, limits: {nofile: 1}", "limits needs an image: this container is made by somebody else"),
        ("container: c, user: x", "user needs an image"),
        ("container: c, environment_files: [x]", "environment_files needs an image"),
        ("compose: {project: p, service: s}, secrets: {A: {file: x}}", "secrets needs an image"),
    ],
)
def test_what_no_engine_can_do_is_refused_at_load(words: str, told: str) -> None:
    assert told in problem(f"runtime: docker, {words}")


def test_what_an_engine_can_do_is_taken() -> None:
    words: dict[str, Any] = {"limits": {"nofile": 5}, "user": "x", "group": "y", "secrets": {"A": {"file": "x"}}}
    made = ServiceConfig.model_validate({"runtime": "docker", "image": "i", **words})
    assert (made.user, made.limits) == ("x", {"nofile": (5, 5)})


def test_the_examples_of_the_documentation_are_good() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "services.md"
    examples = page.read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert len(examples) == 4
    for example in examples:
        (web,) = parse_config(str(page), example.partition("```")[0], {}, page.parent).services.values()
        assert web.limits.get("memlock", (0, 0))[1] <= 8 * 2**20, (
            "the usual hard limit, which root may not raise everywhere"
        )
