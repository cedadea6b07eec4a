"""The daemon's end of the line to its keeper, against a keeper whose death the test times to the instant."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.keeper.client import Hello, KeeperLink, KeeperLost
from actors.keeper.words import VERSION, Frames, encode
from tests.support.eventually import eventually, holds_for

OnLost = Callable[[], None]


class Line:
    """A keeper's end that answers hello and nothing else."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._keeper = threading.Thread(target=self._welcome)
        self._keeper.start()

    def _welcome(self) -> None:
        for frame in Frames().feed(self._theirs.recv(65536)):
            welcome = {"id": frame["id"], "version": VERSION, "pid": os.getpid(), "runs": [], "log_trouble": None}
            self._theirs.sendall(encode(welcome))

    def link(self, on_lost: OnLost) -> KeeperLink:
        link = KeeperLink(self.ours, Hello(Path("ledger"), {}, 0.0, {}), lambda *_: None, on_lost)
        self._keeper.join()
        return link

    def die(self) -> None:
        self._theirs.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.die()


def test_who_asked_a_lost_keeper_hears_of_it_after_the_loss_was_told(line: Line) -> None:
    """Else the next keeper is started, and runs, before the daemon watches what the lost one left behind."""
    told, may_go_on = threading.Event(), threading.Event()

    def tell() -> None:
        told.set()
        may_go_on.wait(10.0)

    link = line.link(tell)
    line.die()
    assert told.wait(10.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(link.ask, "spawn")
        holds_for(lambda: not asked.done(), 0.2)
        may_go_on.set()
        with pytest.raises(KeeperLost):
            asked.result(10.0)
    assert not link.is_alive
    link.close()


def test_whoever_cannot_reach_the_keeper_finds_it_lost(line: Line) -> None:
    """A spawn is tried three times: tries that all meet the same dead keeper are none."""
    losses: list[None] = []
    link = line.link(lambda: losses.append(None))
    link._socket.shutdown(socket.SHUT_WR)  # the reader hears nothing of that
    with pytest.raises(KeeperLost):
        link.ask("spawn")
    assert not link.is_alive
    assert losses == [None]
    link.close()


def test_an_orderly_end_is_no_loss(line: Line) -> None:
    losses: list[None] = []
    link = line.link(lambda: losses.append(None))
    link.close()
    eventually(lambda: not link.is_alive, within_s=10.0)
    assert losses == []
