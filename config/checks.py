"""What only the whole file can show: names that clash, cycles, ports taken twice, budgets that cannot be reached. Pure.

Each check is one function from a configuration to complaints ``(path, message, suggestion)``.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from config.models import BESIDE, BackoffConfig, SecretName, SystemConfig
from config.replicas import expanded, scale_problem
from config.source import Path

Complaint = tuple[Path, str, str]
Check = Callable[[SystemConfig], Iterator[Complaint]]


def unique_names(config: SystemConfig) -> Iterator[Complaint]:
    """Services, groups and bridges share one space of names: each names one node of the tree."""
    first: dict[str, str] = {}
    for kind in ("services", "groups", "bridges"):
        for name in getattr(config, kind):
            if name in first:
                yield (kind, name), f"{name!r} is a name in {first[name]} already", "rename one of the two"
            first.setdefault(name, kind)


def known_members(config: SystemConfig) -> Iterator[Complaint]:
    """A group names services that are there, each in one group only."""
    home: dict[str, str] = {}
    for group, one in config.groups.items():
        for number, name in enumerate(one.services):
            path = ("groups", group, "services", number)
            if name not in config.services:
                yield path, f"there is no service {name!r}", _similar(name, config.services)
            elif name in home:
                again = "twice in this group" if home[name] == group else f"in group {home[name]!r} already"
                yield path, f"service {name!r} is {again}", "a service belongs to one group"
            home.setdefault(name, group)


def known_dependencies(config: SystemConfig) -> Iterator[Complaint]:
    for name, service in config.services.items():
        for number, other in enumerate(service.dependencies):
            path = ("services", name, "dependencies", number)
            if other not in config.services:
                yield path, f"there is no service {other!r}", _similar(other, config.services)


def known_services_behind(config: SystemConfig) -> Iterator[Complaint]:
    """What a runbook may restart is there."""
    for name, bridge in config.bridges.items():
        if bridge.service is not None and bridge.service not in config.services:
            yield (
                ("bridges", name, "service"),
                f"there is no service {bridge.service!r}",
                _similar(bridge.service, config.services),
            )


def known_exit_service(config: SystemConfig) -> Iterator[Complaint]:
    """The daemon can only end with a service it has."""
    name = config.exit_with
    if name is not None and name not in config.services:
        yield ("exit_with",), f"there is no service {name!r}", _similar(name, config.services)


def no_cycles(config: SystemConfig) -> Iterator[Complaint]:
    """Neither dependencies alone, nor together with the start order of groups in which one waits for the one before."""
    edges: dict[str, list[str]] = {
        name: [other for other in service.dependencies if other in config.services]
        for name, service in config.services.items()
    }
    for group in config.groups.values():
        if group.strategy != "one_for_one":
            for before, after in zip(group.services, group.services[1:], strict=False):
                if after in edges and before in edges:
                    edges[after].append(before)
    for cycle in _cycles(edges):
        text = " -> ".join((*cycle, cycle[0]))
        yield (
            ("services", cycle[0], "dependencies"),
            f"these wait for each other: {text}",
            "remove one of the dependencies, or change the group's order",
        )


def _cycles(edges: Mapping[str, list[str]]) -> Iterator[tuple[str, ...]]:
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = [] if start in done else [(start, iter(edges[start]))]
        while stack:
            name, rest = stack[-1]
            if not path or path[-1] != name:
                path.append(name)
            following = next((other for other in rest if other not in done), None)
            if following is None:
                done.add(name)
                stack.pop()
                path.pop()
            elif following in path:
                yield tuple(path[path.index(following) :])
            else:
                stack.append((following, iter(edges[following])))


def no_port_clash(config: SystemConfig) -> Iterator[Complaint]:
    """Two that would listen on, or be asked at, the same address of this machine."""
    users: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for path, address in _addresses(config):
        place = _place(address)
        if place is not None and place[1] != 0:
            users[place].append(path)
    for (host, port), paths in users.items():
        owners = {_owner(path) for path in paths}
        if len(owners) > 1:
            first, *others = paths
            for path in others:
                if _owner(path) != _owner(first):
                    yield path, f"{host}:{port} is used by {_words(first)} too", "give each its own port"


def _addresses(config: SystemConfig) -> Iterator[tuple[Path, str]]:
    for link in ("guardian", "bridge", "operator", "events"):
        address = getattr(config.links, link).address
        if address is not None and (link, address) != ("events", BESIDE):
            yield ("links", link, "address"), address
    for name, service in config.services.items():
        check = service.health_check
        if check is not None and (check.http or check.tcp):
            kind = "http" if check.http else "tcp"
            yield ("services", name, "health_check", kind), check.http or check.tcp or ""
        for number, published in enumerate(service.ports):
            host_side = published.rpartition(":")[0]
            if host_side:
                yield ("services", name, "ports", number), host_side if ":" in host_side else f"0.0.0.0:{host_side}"
    for name, bridge in config.bridges.items():
        if bridge.kind == "tcp" and bridge.address is not None:
            yield ("bridges", name, "address"), bridge.address


def _place(address: str) -> tuple[str, int] | None:
    """Host and port, with all names of this machine's loopback made one."""
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        port = {"http": 80, "https": 443}.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        return None
    if port is None:
        return None
    host = parts.hostname or "0.0.0.0"  # noqa: S104  the name of a clash, not a bind
    return ("127.0.0.1" if host in ("localhost", "0.0.0.0", "::1", "*") else host), port  # noqa: S104  likewise


def _owner(path: Path) -> Path:
    return path[:2]


def _words(path: Path) -> str:
    return f"{str(path[0]).removesuffix('s')} {path[1]!r}"


def readable_addresses(config: SystemConfig) -> Iterator[Complaint]:
    """Without keys links are bound to loopback only, and the operator always is."""
    for link in ("guardian", "bridge", "operator", "events"):
        address = getattr(config.links, link).address
        path = ("links", link, "address")
        if address is None or (link, address) == ("events", BESIDE):
            continue
        shape = "127.0.0.1:8090" if link == "operator" else "tcp://127.0.0.1:5570"
        place = _place(address)
        if place is None or address.startswith("tcp://") is (link == "operator"):
            yield path, f"{address!r} is no address", f"write it as {shape}"
        elif "*" in address:
            yield path, f"{address!r} names no interface", "write 0.0.0.0 for all of them"
        elif not _is_loopback(urlsplit(address if "://" in address else f"tcp://{address}").hostname or ""):
            if link == "operator":
                yield path, f"{address!r} is not on loopback", f"bind {shape}"
            elif not config.links.curve:
                yield (
                    path,
                    f"{address!r} is not on loopback, and links.curve is false",
                    f"set links.curve: true, or bind {shape}",
                )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable_budgets(config: SystemConfig) -> Iterator[Complaint]:
    """A budget whose delays alone last longer than its period can never be used up: nothing would ever be parked."""
    for name, service in config.services.items():
        shortest_s = shortest_delays_s(service.backoff, service.max_restarts)
        if shortest_s > service.within:
            yield (
                ("services", name, "max_restarts"),
                f"{service.max_restarts} restarts take {shortest_s:g} s of backoff: never within {service.within:g} s",
                "lower max_restarts or the backoff, or raise within",
            )


_FOR_EVER_S: Final = 10**9


def shortest_delays_s(backoff: BackoffConfig, restarts: int) -> float:
    """The least all delays before restart number ``restarts`` + 1 can add up to (jitter halves at most)."""
    if restarts <= 0:
        return 0.0
    share = 0.5 if backoff.jitter else 1.0
    total_s, delay_s, left = backoff.first, backoff.initial, restarts - 1
    while left and (next_s := min(backoff.max, delay_s * backoff.factor)) != delay_s and total_s <= _FOR_EVER_S:
        total_s, delay_s, left = total_s + delay_s * share, next_s, left - 1
    return total_s + left * delay_s * share  # from here on all are equally long


def existing_runbook_directories(config: SystemConfig) -> Iterator[Complaint]:
    for number, directory in enumerate(config.runbooks.directories):
        if not directory.is_dir():
            yield ("runbooks", "directories", number), f"{directory} is no folder", "create it, or mend the path"


def databases_are_services(config: SystemConfig) -> Iterator[Complaint]:
    for name in config.runbooks.databases:
        if name not in config.services:
            yield ("runbooks", "databases", name), "there is no such service", "name the service that the database is"
    for name, one in config.runbooks.databases.items():
        if isinstance(one.url, SecretName) and one.url.secret not in config.secrets:
            place = ("runbooks", "databases", name, "url", "secret")
            yield place, f"there is no secret {one.url.secret!r}", "put it into secrets, with its file"


def replicas_fit(config: SystemConfig) -> Iterator[Complaint]:
    """Each replica has a name and ports of its own."""
    problems = {name: scale_problem(config, name, service.replicas) for name, service in config.services.items()}
    bad = {name: text for name, text in problems.items() if text is not None}
    for name, text in bad.items():
        yield ("services", name, "replicas"), text, "or have one replica"
    made = expanded(config, dict.fromkeys(bad, 1))
    base = {node: name for name, nodes in made.families.items() for node in nodes}
    known = set(no_port_clash(config))
    for path, message, suggestion in no_port_clash(made.config):
        if (path, message, suggestion) not in known:
            yield (path[0], base.get(str(path[1]), path[1]), *path[2:]), message, suggestion


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


ALL_CHECKS: Final[tuple[Check, ...]] = (
    unique_names,
    known_members,
    known_dependencies,
    known_services_behind,
    known_exit_service,
    no_cycles,
    readable_addresses,
    no_port_clash,
    reachable_budgets,
    existing_runbook_directories,
    databases_are_services,
    replicas_fit,
)
