"""docs/approval.md says what is so: its example is an approval, its table has every field, its outcomes are ours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from actors import approvals
from config.models import SystemConfig
from runbooks.approval import Verdict, needs_approval, rules_of
from runbooks.border import ApprovalModel
from runbooks.model import OnTimeout
from tests.runbooks.files import changed, runbook

TEXT = (Path(__file__).parents[2] / "docs" / "approval.md").read_text(encoding="utf-8")


def test_the_example_asks_for_what_it_says() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    approval = json.loads("{" + example + "}")["approval"]
    made = runbook(changed("/actions/0/risk_level", "medium"), approval=approval)
    rules = rules_of(made)
    assert needs_approval(made)
    assert (rules.approvers, rules.four_eyes, rules.timeout_s) == (("ann", "key:desk-1"), True, 900.0)
    assert (rules.on_timeout, rules.safe_action) == (OnTimeout.SAFE_ACTION, "block_new_orders")
    assert not needs_approval(runbook(approval=approval)), "its steps are of low risk"


def test_every_field_stands_there_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.+?) \|", TEXT, re.MULTILINE))
    fields = ApprovalModel.model_fields
    assert rows.keys() >= fields.keys()
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        said = rows[name].strip("`")
        expected = {"timeout": "required", "safe_action": "none"}.get(name)
        assert said == expected if expected else json.loads(said) == default, name


def test_every_outcome_stands_there() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", TEXT, re.MULTILINE))
    source = Path(approvals.__file__).read_text(encoding="utf-8")
    assert 'outcome = "void"' in source
    assert {one.value for one in Verdict} - {"expired"} | {"void"} <= rows


def test_the_configuration_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    made = SystemConfig.model_validate(yaml.safe_load(example))
    assert {name: str(file) for name, file in made.links.operator.tokens.items()} == {"ann": "secrets/ann.token"}
