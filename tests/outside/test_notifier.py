"""sd_notify, word by word, at a real datagram socket."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisors.notify import NOT_FOR_CHILDREN, Notifier
from tests.support.systemd import Systemd


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(f"{tmp_path}/notify" if request.param == "path" else f"@selfheal-test-{uuid.uuid4().hex}")
    yield made
    made.socket.close()


@pytest.fixture
def notifier(systemd: Systemd) -> Iterator[Notifier]:
    made = Notifier.take({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "3000000"})
    yield made
    made.close()


def test_what_is_said_arrives(systemd: Systemd, notifier: Notifier) -> None:
    notifier.ready(main_pid=7)
    notifier.watchdog()
    notifier.stopping()
    notifier.extend(1.5)
    assert systemd.listen() == [
        ["READY=1", "MAINPID=7"],
        ["WATCHDOG=1"],
        ["STOPPING=1"],
        ["EXTEND_TIMEOUT_USEC=1500000"],
    ]


def test_a_reload_is_dated_by_the_clock_systemd_uses(systemd: Systemd, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.ready()
    (reloading, at), ready = systemd.listen()
    assert (reloading, ready) == ("RELOADING=1", ["READY=1"])
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_status_is_one_line_and_said_when_it_changes(systemd: Systemd, notifier: Notifier) -> None:
    for text in ("1 of 2", "1 of 2", "2 of 2\nREADY=1"):
        notifier.status(text)
    assert systemd.listen() == [["STATUS=1 of 2"], ["STATUS=2 of 2 READY=1"]]


def test_a_socket_nobody_reads_is_trouble_but_no_error(systemd: Systemd, notifier: Notifier) -> None:
    systemd.socket.close()
    notifier.ready()
    assert notifier.trouble is not None
    assert systemd.address in notifier.trouble


def test_a_full_socket_does_not_block(systemd: Systemd, notifier: Notifier) -> None:
    while notifier.trouble is None:
        notifier.watchdog()
    systemd.listen()
    notifier.watchdog()
    assert notifier.trouble is None


def test_without_a_socket_nothing_is_said() -> None:
    notifier = Notifier.take({"WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.watchdog()
    assert (notifier.is_heard, notifier.watchdog_s, notifier.trouble) == (False, None, None)


@pytest.mark.parametrize(
    ("pid", "watchdog_s"),
    [(str(os.getpid()), 3.0), ("1", None), ("x", None), (None, 3.0)],
    ids=["ours", "1", "x", "none"],
)
def test_a_watchdog_meant_for_another_process_is_not_fed(
    systemd: Systemd, pid: str | None, watchdog_s: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "3000000"} | ({"WATCHDOG_PID": pid} if pid else {})
    notifier = Notifier.take(environ)
    notifier.watchdog()
    assert notifier.watchdog_s == watchdog_s
    assert systemd.lines() == (["WATCHDOG=1"] if watchdog_s else [])
    notifier.close()


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    environ = dict.fromkeys(NOT_FOR_CHILDREN, "1") | {"PATH": "/bin"}
    Notifier.take(environ)
    assert environ == {"PATH": "/bin"}
