"""docs/audit.md says what is so: every kind of row stands there, its example is a configuration, its texts are ours."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from actors.chain import checking, macs, place, tables
from actors.chain.anchor import BEGUN
from actors.chain.macs import FORGOTTEN, FOUND
from actors.journal import audit, keys_seen
from actors.journal.retention import DAY_S, Retention
from config.models import AuditConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
NOTED = re.compile(r'audit\.note\(\s*db, [^,]+, "([a-z_]+)"')


def section(title: str) -> str:
    return re.split(r"\n##+ ", TEXT.split(f"# {title}\n", 1)[1])[0]


def first_cells(title: str) -> set[str]:
    rows = re.findall(r"^\| (.+?) \|", section(title), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_kind_of_row_stands_there() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "actors").rglob("*.py")]
    written = {kind for source in sources for kind in NOTED.findall(source)}
    assert len(written) >= 7, written
    constants = {FOUND, FORGOTTEN, BEGUN, audit.RUNS_FORGOTTEN, audit.BODIES_FORGOTTEN, audit.ADOPTED, keys_seen.EVENT}
    assert first_cells("What is in it") == written | constants


def test_the_example_is_a_configuration() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    made = AuditConfig.model_validate(yaml.safe_load(example)["audit"])
    assert (str(made.tip), made.syslog) == ("/mnt/other-disk/selfheal.tip", True)
    assert f"`STATE/{place.TIP_NAME}`" in TEXT
    assert f"`STATE/keys/{place.KEY_NAME}`" in TEXT


def test_what_it_says_is_found_is_said_so() -> None:
    said = "".join(Path(str(one.__file__)).read_text(encoding="utf-8") for one in (macs, checking, tables, place))
    for text in re.findall(r"`([^`]+)`", section("What is found, and by what")):
        words = re.sub(r"^row \d+: |^execution x-1: |: rows \d+ to \d+.*| the tip knows is not this one", "", text)
        words = words.removeprefix(f"{place.TIP_NAME} ")
        assert words in (FORGOTTEN, place.TIP_NAME) or words in said, text


def test_what_is_kept_is_what_it_says() -> None:
    keep = Retention()
    assert (keep.audit_s, keep.audit) == (3650 * DAY_S, 10_000_000)
