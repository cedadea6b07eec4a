"""The documents lead to each other, and the map names what is there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from config import DEMO, load_config
from supervisors.planned import planned_tree
from supervisors.render import render_tree

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("actors", "supervisors", "runbooks", "bridge_link", "guardian_link", "config")
OWN = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.[a-z_]+)+)(?:\.[A-Z]\w*)?`")


def links(name: str) -> set[str]:
    found = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))
    return {one for one in found if "://" not in one}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file(name: str) -> None:
    missing = [one for one in links(name) if not ((ROOT / name).parent / one).exists()]
    assert missing == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached, ahead = set(), {"README.md"}
    while ahead:
        name = ahead.pop()
        reached.add(name)
        here = (ROOT / name).parent
        found = {str((here / one).resolve().relative_to(ROOT)) for one in links(name)}
        ahead |= {one for one in found if one in DOCUMENTS} - reached
    assert set(DOCUMENTS) - reached == set()


def test_the_readmes_tree_is_the_demos() -> None:
    """Node by node, as it is drawn (that the planned tree is the real one is shown in tests/system/test_planned.py)."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = page.split("$ selfheal tree\n")[1].partition("```")[0]
    shown = [re.sub(r" {2,}.*", "", line) for line in drawn.splitlines()]
    tree = render_tree(planned_tree(load_config(DEMO, {}), 0.0), now=0.0, width=200, planned=True)
    wanted = [re.sub(r" {2,}.*", "", line).replace("○", "●") for line in tree.splitlines()]
    assert shown == wanted


def test_no_page_installs_somebody_elses_package() -> None:
    """The name on the public index is not ours: what is installed is a checkout, or a wheel built from it."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    bare = re.compile(r"pip3? +install\b[^`\n]*[\s'\"]selfheal(?![\w./-])")
    found = []
    for name in tracked.stdout.split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
            found += [f"{name}: {match[0]}" for match in bare.finditer(text)]
    assert bare.search("`pip install -q 'selfheal[daemon]'`")
    assert found == []


def test_the_map_names_every_package() -> None:
    rooms = MAP.split("## Rooms", 1)[1].split("## The tree", 1)[0]
    inner = [path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    named = [path for path in inner if path.parent != ROOT and path.name not in {"commands", "demo"}]
    assert len(named) > 10
    missing = [str(path.relative_to(ROOT)) for path in named if not re.search(rf"[ .]{path.name}\b", rooms)]
    assert missing == []


def test_every_module_the_map_names_is_there() -> None:
    named = set(OWN.findall(MAP))
    assert len(named) > 15
    missing = []
    for name in sorted(named):
        module, last = name.rpartition(".")[::2]
        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found and not hasattr(importlib.import_module(module), last):
            missing.append(name)
    assert missing == []
