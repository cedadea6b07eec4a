"""Where everything is there (``SELFHEAL_REQUIRE_ALL``, as in CI), a skipped test is a failure: it proves nothing. The
tables that tests recorded are printed at the end.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.support.tables import TABLE

REQUIRE_ALL: Final = "SELFHEAL_REQUIRE_ALL"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with long tests first, else in the random order: no worker is to wait for another at the end."""
    longest_s: dict[str, float] = {}
    for item in items:
        module = item.nodeid.partition("::")[0]
        marker = item.get_closest_marker("timeout")
        longest_s[module] = max(longest_s.get(module, 0.0), float(marker.args[0]) if marker is not None else 0.0)
    items.sort(key=lambda item: -longest_s[item.nodeid.partition("::")[0]])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get(REQUIRE_ALL) and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, text in report.user_properties:
                if name == TABLE and report.when == "call":
                    terminalreporter.section(report.nodeid)
                    terminalreporter.write_line(str(text))
    if os.environ.get(REQUIRE_ALL) and (count := _skipped(config)):
        terminalreporter.write_line(f"{count} skipped, and {REQUIRE_ALL} is set: that counts as a failure", red=True)


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if isinstance(reporter, pytest.TerminalReporter) else 0
