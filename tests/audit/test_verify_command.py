"""``selfheal audit verify`` on a state directory, without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.audit.chained import a_chain, tampered


def verify(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisors.cli", "audit", "verify", "--state", str(state), *words]
    environ = {**os.environ, "SELFHEAL_CONFIG": ""}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environ)


def test_it_says_that_all_is_whole_and_which_row_is_not(tmp_path: Path) -> None:
    a_chain(tmp_path, 5)
    well = verify(tmp_path)
    assert (well.returncode, well.stdout.startswith("whole: 5 rows, the last is 5")) == (0, True), well
    tampered(tmp_path, "UPDATE audit SET body = '{}' WHERE seq = 3")
    bad = verify(tmp_path)
    assert bad.returncode == 3
    assert "row 3: was changed" in bad.stderr
    told = json.loads(verify(tmp_path, "--json").stdout)
    assert (told["whole"], told["rows"], told["findings"][0]["row"]) == (False, 5, 3)
