"""Plain alerts and their sinks: each told once, storms summed up, nothing lost without being counted, nobody waits."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.plain_alerts import MOST_WAITING, PlainAlerts, Sink, SinkTrouble, Told
from actors.saying import PER_SECOND, Sayer
from config.models import AlertingConfig
from supervisors.plain_sinks import CommandSink, LogSink, SyslogSink, WebhookSink, sinks_of
from tests.plain_alerts.listener import listening
from tests.support.eventually import eventually

FACTS = {"type": "noise", "service": "a", "severity": "high", "message": "m", "source": "t"}


class Kept:
    """A sink in memory that can be held up, or broken."""

    def __init__(self, name: str = "kept") -> None:
        self.name = name
        self.told: list[Told] = []
        self.gate = threading.Event()
        self.gate.set()
        self.trouble = 0

    def tell(self, told: Told) -> None:
        self.gate.wait(30)
        if self.trouble:
            self.trouble -= 1
            raise SinkTrouble("kept: broken")
        self.told.append(told)


@contextmanager
def plain(*sinks: Sink) -> Iterator[PlainAlerts]:
    made = PlainAlerts(sinks)
    made.begin()
    try:
        yield made
    finally:
        made.close()


def test_each_alert_is_told_once_to_every_sink() -> None:
    one, other = Kept("one"), Kept("other")
    with plain(one, other) as alerts:
        for _ in range(3):
            alerts.offer("ann", "alert-1", FACTS)
        alerts.offer("bob", "alert-1", FACTS)
        eventually(lambda: len(one.told) == len(other.told) == 2, within_s=30)
    assert [told["client"] for told in one.told] == ["ann", "bob"]
    assert {key: one.told[0][key] for key in FACTS} == FACTS


def test_a_storm_is_summed_up_and_every_alert_is_in_a_line_or_a_sum() -> None:
    sink = Kept()
    with plain(sink) as alerts:
        for number in range(5000):
            alerts.offer("ann", f"alert-{number}", {**FACTS, "type": f"noise_{number % 2}"})

        def all_told() -> bool:
            return bool(sum(told.get("more", 1) for told in sink.told) == 5000)

        eventually(all_told, within_s=30, what="all are told or summed up")
        assert len(sink.told) < 5000
        assert {kind for told in sink.told if "types" in told for kind in told["types"]} == {"noise_0", "noise_1"}


def test_of_many_at_once_each_is_in_a_line_or_a_sum_and_none_is_told_again() -> None:
    sink = Kept()
    with plain(sink) as alerts:
        for first in range(0, 5000, 50):
            some = [(f"alert-{n}", {**FACTS, "type": f"noise_{n % 2}"}) for n in range(first, first + 50)]
            alerts.offer_all("ann", some)
        alerts.offer_all(
            "ann",
            [
                ("alert-0", {**FACTS, "type": "noise_0"}),
                ("the-one", {**FACTS, "severity": "critical"}),
                ("alert-1", {**FACTS, "type": "noise_1"}),
            ],
        )

        def all_told() -> bool:
            return bool(sum(told.get("more", 1) for told in sink.told) == 5001)

        eventually(all_told, within_s=30, what="all are told or summed up")
        told = [one["alert"] for one in sink.told if "alert" in one]
        assert told[:PER_SECOND] == [f"alert-{n}" for n in range(PER_SECOND)], "in their order"
        assert "the-one" in told
        assert len(told) == len(set(told)) < 5000


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9), st.floats(0, 0.9)), max_size=30))
def test_asked_for_some_at_once_it_says_what_it_says_to_each(asked: list[tuple[str, int, float]]) -> None:
    sums: list[list[tuple[int, dict[str, int]]]] = [[], []]
    one = Sayer(lambda count, kinds: sums[0].append((count, dict(kinds))), 7)
    other = Sayer(lambda count, kinds: sums[1].append((count, dict(kinds))), 7)
    now_s = 100.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.saying.MOST_KINDS", 3)
        patch.setattr("actors.saying.time.monotonic", lambda: now_s)
        for kind, count, pause_s in asked:
            now_s += pause_s
            assert one.may_say_some(kind, count) == sum(other.may_say(kind) for _ in range(count))
        now_s += 1
        one.look()
        other.look()
    assert sums[0] == sums[1]


def test_a_critical_alert_is_not_lost_in_a_storm_of_others() -> None:
    sink = Kept()
    with plain(sink) as alerts:
        for number in range(PER_SECOND * 5):
            alerts.offer("ann", f"alert-{number}", FACTS)
        alerts.offer("ann", "the-one", {**FACTS, "severity": "critical"})
        eventually(lambda: any(told.get("alert") == "the-one" for told in sink.told), within_s=30)


def test_a_sink_that_hangs_holds_up_neither_the_intake_nor_the_others() -> None:
    stuck, well = Kept("stuck"), Kept("well")
    stuck.gate.clear()
    with plain(stuck, well) as alerts:
        began_s = time.monotonic()
        for number in range(50):
            alerts.offer("ann", f"alert-{number}", FACTS)
        assert time.monotonic() - began_s < 1.0
        eventually(lambda: len(well.told) == 50, within_s=30)
        assert stuck.told == []
        stuck.gate.set()
        eventually(lambda: len(stuck.told) == 50, within_s=30)


def test_what_finds_no_room_is_counted_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.plain_alerts.MOST_WAITING", 5)
    stuck = Kept()
    stuck.gate.clear()
    with plain(stuck) as alerts:
        for number in range(20):
            alerts.offer("ann", f"alert-{number}", FACTS)

        def is_counted() -> bool:
            figures = alerts.figures()
            waits = figures["sinks"]["kept"]
            return bool(figures["dropped"] + waits["dropped"] + waits["waiting"] + 1 == 20 and waits["waiting"] <= 5)

        eventually(is_counted, within_s=30, what="every alert is somewhere")
        assert "were not told: too many waited" in str(alerts.trouble())
        stuck.gate.set()


def test_a_sink_that_fails_is_tried_again_then_counted_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.plain_alerts.PAUSES_S", (0.01, 0.01))
    sink = Kept()
    with plain(sink) as alerts:
        sink.trouble = 2
        alerts.offer("ann", "a", FACTS)
        eventually(lambda: len(sink.told) == 1, within_s=30)
        assert alerts.trouble() is None
        sink.trouble = 3
        alerts.offer("ann", "b", FACTS)
        eventually(lambda: alerts.figures()["sinks"]["kept"]["failed"] == 1, within_s=30)
        assert alerts.trouble() == "kept: broken (1 not told)"
        alerts.offer("ann", "c", FACTS)
        eventually(lambda: alerts.trouble() is None, within_s=30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_begun_again() -> None:
    class Deadly(Kept):
        def tell(self, told: Told) -> None:
            if not self.told:
                self.told.append({})
                raise SystemExit
            super().tell(told)

    sink = Deadly()
    with plain(sink) as alerts:
        alerts.offer("ann", "a", FACTS)
        eventually(lambda: not alerts.is_alive, within_s=30)
        alerts.begin()
        alerts.offer("ann", "b", FACTS)
        eventually(lambda: len(sink.told) == 2, within_s=30)


def test_the_log_has_a_line_each() -> None:
    with structlog.testing.capture_logs() as lines:
        LogSink().tell({"kind": "alert", "at": 1.0, "alert": "a", **FACTS, "severity": "critical"})
        LogSink().tell({"kind": "alerts", "at": 1.0, "more": 7, "types": {"noise": 7}})
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("plain alert", "critical"),
        ("plain alerts", "warning"),
    ]


def test_a_webhook_gets_json_and_its_address_is_never_said() -> None:
    with listening() as listener:
        WebhookSink("hook", listener.url).tell({"kind": "alert", "alert": "a", **FACTS})
        assert listener.told == [{"kind": "alert", "alert": "a", **FACTS}]
        listener.status = 503
        with pytest.raises(SinkTrouble, match="hook: HTTP 503"):
            WebhookSink("hook", listener.url).tell({"kind": "alert"})
        url = listener.url.replace("told", "canary-address")
    with pytest.raises(SinkTrouble) as refused:
        WebhookSink("hook", url).tell({"kind": "alert"})
    assert "canary" not in str(refused.value) + repr(WebhookSink("hook", url))


def test_a_command_gets_it_on_its_standard_input_and_never_as_an_argument(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import sys; open(sys.argv[1], 'w').write(repr(sys.argv[2:]) + sys.stdin.read())"
    argv = [sys.executable, "-c", code, str(out)]
    told: dict[str, Any] = {"kind": "alert", "alert": "a", **FACTS, "message": "$(touch x); `id`\n"}
    CommandSink("run", argv).tell(told)
    said = out.read_text()
    assert said.startswith("[]")
    assert json.loads(said[2:]) == told


def test_a_command_that_fails_hangs_or_is_not_there_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisors.plain_sinks.COMMAND_S", 0.3)
    for argv, said in (
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with 3"),
        (["sleep", "100"], "took longer"),
        (["/nowhere/at-all"], "No such file"),
    ):
        with pytest.raises(SinkTrouble, match=said):
            CommandSink("run", argv).tell({"kind": "alert"})


def test_the_configuration_names_them() -> None:
    said = {"sinks": [{"log": {}}, {"webhook": "http://h/x"}, {"command": ["tell"]}, {"syslog": {}}]}
    made = sinks_of(AlertingConfig.model_validate(said).sinks)
    assert [type(one) for one in made] == [LogSink, WebhookSink, CommandSink, SyslogSink]
    assert [type(one) for one in sinks_of(AlertingConfig().sinks)] == [LogSink]
    both: dict[str, Any] = {"log": {}, "syslog": {}}
    headed: dict[str, Any] = {"log": {}, "headers": {"a": "b"}}
    wrong: list[dict[str, Any]] = [{}, both, headed, {"webhook": "ftp://x"}, {"command": []}]
    for bad in wrong:
        with pytest.raises(ValidationError):
            AlertingConfig.model_validate({"sinks": [bad]})


def test_memory_has_an_end() -> None:
    assert MOST_WAITING <= 10_000
