"""``selfheal runbook run`` against the real daemon: a person's wish passes what an alert passes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.eventually import eventually
from tests.system.running import SLEEPER, daemon, write_config


def test_a_run_that_is_asked_for_restarts_the_service_and_is_on_record(tmp_path: Path) -> None:
    with daemon(write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state") as selfheal:
        before = selfheal.until_ready()
        words = ("runbook", "run", "service_failure", "--set", "service=a", "--why", "a drill")
        done = selfheal.call(*words, "--wait")
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        outcome, alert_id, _, execution_id = first.split()
        assert outcome == "run"
        assert second == f"succeeded {execution_id}"
        assert selfheal.pid("a") != before["a"]["pid"]
        assert selfheal.pid("b") == before["b"]["pid"]
        (alert,) = [one for one in selfheal.json("alerts")["alerts"] if one["id"] == alert_id]
        assert (alert["source"], alert["message"], alert["outcome"]) == ("operator", "a drill", "run")
        again = selfheal.call(*words)
        assert (again.returncode, again.stdout.split()[0]) == (0, "duplicate")
        explained = json.loads(selfheal.call("runbook", "explain", alert_id, "--json").stdout)
        assert explained["decided"]["execution_id"] == execution_id
        assert explained["alert"]["labels"]["requested_by"].startswith("user:")


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with daemon(write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state") as selfheal:
        selfheal.until_ready()
        nobody = selfheal.call("runbook", "run", "nobody", "--set", "service=a")
        assert (nobody.returncode, "nobody" in nobody.stderr) == (1, True)
        wrong = selfheal.call("runbook", "run", "service_failure", "--set", "service=a b")
        assert (wrong.returncode, "is no service" in wrong.stderr) == (1, True)
        assert selfheal.call("recovery", "off").returncode == 0
        off = selfheal.call("runbook", "run", "service_failure", "--set", "service=a")
        assert (off.returncode, off.stdout.split()[0]) == (3, "recovery_off")
        assert selfheal.call("recovery", "on").returncode == 0
        dry = selfheal.call("runbook", "run", "service_failure", "--set", "service=a", "--dry-run")
        assert dry.returncode == 0, dry.stdout + dry.stderr
        assert "precondition service_exists: yes" in dry.stdout
        assert selfheal.json("executions")["executions"] == []


def test_an_alerts_labels_ask_for_nothing(tmp_path: Path) -> None:
    """Who may send an alert cannot choose the runbook by it."""
    with daemon(write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state") as selfheal:
        selfheal.until_ready()
        sent = selfheal.call(
            "alert", "send", "--type", "runbook_run", "--service", "a",
            "--field", "runbook=service_failure", "--field", "requested_by=user:root",
        )  # fmt: skip
        assert sent.stdout.split()[0] == "no_match"
        eventually(lambda: selfheal.json("alerts")["alerts"][0]["outcome"] == "no_match", within_s=20)
