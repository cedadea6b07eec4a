"""What the Makefile, the editor's tasks, the README and the lock files name is really there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"(?<!# )(?:\.venv/bin/)?selfheal ((?:[a-z]+ ?)+)")
TARGET = re.compile(r"""(?:`|\$ |"|^)make ([a-z][a-z.-]*)""", re.MULTILINE)


def texts() -> dict[str, str]:
    names = [
        "README.md",
        ".vscode/tasks.json",
        ".ci/run",
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")),
    ]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z.][a-z.-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", list(texts()))
def test_every_make_target_named_exists(name: str) -> None:
    assert set(TARGET.findall(texts()[name])) <= make_targets()


def test_every_command_named_exists() -> None:
    words = {match.split()[0] for text in texts().values() for match in COMMAND.findall(text)}
    done = subprocess.run(
        [sys.executable, "-m", "supervisors.cli", "--help"], check=True, capture_output=True, text=True
    )
    known = set(re.findall(r"[a-z]+", done.stdout))
    assert words, "nothing was looked at"
    assert words <= known


@pytest.mark.parametrize("target", ["run", "test", "check", "service-start", "service-status", ".venv", "tree"])
def test_every_target_can_be_planned(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_service_restart_wants_a_name() -> None:
    done = subprocess.run(["make", "service-restart"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "SERVICE=" in done.stderr


def test_the_lock_files_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for file, wanted in (
        ("requirements.lock", [*project["dependencies"], *extras["daemon"]]),
        ("requirements-dev.lock", [*project["dependencies"], *extras["daemon"], *extras["dev"]]),
    ):
        pinned = {
            re.split(r"==", line)[0].lower()
            for line in (ROOT / file).read_text(encoding="utf-8").splitlines()
            if "==" in line and not line.startswith(" ")
        }
        names = {re.split(r"[<>=;\[ ]", one)[0].lower() for one in wanted}
        assert names <= pinned, file


def test_the_editors_files_are_json_and_name_schemas_that_exist() -> None:
    for name in ("tasks.json", "launch.json", "settings.json"):
        json.loads((ROOT / ".vscode" / name).read_text(encoding="utf-8"))
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    for schema in (*settings["yaml.schemas"], *(one["url"] for one in settings["json.schemas"])):
        assert (ROOT / schema).exists(), schema


def test_the_compose_file_runs_a_configuration_that_exists() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose/docker-compose.yml").read_text(encoding="utf-8"))
    command = compose["services"]["service-manager"]["command"]
    assert (ROOT / command[command.index("--config") + 1].removeprefix("/app/")).exists()


def test_the_light_install_says_what_is_missing(tmp_path: Path) -> None:
    """Without the daemon's packages the command names the extra, and the clients still load."""
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        heavy = ('typer', 'rich', 'httpx', 'pydantic', 'yaml', 'fastapi', 'uvicorn', 'psutil', 'pykka',"
        " 'structlog', 'docker')\n"
        "        if name.partition('.')[0] in heavy:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from guardian_link import Alert, GuardianClient\n"
        "from bridge_link import BridgeClient\n"
        "from supervisors.cli import main\n"
        "main(['tree'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "selfheal needs the daemon extra: pip install 'PATH_TO_CHECKOUT[daemon]'\n"


FORBIDDEN = re.compile(r"/(?:home|root|Users)/[a-z]|preexec_fn=|shell=True|time\.sleep\(")
ALLOWED = {
    "tests/support/eventually.py": "the one place that sleeps",
    "tests/packaging/test_tooling.py": "names what it looks for",
    "benchmarks/alert_throughput.py": "a program of its own: it waits until a server answers and all is decided",
    "benchmarks/log_flood.py": "paces its kills",
    "benchmarks/container_restart.py": "paces its kills",
    "benchmarks/restart_latency.py": "paces its kills",
    "tests/crash/rows.py": "a program of its own: it looks again until a deadline",
    "tests/crash_runbooks/rows.py": "a program of its own: it looks again until a deadline",
    "tests/crash/scenarios.py": "a program of its own: it lets the keeper come to the middle of its work",
    "tests/crash/stage.py": "a program of its own: it looks again until a deadline",
    "tests/crash/storm.py": "a program of its own: its kills come at random moments",
    "tests/crash/world.py": "a program of its own: it looks again until a deadline",
    "examples/bridge_simulator.py": "a program of its own: its peers and its end are looked at again and again",
    "tests/system/test_canary.py": "the text of a child's program",
    "tests/system/test_recovery_switch.py": "the text of a child's program",
    "tests/system/test_runbook_reload.py": "the text of a child's program",
    "tests/links/alert_storm.py": "its kills come at random moments; the text of a child's program",
    "tests/runtimes/test_respawn.py": "the text of a child's program",
    "tests/runtimes/test_log_rotation.py": "the text of a child's program",
    "tests/support/escapees.py": "a child's program",
    "tests/system/test_logs.py": "the text of a child's program",
    "tests/system/test_reload.py": "the text of a child's program",
    "benchmarks/never_twice_peers.py": "gives peers time to show what they do",
    "examples/supervised_actors.py": "is a program of its own",
    "examples/senders/python/selfheal_send.py": "is a program of its own",
}


def test_no_machine_path_shell_or_sleep_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    found = {
        name: hits
        for name in listed
        if name not in ALLOWED and name.endswith((".py", ".md", ".yaml", ".json", ".toml", ".yml", "Makefile", "run"))
        if (hits := FORBIDDEN.findall((ROOT / name).read_text(encoding="utf-8")))
    }
    assert found == {}
