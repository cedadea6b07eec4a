"""Every problem of a file is named at once, in its place, with what to do; a good file is read as it was meant."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config import DEMO, ConfigError, SystemConfig, find_config, load_config, parse_config, resolve_state_dir
from config.checks import ALL_CHECKS, shortest_delays_s
from config.json_schema import FILE, text
from config.models import BackoffConfig
from config.units import seconds, size_bytes

SHIPPED = [DEMO, DEMO.parent / "eafix.yaml"]


def problems(source: str, environ: dict[str, str] | None = None) -> list[str]:
    """What is wrong, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(source, environ)
    return [str(problem).removeprefix("f:") for problem in caught.value.problems]


def parse(source: str, environ: dict[str, str] | None = None) -> SystemConfig:
    return parse_config("f", whole(source), environ or {}, Path("/base"))


def whole(source: str) -> str:
    """With `version: 1` as its last line, when it is a mapping and says none."""
    try:
        node = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return source
    is_whole = not isinstance(node, yaml.MappingNode) or any(key.value == "version" for key, _ in node.value)
    return source if is_whole else f"{source}\nversion: 1\n"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_files_are_good(path: Path) -> None:
    config = load_config(path, {})
    twelve = [name for name in config.services if "peer" not in name and name != "redis"]
    assert len(twelve) == 12
    assert list(config.groups["pipeline"].services) == [
        "data-ingestor",
        "indicator-engine",
        "signal-generator",
        "risk-manager",
        "execution-engine",
    ]


GRID = {
    "services: {a: {comand: [x]}}": [
        "1: services.a.comand: unknown key; did you mean 'command'?",
    ],
    "services: {a: {description: x}}": ["1: services.a: a process needs a command, as a list: [python3, main.py]"],
    "recovry: {}": ["1: recovry: unknown key; did you mean 'recovery'?"],
    "services: {a: {command: [x], restart_policy: alwyas}}": [
        "1: services.a.restart_policy: 'alwyas' is not one of never, on_failure, always, unless_stopped; "
        "did you mean 'always'?"
    ],
    "services: {a: {command: x y}}": ["1: services.a.command: 'x y' is no list; write it as [a, b]"],
    "services: {a: {command: [x], within: 5x}}": [
        "1: services.a.within: '5x' is no duration; write it as 5s, 200ms or 1m30s"
    ],
    "services: {root: {command: [x]}}": ["1: services.root: 'root' is a name of the tree itself; choose another"],
    "services: {A: {command: [x]}}": [
        "1: services.A: 'A' is no usable name; use lowercase letters, digits, '-', '_' and '.'"
    ],
    "services: {a: {command: [x], image: y}}": ["1: services.a: image needs runtime: docker"],
    "services: {a: {runtime: docker}}": [
        "1: services.a: runtime docker needs exactly one of image, container and compose; it has none of them"
    ],
    "services: {a: {command: [x], health_check: {interval: 1s}}}": [
        "1: services.a.health_check: needs exactly one of http, tcp and exec; it has none of them"
    ],
    "services: {a: {command: [x], backoff: {initial: 5s, max: 1s}}}": [
        "1: services.a.backoff: initial (5 s) is more than max (1 s)"
    ],
    "services: {a: {command: [x], dependencies: [bb]}, b: {command: [x]}}": [
        "1: services.a.dependencies[0]: there is no service 'bb'; did you mean 'b'?"
    ],
    "services: {gate: {command: [x]}}\nbridges: {mql4: {kind: zeromq, service: gat}}": [
        "2: bridges.mql4.service: there is no service 'gat'; did you mean 'gate'?"
    ],
    "services:\n  a: {command: [x], dependencies: [b]}\n  b: {command: [x], dependencies: [c]}\n"
    "  c: {command: [x], dependencies: [a]}": [
        "2: services.a.dependencies: these wait for each other: a -> b -> c -> a; "
        "remove one of the dependencies, or change the group's order"
    ],
    "groups: {g: {strategy: rest_for_one, services: [a, b]}}\nservices:\n  a: {command: [x], dependencies: [b]}\n"
    "  b: {command: [x]}": [
        "3: services.a.dependencies: these wait for each other: a -> b -> a; "
        "remove one of the dependencies, or change the group's order"
    ],
    "groups: {g: {services: [a, a, c]}}\nservices: {a: {command: [x]}}": [
        "1: groups.g.services[1]: service 'a' is twice in this group; a service belongs to one group",
        "1: groups.g.services[2]: there is no service 'c'",
    ],
    "groups: {g: {services: [a]}, h: {services: [a]}}\nservices: {a: {command: [x]}}": [
        "1: groups.h.services[0]: service 'a' is in group 'g' already; a service belongs to one group"
    ],
    "groups: {a: {services: [a]}}\nservices: {a: {command: [x]}}": [
        "1: groups.a: 'a' is a name in services already; rename one of the two"
    ],
    "services:\n  a: {command: [x], health_check: {tcp: 'localhost:8090'}}": [
        "2: services.a.health_check.tcp: 127.0.0.1:8090 is used by link 'operator' too; give each its own port"
    ],
    "services:\n  a: {runtime: docker, image: i, ports: ['6379:6379']}\n"
    "  b: {runtime: docker, image: i, ports: ['127.0.0.1:6379:1']}": [
        "3: services.b.ports[0]: 127.0.0.1:6379 is used by service 'a' too; give each its own port"
    ],
    "links: {curve: false, guardian: {address: 'tcp://0.0.0.0:5570'}}": [
        "1: links.guardian.address: 'tcp://0.0.0.0:5570' is not on loopback, and links.curve is false; "
        "set links.curve: true, or bind tcp://127.0.0.1:5570"
    ],
    "links: {guardian: {address: 'tcp://*:5570'}}": [
        "1: links.guardian.address: 'tcp://*:5570' names no interface; write 0.0.0.0 for all of them"
    ],
    "links: {operator: {address: '0.0.0.0:8090'}}": [
        "1: links.operator.address: '0.0.0.0:8090' is not on loopback; bind 127.0.0.1:8090"
    ],
    "links: {events: {address: nowhere}}": [
        "1: links.events.address: 'nowhere' is no address; write it as tcp://127.0.0.1:5570"
    ],
    "links: {guardian: {address: beside}}": [
        "1: links.guardian.address: 'beside' is no address; write it as tcp://127.0.0.1:5570"
    ],
    "links: {operator: {address: 'tcp://127.0.0.1:1'}}": [
        "1: links.operator.address: 'tcp://127.0.0.1:1' is no address; write it as 127.0.0.1:8090"
    ],
    "services: {a: {command: [x], max_restarts: 50}}": [
        "1: services.a.max_restarts: 50 restarts take 1251.1 s of backoff: never within 60 s; "
        "lower max_restarts or the backoff, or raise within"
    ],
    "exit_with: jobb\nservices: {job: {command: [x]}}": [
        "1: exit_with: there is no service 'jobb'; did you mean 'job'?"
    ],
    "services: {a: {runtime: docker, container: c, replicas: 2}}": [
        "1: services.a.replicas: an attached container is one container: it cannot have replicas; or have one replica"
    ],
    "runbooks: {directories: [none]}": [
        "1: runbooks.directories[0]: /base/none is no folder; create it, or mend the path"
    ],
    "runbooks: {databases: {db: {url: 'postgresql://127.0.0.1/x'}}}": [
        "1: runbooks.databases.db: there is no such service; name the service that the database is"
    ],
    "runbooks: {databases: {db: {url: {secret: s}}}}\nservices: {db: {command: [x]}}": [
        "1: runbooks.databases.db.url.secret: there is no secret 's'; put it into secrets, with its file"
    ],
    "services: {a: {command: [x], limits: {files: 1}}}": [
        "1: services.a.limits.files: 'files' is not one of as, core, cpu, data, fsize, memlock, msgqueue, nofile, "
        "nproc, rss, rtprio, rttime, sigpending, stack; did you mean 'nofile'?"
    ],
    "services: {a: {command: [x], nice: 20, replicas: -1, within: 0s, working_dir: 5}}": [
        "1: services.a.nice: 20 is too large; the most is 19",
        "1: services.a.replicas: -1 is too small; the least is 0",
        "1: services.a.within: '0s' is too small; it must be more than 0",
        "1: services.a.working_dir: 5 is no path",
    ],
    "services: {a: {command: [x], health_check: {http: 'localhost:80/x'}}}": [
        "1: services.a.health_check.http: 'localhost:80/x' is no web address; write it as http://127.0.0.1:8081/healthz"
    ],
    "services: {a: {command: [x], health_check: {tcp: db}}}": [
        "1: services.a.health_check.tcp: 'db' is no address; write it as 127.0.0.1:5432",
    ],
    "links: {alertmanager: {types: {A: 'x y'}}}": [
        "1: links.alertmanager.types.A: 'x y' is no usable type; use letters, digits, '-', '_' and '.'"
    ],
    "runbooks: {databases: {db: {url: 'mysql://h/x'}}}": [
        "1: runbooks.databases.db.url: is no address of a database; "
        "it begins with postgresql://, redis://, rediss:// or unix://"
    ],
    "bridges: {m: {kind: tcp}}": ["1: bridges.m: kind tcp needs an address: 127.0.0.1:8765"],
    "version: 2": ["1: version: 2 is not one of 1"],
    "a: [": ["1: is no YAML: expected the node content, but found '<stream end>'"],
    "services: {<<: x}": [
        "1: services: cannot be merged: expected a mapping or list of mappings for merging, but found scalar"
    ],
    "- 1": ["1: must be a mapping of keys (version, services, ...)"],
    "services:\n  a: {command: [x]}\n  a: {command: [y]}": [
        "3: services.a: the key stands twice, first on line 2; keep one of them"
    ],
    "state_dir: ${NOWHERE}": [
        "1: state_dir: the environment variable NOWHERE is not set; set it, or write ${NOWHERE:-default}"
    ],
    "services: &x {a: *x}": [],
}


UNREAD = ("a: [", "- 1", "services: {<<: x}", "services: &x {a: *x}")
"""Of these nothing more can be said than that."""


@pytest.mark.parametrize("source", [one for one in GRID if GRID[one]])
def test_each_problem_has_its_words(source: str) -> None:
    assert problems(source) == GRID[source]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "f: is empty; a configuration begins with 'version: 1'"),
        ("\n# only a comment\n", "f: is empty; a configuration begins with 'version: 1'"),
        ("---\n...\n", "f:1: must be a mapping of keys (version, services, ...)"),
        ("null", "f:1: must be a mapping of keys (version, services, ...)"),
        ("{}", "f:1: version: is missing; write 'version: 1'"),
        ("services: {a: {command: [x]}}", "f:1: version: is missing; write 'version: 1'"),
        ("version:", "f:1: version: nothing is not one of 1"),
        ("version: 1\nservices:", "f:2: services: nothing is no mapping of names"),
    ],
)
def test_what_is_left_of_a_file_that_was_cut_off_is_no_configuration(source: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("f", source, {}, Path("/base"))
    assert str(caught.value) == said


@pytest.mark.parametrize("source", [one for one in GRID if one not in UNREAD])
def test_no_fault_hides_one_elsewhere(source: str) -> None:
    """Also what only the whole file shows is told beside it."""
    more = "secrets: {x: 5}\nnotifications: {channels: {o: {}}}\n"
    if "exit_with" not in source:
        more += "exit_with: nobody\n"
    found = "\n".join(problems(f"{source}\n{more}"))
    for line in GRID[source]:
        assert line in found
    for key in ("secrets.x: ", "notifications.channels.o: ", "exit_with: there is no service"):
        assert key in found


def test_an_unknown_limit_hides_nothing_and_brings_up_no_other() -> None:
    source = "groups: {g: {services: [a]}}\nservices: {a: {command: [x], limits: {files: 1}, dependencies: [zz]}}"
    found = problems(source)
    assert [line.split(": ")[1] for line in found] == ["services.a.dependencies[0]", "services.a.limits.files"]


def test_a_loop_of_aliases_is_refused() -> None:
    assert "goes too deep or repeats itself" in "\n".join(problems("services: &x {a: *x}"))


def test_every_check_is_needed() -> None:
    """Each whole-file check is the only one that sees some file of the grid."""
    seen = set()
    for source in GRID:
        try:
            data = yaml.safe_load(whole(source))
            config = SystemConfig.model_validate(data)
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        seen |= {check.__name__ for check in ALL_CHECKS if list(check(config))}
    assert seen == {check.__name__ for check in ALL_CHECKS}


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    found = problems("services:\n  a: {comand: [x]}\n  b: {command: [x], dependencies: [c]}\nversion: 3\nx: 1\n")
    assert [line.split(":")[0] for line in found] == ["2", "3", "4", "5"]


def test_no_problem_quotes_an_address_or_a_header() -> None:
    faults = (
        "alerting: {sinks: [{webhook: 'ftp://hunter2'}, {webhook: 'http://h', headers: {A: [hunter2]}}]}",
        "notifications: {channels: {a: {webhook: 'gopher://hunter2'}}}",
        "notifications: {channels: {a: {webhook: 'http://h/x', headers: {A: [hunter2]}}}}",
        "runbooks: {databases: {db: {url: 'mysql://u:hunter2@h/x'}, d2: 'redis://:hunter2@h'}}",
        "services: {a: {command: [x], health_check: {http: ['http://u:hunter2@h']}}}",
        "services: {a: {command: [x], health_check: {http: 'u:hunter2@h'}}}",
        "services: {a: {command: [x], health_check: {http: 'ftp://u:hunter2@h'}}}",
    )
    for fault in faults:
        said = problems(fault)
        assert said
        assert "hunter2" not in " ".join(said)


def test_a_value_of_the_environment_is_never_shown() -> None:
    (problem,) = problems("services: {a: {command: [x], environment: {PASSWORD: [hunter2]}}}")
    assert "PASSWORD" in problem
    assert "hunter2" not in problem


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_brings_a_config_error_and_nothing_else(data: st.DataObject) -> None:
    source = list(DEMO.read_text(encoding="utf-8"))
    pieces = ["", ":", "\n", "  ", "x", "{", "]", "'", "&a", "*a", "0", "!!", "- ", "<<: ", "${X}", "\t", "\0"]
    for _ in range(data.draw(st.integers(1, 4))):
        source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.sampled_from(pieces))
    with contextlib.suppress(ConfigError):
        parse("".join(source))


@pytest.mark.parametrize(
    ("written", "read"),
    [("5s", 5.0), ("200ms", 0.2), ("1m30s", 90.0), ("2h", 7200.0), ("1d", 86400.0), ("1.5s", 1.5), ("7", 7.0)],
)
def test_durations(written: str, read: float) -> None:
    assert seconds(written) == pytest.approx(read)


@pytest.mark.parametrize("written", ["", "s", "5 parsecs", "nan", "-", "5s5", "-9", "-1s"])
def test_what_is_no_duration(written: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(written)


@pytest.mark.parametrize(("written", "read"), [("256MiB", 2**28), ("1GB", 10**9), ("1.5KiB", 1536), ("12", 12)])
def test_sizes(written: str, read: int) -> None:
    assert size_bytes(written) == read
    with pytest.raises(ValueError, match="size"):
        size_bytes(written + "X")


def test_variables_defaults_and_paths() -> None:
    source = (
        "state_dir: ${WHERE:-state}\n"
        "services: {a: {command: ['${SELFHEAL_PYTHON}', '$${X}'], working_dir: w, environment: {N: 1, B: true}}}"
    )
    config = parse(source)
    assert config.state_dir == Path("/base/state")
    assert config.services["a"].command == (sys.executable, "${X}")
    assert config.services["a"].working_dir == Path("/base/w")
    assert config.services["a"].environment == {"N": "1", "B": "true"}
    exact = parse("services: {a: {command: [' x ', ''], environment: {V: 1.10, N: 007, directory: d, S: ' a '}}}")
    assert exact.services["a"].command == (" x ", "")
    assert exact.services["a"].environment == {"V": "1.10", "N": "007", "directory": "d", "S": " a "}
    assert parse(source, {"WHERE": "/var/x"}).state_dir == Path("/var/x")


def test_the_platforms_own_words() -> None:
    service = parse(
        "services: {a: {command: [x], restart_delay: 3s, health_check_url: 'http://h/healthz',"
        " required_resources: {memory_mb: 5, cpu_percent: 1.5, disk_mb: 2}}}"
    ).services["a"]
    assert service.backoff.initial == 3.0
    assert service.health_check is not None
    assert service.health_check.http == "http://h/healthz"
    assert problems("services: {a: {command: [x], restart_delay: 3s, backoff: {initial: 1s}}}") == [
        "1: services.a: restart_delay and backoff.initial say the same; keep one"
    ]


def test_the_shortest_delays_are_what_the_backoff_gives() -> None:
    plain = BackoffConfig(first=1, initial=2, factor=2, max=5, jitter=False)
    assert shortest_delays_s(plain, 5) == 1 + 2 + 4 + 5 + 5
    assert shortest_delays_s(plain.model_copy(update={"jitter": True}), 3) == 1 + 1 + 2
    assert shortest_delays_s(plain, 10**12) == shortest_delays_s(plain, 5) + (10**12 - 5) * 5, "and that at once"


def test_the_schema_is_in_step() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m config.json_schema"


def test_where_a_file_is_looked_for(tmp_path: Path) -> None:
    assert find_config(None, {}, tmp_path) == DEMO
    (tmp_path / "selfheal.yaml").touch()
    assert find_config(None, {}, tmp_path) == tmp_path / "selfheal.yaml"
    assert find_config(None, {"SELFHEAL_CONFIG": "e.yaml"}, tmp_path) == tmp_path / "e.yaml"
    assert find_config("a.yaml", {"SELFHEAL_CONFIG": "e.yaml"}, tmp_path) == tmp_path / "a.yaml"


def test_where_state_goes(tmp_path: Path) -> None:
    config = parse("state_dir: s")
    everything: dict[str, Any] = {"SELFHEAL_STATE": "/e", "XDG_STATE_HOME": "/x"}
    assert resolve_state_dir("/a", config, everything) == Path("/a")
    assert resolve_state_dir(None, config, everything) == Path("/base/s")
    assert resolve_state_dir(None, None, everything) == Path("/e")
    assert resolve_state_dir(None, None, {"XDG_STATE_HOME": "/x"}) == Path("/x/selfheal")
    assert resolve_state_dir(None, None, {}) == Path.home() / ".local/state/selfheal"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="there is no such file" if content is None else "not UTF-8"):
        load_config(path, {})


@pytest.mark.parametrize(
    ("links", "address"),
    [
        ("{}", "tcp://127.0.0.1:0"),
        ("{guardian: {address: 'tcp://127.0.0.2:7'}}", "tcp://127.0.0.2:0"),
        ("{events: {address: 'tcp://127.0.0.1:5572'}}", "tcp://127.0.0.1:5572"),
        ("{events: {address: null}}", None),
        ("{guardian: {address: null}}", None),
        ("{guardian: {address: null}, events: {address: 'tcp://127.0.0.1:5572'}}", None),
    ],
)
def test_where_events_are_published(tmp_path: Path, links: str, address: str | None) -> None:
    file = tmp_path / "selfheal.yaml"
    file.write_text(f"version: 1\nlinks: {links}\n")
    assert load_config(file, {}).links.events_address == address


def test_what_runbooks_may_touch_is_found_beside_the_file() -> None:
    written = (
        "runbooks: {files: {roots: [etc]}, cleanup: {roots: [log, /var/log], quarantine: aside}}\n"
        "secrets: {token: {file: keys/token}}\n"
    )
    config = parse(written)
    assert config.runbooks.files.roots == (Path("/base/etc"),)
    assert config.runbooks.cleanup.roots == (Path("/base/log"), Path("/var/log"))
    assert config.runbooks.cleanup.quarantine == Path("/base/aside")
    assert config.secrets["token"].file == Path("/base/keys/token")


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("{}", "say one of webhook, command and log"),
        ("{log: {}, command: [x]}", "say one of webhook, command and log"),
        ("{webhook: 'ftp://x'}", "webhook is no http"),
        ("{log: {}, headers: {A: b}}", "headers need webhook"),
        ("{command: []}", "command is empty"),
    ],
)
def test_a_channel_is_one_thing(channel: str, said: str) -> None:
    (problem,) = problems(f"notifications: {{channels: {{ops: {channel}}}}}\n")
    assert said in problem
