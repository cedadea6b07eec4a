"""Acknowledged alerts per second: on disk (commit with synchronous=FULL) and checked before the daemon says so.

The real daemon beside Redis Streams (appendfsync always, XADD in pipelines of the same size) and beside bare SQLite
(the same pragmas, the same rows, one commit for each window), in the same run on the same disk, taking turns. A window
is how many alerts may be unanswered at once; a latency is from an alert's sending to its STORED.

    python benchmarks/alert_throughput.py [--seconds 5] [--rounds 3] [--windows 1,64,512] [--curve both]
    python benchmarks/alert_throughput.py --alerts 1000000     memory of the daemon over so many
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
import zmq
from stamps import percentile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actors.deciding.words import INSIDE
from actors.journal.schema import open_writer
from bridge_link import bodies
from bridge_link.batch import MOST_ALERTS, batch_of
from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, decode, encode, new_id

GOAL_P99_MS = {1: 2.0, 64: 10.0}
TIMEOUT_MS = 20_000


def alert_body(number: int) -> dict[str, Any]:
    """An alert as the platform sends them: about 250 bytes."""
    return {
        "type": "latency_warning",
        "severity": "medium",
        "source": "guardian-1",
        "service": "risk-manager",
        "message": f"order {number}: acknowledged by the broker after 412 ms, the limit is 250 ms",
        "labels": {"account": "U1234567", "symbol": "EURUSD", "latency_ms": 412, "limit_ms": 250.0},
    }


@dataclass
class Figures:
    per_s: float
    latencies_ms: list[float]

    def __str__(self) -> str:
        p50, p99 = (percentile(self.latencies_ms, share) for share in (0.5, 0.99))
        return f"{self.per_s:9,.0f}/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms"


Timed = Callable[[int, float], Figures]
"""(window, seconds) -> what came of it."""


# -- the daemon -------------------------------------------------------------------------------------------------------


class Daemon:
    """The real daemon in a process of its own, and one client that does not wait before its window is full."""

    def __init__(self, folder: Path, *, curve: bool) -> None:
        self.curve = curve
        self.state = folder / f"state-{'curve' if curve else 'plain'}"
        config = folder / f"{self.state.name}.yaml"
        links = {"curve": curve, "guardian": {"address": "tcp://127.0.0.1:0"}, "bridge": {"address": None}}
        links["operator"] = {"address": "127.0.0.1:0"}
        config.write_text(yaml.safe_dump({"version": 1, "links": links, "services": {}}), encoding="utf-8")
        words = [sys.executable, "-m", "supervisors.cli", "run", "--config", str(config), "--state", str(self.state)]
        self._log = (folder / f"{self.state.name}.log").open("wb")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self._log)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(b"ready"):
            raise SystemExit(f"the daemon did not start: {Path(self._log.name).read_text()[-2000:]}")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = make_dealer(self._context, find_key(state_dir=self.state))
        self._socket.connect((self.state / "guardian.address").read_text(encoding="ascii").strip())
        self._number = 0

    def timed(self, window: int, seconds: float) -> Figures:
        """Alerts go in messages of at most 64; the next one leaves as soon as the window has room for it."""
        size = min(MOST_ALERTS, window)
        sent: dict[str, tuple[float, int]] = {}
        latencies: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            while len(sent) * size + size <= window:
                self._send(size, sent)
            self._hear(sent, latencies)
        while sent:
            self._hear(sent, latencies)
        return Figures(len(latencies) / (time.perf_counter() - began), latencies)

    def many(self, count: int, window: int = 512) -> float:
        """So many alerts; returns the seconds they took."""
        began, sent, latencies = time.perf_counter(), dict[str, tuple[float, int]](), list[float]()
        target = self._number + count
        while self._number < target:
            while len(sent) * MOST_ALERTS + MOST_ALERTS <= window and self._number < target:
                self._send(min(MOST_ALERTS, target - self._number), sent)
            self._hear(sent, latencies)
            latencies.clear()
        while sent:
            self._hear(sent, latencies)
        return time.perf_counter() - began

    def _send(self, size: int, sent: dict[str, tuple[float, int]]) -> None:
        at = time.perf_counter()
        alerts = {new_id(): alert_body(self._number + n) for n in range(size)}
        self._number += size
        if size == 1:
            ((message_id, body),) = alerts.items()
            message = Message(Kind.ALERT, message_id, body)
        else:
            message = batch_of(alerts)
        sent[message.id] = (at, size)
        self._socket.send_multipart(encode(message))

    def _hear(self, sent: dict[str, tuple[float, int]], latencies: list[float]) -> None:
        if not self._socket.poll(TIMEOUT_MS):
            raise SystemExit("the daemon does not answer")
        while True:
            try:
                answer = decode(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            if answer.kind is Kind.NACK or answer.body.get("refused"):
                raise SystemExit(f"refused: {dict(answer.body)}")
            if answer.kind is Kind.STORED:
                at, size = sent.pop(answer.id)
                latencies += [1000 * (time.perf_counter() - at)] * size

    def rss_mib(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1024**2

    def until_decided(self) -> tuple[int, float]:
        """(alerts in the journal, seconds until all of them are decided); each was sent once and is there once."""
        began = time.perf_counter()
        database = sqlite3.connect(f"file:{self.state / 'journal.db'}?mode=ro", uri=True, timeout=30)
        try:
            while database.execute("SELECT count(*) FROM alerts WHERE outcome IS NULL").fetchone()[0]:
                time.sleep(0.05)
            took = time.perf_counter() - began
            (count,) = database.execute("SELECT count(*) FROM alerts WHERE client <> ?", (INSIDE,)).fetchone()
            for (own,) in database.execute("SELECT body FROM alerts WHERE client = ?", (INSIDE,)):
                print(f"of its own the daemon says: {json.loads(own).get('message')}")
        finally:
            database.close()
        if count != self._number:
            raise SystemExit(f"{self._number} alerts were acknowledged, {count} are in the journal")
        return count, took

    def settings(self) -> str:
        """Read back: what the daemon's journal is, that a bad alert is refused, and whether the link has keys."""
        self._socket.send_multipart(encode(Message(Kind.ALERT, new_id(), {**alert_body(0), "severity": "worst"})))
        assert self._socket.poll(TIMEOUT_MS)
        answer = decode(self._socket.recv_multipart())
        checked = answer.kind is Kind.NACK and answer.body["code"] == "malformed"
        mechanism = {zmq.NULL: "off", zmq.CURVE: "on"}[self._socket.getsockopt(zmq.MECHANISM)]
        return f"CURVE {mechanism}; a bad severity is {'refused' if checked else 'TAKEN'}"

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


# -- beside it --------------------------------------------------------------------------------------------------------


class Redis:
    """A real redis-server whose every command is on disk before its answer."""

    def __init__(self, folder: Path) -> None:
        import redis  # noqa: PLC0415  only this benchmark needs it

        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("no redis-server: apt-get install redis-server")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        place = folder / "redis"
        place.mkdir()
        options = {"port": port, "bind": "127.0.0.1", "dir": place, "appendonly": "yes", "appendfsync": "always"}
        words = [word for name, value in (options | {"save": ""}).items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=port)
        while True:
            try:
                self.client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        self._number = 0

    def settings(self) -> str:
        found = self.client.config_get("append*")
        version = self.client.info("server")["redis_version"]
        return f"Redis {version}: appendonly {found['appendonly']}, appendfsync {found['appendfsync']}"

    def timed(self, window: int, seconds: float) -> Figures:
        latencies: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            at = time.perf_counter()
            pipeline = self.client.pipeline(transaction=False)
            for number in range(self._number, self._number + window):
                pipeline.xadd("alerts", {"id": new_id(), "body": bodies.pack_msgpack(alert_body(number))})
            pipeline.execute()
            self._number += window
            latencies += [1000 * (time.perf_counter() - at)] * window
        return Figures(len(latencies) / (time.perf_counter() - began), latencies)

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


class Floor:
    """Bare SQLite with the journal's own schema and pragmas: the same rows, one commit for each window."""

    def __init__(self, folder: Path) -> None:
        self._database = open_writer(folder / "floor.db")
        self._number = 0

    def settings(self) -> str:
        names = ("journal_mode", "synchronous", "wal_autocheckpoint", "foreign_keys")
        found = {name: self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
        return f"SQLite {sqlite3.sqlite_version}: {', '.join(f'{name} {value}' for name, value in found.items())}"

    def timed(self, window: int, seconds: float) -> Figures:
        latencies: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            at = time.perf_counter()
            numbers = range(self._number, self._number + window)
            rows = [("c", new_id(), "0" * 64, json.dumps(alert_body(number)), 0.0) for number in numbers]
            self._database.execute("BEGIN IMMEDIATE")
            query = "INSERT INTO alerts(client, msg_id, sha256, body, received_at) VALUES (?,?,?,?,?)"
            self._database.executemany(query, rows)
            self._database.execute("COMMIT")
            self._number += window
            latencies += [1000 * (time.perf_counter() - at)] * window
        return Figures(len(latencies) / (time.perf_counter() - began), latencies)

    def close(self) -> None:
        self._database.close()


# -- the run ----------------------------------------------------------------------------------------------------------


@contextmanager
def workplace() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="alert-throughput-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="taking turns; the median of the rates is printed")
    parser.add_argument("--windows", default="1,64,512")
    parser.add_argument("--curve", choices=("on", "off", "both"), default="both")
    parser.add_argument("--alerts", type=int, default=0, help="memory over so many alerts instead")
    options = parser.parse_args()
    curves = {"on": (True,), "off": (False,), "both": (True, False)}[options.curve]
    with workplace() as folder:
        if options.alerts:
            return memory(folder, options.alerts, curve=curves[0])
        return speed(folder, curves, [int(one) for one in options.windows.split(",")], options.seconds, options.rounds)


def speed(folder: Path, curves: tuple[bool, ...], windows: list[int], seconds: float, rounds: int) -> int:
    daemons = [Daemon(folder, curve=curve) for curve in curves]
    redis, floor = Redis(folder), Floor(folder)
    try:
        for one in daemons:
            print(f"selfheal, {one.settings()}; its journal is opened as SQLite below")
        print(redis.settings(), floor.settings(), f"{os.cpu_count()} cores", sep="\n", flush=True)
        peers: dict[str, Timed] = {f"selfheal, CURVE {'on' if one.curve else 'off'}": one.timed for one in daemons}
        peers |= {"redis streams": redis.timed, "bare sqlite": floor.timed}
        missed = sum(measured(peers, window, seconds, rounds) for window in windows)
        for one in daemons:
            count, took = one.until_decided()
            print(f"CURVE {'on' if one.curve else 'off'}: {count:,} alerts in the journal, decided {took:.1f} s later")
        return int(missed > 0)
    finally:
        for peer in (*daemons, redis, floor):
            peer.close()


def measured(peers: dict[str, Timed], window: int, seconds: float, rounds: int) -> int:
    """Prints the figures of one window; returns how many goals were missed."""
    for timed in peers.values():
        timed(window, min(0.5, seconds))
    found: dict[str, list[Figures]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, timed in peers.items():
            found[name].append(timed(window, seconds))
    merged = {name: in_all(figures) for name, figures in found.items()}
    for name, figures in merged.items():
        print(f"window {window:4}: {name:20} {figures}", flush=True)
    missed = 0
    for name in (name for name in peers if name.startswith("selfheal")):
        ours = merged[name]
        if window in GOAL_P99_MS:
            missed += judged(f"{name}, window {window}: p99", percentile(ours.latencies_ms, 0.99), GOAL_P99_MS[window])
        if window == 64:
            ratio = ours.per_s / merged["redis streams"].per_s
            print(f"{name}, window {window}: {ratio:.2f} of Redis (goal 1): {'met' if ratio >= 1 else 'MISSED'}")
            missed += ratio < 1
    return missed


def judged(what: str, found_ms: float, goal_ms: float) -> int:
    print(f"{what} {found_ms:.2f} ms (goal {goal_ms:g}): {'met' if found_ms < goal_ms else 'MISSED'}", flush=True)
    return int(found_ms >= goal_ms)


def in_all(figures: list[Figures]) -> Figures:
    latencies = [one for each in figures for one in each.latencies_ms]
    return Figures(statistics.median(one.per_s for one in figures), latencies)


def memory(folder: Path, alerts: int, *, curve: bool) -> int:
    """Flat: what the second half adds is no more than a tenth of what the daemon has after the first."""
    daemon = Daemon(folder, curve=curve)
    try:
        print(daemon.settings())
        print(f"before: {daemon.rss_mib():.0f} MiB", flush=True)
        parts = 10
        rss: list[float] = []
        for part in range(1, parts + 1):
            took = daemon.many(alerts // parts)
            rss.append(daemon.rss_mib())
            rate = alerts // parts / took
            print(f"{part * (alerts // parts):>10,}: {rss[-1]:6.0f} MiB, {rate:9,.0f}/s", flush=True)
        count, took = daemon.until_decided()
        print(f"{count:,} alerts in the journal, decided {took:.1f} s later; {daemon.rss_mib():.0f} MiB")
        half = rss[parts // 2 - 1]
        grown = rss[-1] - half
        flat = grown <= half / 10
        print(f"the second half added {grown:+.0f} MiB to {half:.0f}: {'flat' if flat else 'NOT FLAT'}")
        return int(not flat)
    finally:
        daemon.close()


if __name__ == "__main__":
    sys.exit(main())
