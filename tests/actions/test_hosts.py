"""dns_resolves and ping: yes, no, and what nobody can tell."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from icmplib.exceptions import SocketPermissionError

from runbooks import hosts
from runbooks.engine_words import Answer
from runbooks.hosts import LocalHosts
from runbooks.model import CallType
from runbooks.ports import PortError
from tests.actions.place import answer, look, ports_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")


def test_names(tmp_path: Path) -> None:
    ports = ports_of(tmp_path)
    assert answer(ports, CallType.DNS_RESOLVES, host="localhost") is Answer.YES
    assert answer(ports, CallType.DNS_RESOLVES, host="localhost", address="127.0.0.1") is Answer.YES
    assert answer(ports, CallType.DNS_RESOLVES, host="localhost", address="192.0.2.7") is Answer.NO
    assert answer(ports, CallType.DNS_RESOLVES, host="x" * 300) is Answer.UNKNOWN


@pytest.mark.parametrize(("number", "expected"), [(socket.EAI_NONAME, Answer.NO), (socket.EAI_AGAIN, Answer.UNKNOWN)])
def test_no_such_name_is_a_no_and_no_answer_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: Answer
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "said so")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert answer(ports_of(tmp_path), CallType.DNS_RESOLVES, host="db.example") is expected


def test_a_name_service_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gate.wait(30))
    asked = look(ports_of(tmp_path), CallType.DNS_RESOLVES, 0.2, host="db.example")
    gate.set()
    assert asked.answer is Answer.UNKNOWN
    assert "no answer from the name service within 0.2 s" in asked.detail


def test_an_echo_comes_back(tmp_path: Path) -> None:
    assert answer(ports_of(tmp_path), CallType.PING, host="127.0.0.1", count=2) is Answer.YES


def test_who_may_not_send_one_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise SocketPermissionError(privileged=True)

    monkeypatch.setattr(hosts, "ICMPv4Socket", refuse)
    with pytest.raises(PortError, match=r"net.ipv4.ping_group_range"):
        LocalHosts().answers("127.0.0.1", 1, 5)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network of its own: 10.9.9.1 is here, 10.9.9.2 never answers, 10.9.8.0/24 is declared unreachable."""
    name = f"selfheal-ping-{os.getpid()}"

    def ip(*words: str, inside: bool = True) -> None:
        subprocess.run(["ip", *(("-n", name) if inside else ()), *words], check=True, capture_output=True)

    ip("netns", "add", name, inside=False)
    try:
        ip("link", "set", "lo", "up")
        ip("link", "add", "here", "type", "veth", "peer", "name", "there")
        ip("addr", "add", "10.9.9.1/24", "dev", "here")
        ip("link", "set", "here", "up")
        ip("link", "set", "there", "up")
        ip("neigh", "add", "10.9.9.2", "lladdr", "02:00:00:00:00:02", "dev", "here")
        ip("route", "add", "unreachable", "10.9.8.0/24")
        yield name
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        if os.environ.get("SELFHEAL_REQUIRE_ALL"):
            raise
        pytest.skip(f"no network namespace of this kind here: {error}")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@needs_root
def test_silence_is_no_answer_and_unreachable_is_unknown_too(namespace: str) -> None:
    code = (
        "from runbooks.hosts import LocalHosts\n"
        "for host in ('10.9.9.1', '10.9.9.2', '10.9.8.1'):\n"
        "    try: print(LocalHosts().answers(host, 1, 1.0))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    here, silent, nowhere = done.stdout.splitlines()
    assert here == "True"
    assert silent == "PortError ping 10.9.9.2 (10.9.9.2): nobody answered"
    assert nowhere.startswith(("False", "PortError")), nowhere
