"""Random deaths of the daemon and of senders while alerts flow: what became of each alert, read from the disk.

Every sender is a process with an outbox of its own and numbered alerts; killed, it is started again and goes on from
the last batch it knows to have posted, so that some alerts are posted twice.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from guardian_link.outbox import Outbox
from tests.support.eventually import eventually
from tests.system.running import SELFHEAL, SLEEPER, free_port, write_config

BATCH: Final = 50
LEAST_PAUSE_S: Final = 0.2
MOST_PAUSE_S: Final = 3.0
"""Between two deaths. The senders take about as long as all of them: the alerts flow until the last."""
SERVICES: Final = 4
LIMIT_S: Final = 300.0
"""How long the last alerts may take once nobody is killed any more."""
_SENDER: Final = """
import sys, time
from pathlib import Path
from guardian_link import Alert, GuardianClient

name, state, box, progress, count, batch, services = *sys.argv[1:5], *map(int, sys.argv[5:8])
pause_s = float(sys.argv[8])
progress = Path(progress)
at = int(progress.read_text()) if progress.exists() else 0
guardian = GuardianClient(state_dir=state, outbox=box)
while at < count:
    alerts = []
    for n in range(at, min(count, at + batch)):
        one = {"type": "service_failure", "service": f"s{n % services}"} if n % 100 == 0 else {"type": "noise"}
        alerts.append(Alert(**one, message=f"{name} {n}", source=name, id=f"{name}-{n:08d}"))
    guardian.post_all(alerts)
    at += len(alerts)
    new = progress.with_suffix(".new")
    new.write_text(str(at))
    new.replace(progress)
    time.sleep(pause_s)
while len(guardian.outbox):
    time.sleep(0.05)
guardian.close()
"""


@dataclass(frozen=True)
class Outcome:
    """``lost``: promised and not in the journal. ``undecided``: without an outcome. ``twice``: in the journal, or
    executed, more than once. ``left``: still in an outbox, or dead letters.
    """

    alerts: int
    lost: int
    undecided: int
    twice: int
    left: int
    daemon_deaths: int
    sender_deaths: int
    outcomes: Counter[str]
    executions: int
    took_s: float

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.undecided or self.twice or self.left)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return (
            f"{self.alerts} alerts, {self.daemon_deaths} deaths of the daemon and {self.sender_deaths} of senders, "
            f"{self.took_s:.0f} s: {self.lost} lost, {self.undecided} undecided, {self.twice} twice, "
            f"{self.left} left; {self.executions} executions; {told}"
        )


@dataclass
class AlertStorm:
    folder: Path
    alerts: int
    senders: int
    kills: int
    seed: int
    tell: Callable[[str], None] = lambda _text: None
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _deaths: Counter[str] = field(default_factory=Counter)

    def run(self) -> Outcome:
        began = time.monotonic()
        names = [f"sender{number}" for number in range(self.senders)]
        services = {f"s{number}": SLEEPER for number in range(SERVICES)}
        links = {
            "guardian": {"address": f"tcp://127.0.0.1:{free_port()}"},
            "bridge": {"address": "tcp://127.0.0.1:0"},
            "operator": {"address": "127.0.0.1:0"},
        }
        write_config(self.folder, services, links=links)
        try:
            for name in ("daemon", *names):
                self._start(name)
            self._kill_some(random.Random(self.seed), names)
            self._await_end(names)
        finally:
            for name in names:
                self._end(name)
            subprocess.run([*SELFHEAL, "stop", "--state", str(self._state)], check=False, capture_output=True)
            self._end("daemon")
        return self._judge(names, time.monotonic() - began)

    @property
    def _state(self) -> Path:
        return self.folder / "state"

    def _start(self, name: str) -> None:
        if name == "daemon":
            words = [*SELFHEAL, "run", "--config", str(self.folder / "selfheal.yaml"), "--state", str(self._state)]
        else:
            box, progress = self.folder / f"{name}.db", self.folder / f"{name}.progress"
            each = self.alerts // self.senders
            pause_s = self.kills * (LEAST_PAUSE_S + MOST_PAUSE_S) / 2 / (each / BATCH)
            numbers = [str(each), str(BATCH), str(SERVICES), f"{pause_s:.3f}"]
            facts = [name, str(self._state), str(box), str(progress), *numbers]
            words = [sys.executable, "-c", _SENDER, *facts]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )

    def _kill_some(self, chance: random.Random, names: list[str]) -> None:
        """Half of the deaths are the daemon's."""
        for number in range(self.kills):
            time.sleep(chance.uniform(LEAST_PAUSE_S, MOST_PAUSE_S))
            victim = "daemon" if number % 2 == 0 else chance.choice(names)
            process = self._running[victim]
            if process.poll() is None:
                process.kill()
                process.wait()
                self._deaths["daemon" if victim == "daemon" else "sender"] += 1
                self.tell(f"{number + 1}: {victim}")
                self._start(victim)
            elif victim != "daemon":
                self.tell(f"{number + 1}: {victim} had finished")
            else:
                raise AssertionError(f"the daemon ended by itself: {(self.folder / 'daemon.log').read_text()[-3000:]}")

    def _await_end(self, names: list[str]) -> None:
        deadline = time.monotonic() + LIMIT_S
        for name in names:
            code = self._running[name].wait(max(0.1, deadline - time.monotonic()))
            if code:
                raise AssertionError(f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-3000:]}")
        undecided = "SELECT count(*) FROM alerts WHERE outcome IS NULL"
        eventually(lambda: self._ask(undecided)[0][0] == 0, within_s=LIMIT_S, every_s=0.1, what="all are decided")

    def _end(self, name: str) -> None:
        process = self._running.get(name)
        if process is None:
            return
        try:
            process.wait(30 if name == "daemon" else 0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, question: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(f"file:{self._state / 'journal.db'}?mode=ro", uri=True, timeout=10)
        try:
            return database.execute(question).fetchall()
        finally:
            database.close()

    def _judge(self, names: list[str], took_s: float) -> Outcome:
        each = self.alerts // self.senders
        promised = {f"{name}-{number:08d}" for name in names for number in range(each)}
        rows = self._ask("SELECT msg_id, outcome FROM alerts")
        seen = Counter(str(row[0]) for row in rows)
        runs = self._ask("SELECT alert_seq, count(*) FROM executions GROUP BY alert_seq")
        left = 0
        for name in names:
            box = Outbox(self.folder / f"{name}.db")
            left += len(box) + len(box.dead())
            box.close()
        return Outcome(
            alerts=len(promised),
            lost=len(promised - seen.keys()),
            undecided=sum(row[1] is None for row in rows if row[0] in promised),
            twice=sum(count > 1 for one, count in seen.items() if one in promised) + sum(run[1] > 1 for run in runs),
            left=left,
            daemon_deaths=self._deaths["daemon"],
            sender_deaths=self._deaths["sender"],
            outcomes=Counter(str(row[1]) for row in rows if row[0] in promised),
            executions=sum(int(run[1]) for run in runs),
            took_s=took_s,
        )
