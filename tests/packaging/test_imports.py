"""The start of the command: nothing is collected among what the imports make, and the collector works again after."""

from __future__ import annotations

import subprocess
import sys

_SEEN = """
import gc
from supervisors.cli.imports import importing

begun = []
gc.callbacks.append(lambda phase, info: begun.append(phase))
with importing():
    import supervisors.run
print(len(begun), gc.isenabled(), gc.get_freeze_count() > 100_000)
try:
    with importing():
        import a_module_that_is_not_there
except ModuleNotFoundError:
    print(gc.isenabled())
"""


def test_imports_are_not_collected_and_everything_else_is() -> None:
    said = subprocess.run([sys.executable, "-c", _SEEN], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0", "True", "True", "True"]


_COMMAND = """
import gc
import sys
import supervisors.cli

try:
    supervisors.cli.main(["--help"])
finally:
    sys.stderr.write(str(gc.get_freeze_count()))
"""


def test_the_command_imports_so() -> None:
    said = subprocess.run([sys.executable, "-c", _COMMAND], capture_output=True, text=True, check=True).stderr
    assert int(said) > 10_000
