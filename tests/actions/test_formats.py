"""Changes of configuration files: what changes, what stays, what is refused."""

from __future__ import annotations

import configparser
import json
import tomllib
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.formats import FORMATS, BadChange, Changes, changed, format_of, holds

UNIT = """\
# kept
[Unit]
Description=Risk manager

[Service]
ExecStart=/usr/bin/risk \\
    # a comment inside
    --port 8081
ExecStartPre=/bin/one
ExecStartPre=/bin/two
; kept too
CPUQuota=50%
Environment=A=1

[Install]
WantedBy=multi-user.target
"""
INI = "; top\n[logger.root]\nlevel : INFO\nhandlers=a,\n  b\n\n[net]\nPort = 80\nskip\n"
YAML = """\
# settings
database:   # the main one
    host: 'db1'
    ports: [1, 2]
    pool:
        size: 5  # small
services:
    - name: a
    - name: b  # second
8080: open
"""
TOML = """\
# settings
[database]
host = "db1" # main
ports = [1, 2]

[database.pool]
size = 5

[[services]]
name = "a"
"""
JSON = '{\n    "database": {\n        "host": "db1",\n        "ratio": 0.10\n    },\n    "names": ["a", "ü"]\n}\n'


def _changed(text: str, form: str, sets: dict[str, Any], remove: tuple[str, ...] = ()) -> str:
    changes = Changes(sets, remove)
    made = changed(text.encode(), form, changes)
    assert holds(made, form, changes) == []
    assert changed(made, form, changes) == made, "a second time changes nothing"
    return made.decode()


def lines_changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """What went and what came."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_the_value_of_a_unit_is_changed_not_its_key() -> None:
    """The first system turned CPUQuota=50% into 80%=50%."""
    made = _changed(UNIT, "systemd", {"Service.CPUQuota": "80%"})
    assert lines_changed(UNIT, made) == (["CPUQuota=50%"], ["CPUQuota=80%"])


def test_a_unit_keeps_what_is_not_changed_and_takes_new_keys_where_they_belong() -> None:
    made = _changed(UNIT, "systemd", {"Service.MemoryMax": "1G", "Slice.CPUWeight": 20}, ("Service.Environment",))
    assert lines_changed(UNIT, made) == (["Environment=A=1"], ["MemoryMax=1G", "[Slice]", "CPUWeight=20"])
    service = made[made.index("[Service]") : made.index("[Install]")]
    assert "MemoryMax=1G\n" in service


def test_keys_that_stand_several_times_need_all_their_values() -> None:
    with pytest.raises(BadChange, match="stands there 2 times"):
        _changed(UNIT, "systemd", {"Service.ExecStartPre": "/bin/three"})
    made = _changed(UNIT, "systemd", {"Service.ExecStartPre": ["/bin/one", "/bin/2", "/bin/3"]})
    assert [line for line in made.splitlines() if "ExecStartPre" in line] == [
        "ExecStartPre=/bin/one",
        "ExecStartPre=/bin/2",
        "ExecStartPre=/bin/3",
    ]
    fewer = _changed(UNIT, "systemd", {"Service.ExecStartPre": ["/bin/two"]})
    assert fewer.count("ExecStartPre") == 1


def test_a_value_over_several_lines_is_one_value() -> None:
    read = "/usr/bin/risk  --port 8081"  # the backslash stands for a space, after the one before it
    assert holds(UNIT.encode(), "systemd", Changes({"Service.ExecStart": read})) == []
    made = _changed(UNIT, "systemd", {"Service.ExecStart": "/usr/bin/risk"})
    assert "--port" not in made
    assert "a comment inside" not in made
    assert _changed(UNIT, "systemd", {}, ("Service.ExecStart",)).count("ExecStart=") == 0


@pytest.mark.parametrize("value", ["50%\nExecStartPre=/bin/evil", "a\rb", "a\x85b", "x\\", " x", "a\0b"])
def test_a_value_never_becomes_a_second_line(value: str) -> None:
    for form in ("systemd", "ini"):
        with pytest.raises(BadChange, match="a value in this format"):
            _changed("[Service]\nCPUQuota=1\n", form, {"Service.CPUQuota": value})


@pytest.mark.parametrize(
    "key", ["Service.A=B", "Service.#x", "Service.[x", "/Service/a\nb", "/S]\n[T/a", "/a/b/c", "."]
)
def test_a_key_never_becomes_something_else(key: str) -> None:
    with pytest.raises(BadChange):
        _changed(UNIT, "systemd", {key: "1"})


def test_ini_keys_do_not_differ_by_case_and_sections_may_have_dots() -> None:
    made = _changed(
        INI, "ini", {"/logger.root/LEVEL": "DEBUG", "net.port": 81, "net.new": True}, ("/logger.root/handlers",)
    )
    assert lines_changed(INI, made) == (
        ["level : INFO", "handlers=a,", "  b", "Port = 80"],
        ["level : DEBUG", "Port = 81", "new = true"],
    )
    parser = configparser.ConfigParser(allow_no_value=True)
    parser.read_string(made)
    assert dict(parser["logger.root"]) == {"level": "DEBUG"}
    assert parser["net"]["new"] == "true"


def test_yaml_keeps_comments_order_and_quotes() -> None:
    made = _changed(YAML, "yaml", {"database.pool.size": 9, "database.host": "db2", "services.1.name": "c"})
    assert lines_changed(YAML, made) == (
        ["    host: 'db1'", "        size: 5  # small", "    - name: b  # second"],
        ["    host: 'db2'", "        size: 9  # small", "    - name: c  # second"],
    )
    assert yaml.safe_load(_changed(YAML, "yaml", {"8080": "closed"}))[8080] == "closed"


@pytest.mark.parametrize(
    "text", ["yes", "no", "012", "1:30", "1e3", "null", "~", "2026-01-01", "a: b", "#x", "- x", "", "-_", "+__", "0o7"]
)
def test_a_text_stays_a_text_for_every_yaml_reader(text: str) -> None:
    made = _changed(YAML, "yaml", {"database.mode": text})
    assert yaml.safe_load(made)["database"]["mode"] == text


@pytest.mark.parametrize("text", ["[" * 4096, "{" * 4096, "- " * 2000, "? " * 2000])
def test_a_text_that_looks_like_deep_yaml_is_a_text(text: str) -> None:
    """Read as YAML it would be nested too deeply."""
    made = _changed(YAML, "yaml", {"database.mode": text})
    assert yaml.safe_load(made)["database"]["mode"] == text


def test_half_a_character_is_refused_in_yaml() -> None:
    with pytest.raises(BadChange, match="half a character"):
        _changed(YAML, "yaml", {"database.mode": "\ud800"})


def test_an_alias_is_not_changed_by_the_back_door() -> None:
    with pytest.raises(BadChange, match="would change more than it says"):
        _changed("a: &x {b: 1}\nc: *x\n", "yaml", {"c.b": 2})


def test_toml_keeps_comments_and_order() -> None:
    made = _changed(TOML, "toml", {"database.host": "db2", "database.pool.size": 9, "services.0.name": "c", "new.x": 1})
    assert lines_changed(TOML, made) == (
        ['host = "db1" # main', "size = 5", 'name = "a"'],
        ['host = "db2" # main', "size = 9", 'name = "c"', "[new]", "x = 1"],
    )
    assert tomllib.loads(made)["database"]["ports"] == [1, 2]


def test_json_keeps_order_indent_and_letters() -> None:
    made = _changed(JSON, "json", {"/database/host": "db2", "names.0": "b"}, ("database.ratio",))
    assert json.loads(made) == {"database": {"host": "db2"}, "names": ["b", "ü"]}
    assert made.startswith('{\n    "database"')
    assert "ü" in made


BROKEN = {
    "json": ['{"a": 1', '{"a": 1, "a": 2}', '{"a": NaN}', "[1]"],
    "yaml": ["a: 1\na: 2\n", "a: [1\n", "a: 1\n---\nb: 2\n", "- 1\n"],
    "toml": ["a = \n", "[a]\n[a]\n", "a = 1\na = 2\n"],
    "ini": ["[a\nb=1\n", "=1\n"],
    "systemd": ["[S]\nnonsense\n", "[S\nA=1\n"],
}


@pytest.mark.parametrize(("form", "text"), [(form, text) for form, texts in BROKEN.items() for text in texts])
def test_nothing_is_written_through_an_error(form: str, text: str) -> None:
    with pytest.raises(BadChange):
        changed(text.encode(), form, Changes({"a.b": "1"}))


@pytest.mark.parametrize("raw", [b"a: \xff\n", b"a: 1\x00\n"])
def test_what_is_no_text_is_refused(raw: bytes) -> None:
    with pytest.raises(BadChange, match="text"):
        changed(raw, "yaml", Changes({"a": 2}))


@pytest.mark.parametrize("form", ["json", "yaml", "toml"])
def test_a_table_is_not_overwritten_by_a_value(form: str) -> None:
    text = {"json": '{"a": {"b": 1}}', "yaml": "a:\n  b: 1\n", "toml": "[a]\nb = 1\n"}[form]
    with pytest.raises(BadChange, match="is a table or list"):
        _changed(text, form, {"a": 1})
    with pytest.raises(BadChange, match="is a value, no table"):
        _changed(text, form, {"a.b.c": 1})


def test_windows_line_ends_marks_and_encodings_stay() -> None:
    raw = "[Common]\r\nLogin=1\r\nServer=x\r\n".encode("utf-16")
    made = changed(raw, "ini", Changes({"Common.Login": "2"}))
    assert made == "[Common]\r\nLogin=2\r\nServer=x\r\n".encode("utf-16")
    assert changed(b"\xef\xbb\xbfa: 1\r\n", "yaml", Changes({"a": 2})) == b"\xef\xbb\xbfa: 2\r\n"


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_file_that_is_not_there_is_made(form: str) -> None:
    made = changed(None, form, Changes({"a.b": "x"}))
    assert holds(made, form, Changes({"a.b": "x"})) == []
    assert holds(None, form, Changes({}, ("a.b",))) == []


def test_a_truth_is_no_number() -> None:
    assert holds(b'{"a": 1}', "json", Changes({"a": True}))
    assert holds(b"a: true\n", "yaml", Changes({"a": 1}))


@pytest.mark.parametrize(
    ("file", "form"),
    [("/e/a.json", "json"), ("/e/a.yml", "yaml"), ("/e/x.service", "systemd"), ("/e/x.service.d/o.conf", "systemd")],
)
def test_the_name_shows_the_format(file: str, form: str) -> None:
    assert format_of(file, None) == form
    with pytest.raises(BadChange, match="say `format`"):
        format_of("/e/app.conf", None)


def test_what_the_yaml_reader_stumbles_over_is_refused() -> None:
    with pytest.raises(BadChange, match="is no YAML"):
        _changed("-_: 1\n", "yaml", {"a": 1})


def test_a_number_that_the_yaml_reader_writes_in_another_way_is_not_changed_along() -> None:
    for other in ("09_: 1\n", "a: {09_: x}\n"):
        with pytest.raises(BadChange, match="would change more than it says"):
            _changed(other, "yaml", {"b": 1})
    kept = "a: 0_7_ # x\nb: 0o17\nc: 1e3\nd: .5\ne: 1.50\nf: 012\n"
    assert _changed(kept, "yaml", {"zz": 1}) == kept + "zz: 1\n"


WORDS = st.text("abcXYZ019_-", min_size=1, max_size=8).filter(lambda word: word.strip("-_"))
"""Our reader of YAML stumbles over a plain ``-_``."""
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


@given(st.dictionaries(WORDS, st.dictionaries(WORDS, VALUES, max_size=3), min_size=1, max_size=3), WORDS, WORDS, VALUES)
def test_what_is_set_is_read_back_and_all_else_stays(
    tables: dict[str, dict[str, str]], table: str, key: str, value: str
) -> None:
    pointer = f"/{table}/{key}"
    wanted = {**tables, table: {**tables.get(table, {}), key: value}}
    made = changed(json.dumps(tables).encode(), "json", Changes({pointer: value}))
    assert json.loads(made) == wanted
    try:
        made = changed(yaml.safe_dump(tables, allow_unicode=True).encode(), "yaml", Changes({pointer: value}))
    except BadChange:  # a number that our reader writes in another way: never changed along
        assert "_" in yaml.safe_dump(tables)
        return
    assert yaml.safe_load(made) == wanted


# -- INI files and units, against other readers -----------------------------------------------------------------------

SAMBA = """\
[global]
   workgroup = HOME
   max log size = 1000
; off
   log level = 1

[share]
   path = /srv
"""


def ini_read(text: str, *, is_strict: bool = True) -> dict[str, dict[str, str | None]]:
    parser = configparser.RawConfigParser(allow_no_value=True, strict=is_strict)
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in parser.sections()}


def tried(text: str, form: str, changes: Changes) -> tuple[str, str]:
    """The text after the changes, or why they are refused."""
    try:
        return changed(text.encode(), form, changes).decode(), ""
    except BadChange as refused:
        return "", str(refused)


@pytest.mark.parametrize("key", ["workgroup", "max log size", "log level", "new one"])
def test_the_other_settings_of_an_indented_file_stay(key: str) -> None:
    made = _changed(SAMBA, "ini", {f"global.{key}": "NEW"})
    wanted = ini_read(SAMBA)
    wanted["global"][key] = "NEW"
    assert ini_read(made) == wanted
    assert len(lines_changed(SAMBA, made)[1]) == 1
    gone = _changed(SAMBA, "ini", {}, (f"global.{key}",))
    del wanted["global"][key]
    assert ini_read(gone) == wanted


def test_a_line_that_readers_take_differently_is_never_edited_away() -> None:
    """To configparser the second line goes on with the first, to Samba it is a setting of its own."""
    text = "[global]\nworkgroup = HOME\n   max log size = 1000\nother = 1\n"
    with pytest.raises(BadChange, match=r"global\.workgroup: line 3 goes on .* or is a setting of its own"):
        _changed(text, "ini", {"global.workgroup": "OFFICE"})
    with pytest.raises(BadChange, match="line 3"):
        _changed(text, "ini", {}, ("global.workgroup",))
    assert "max log size = 1000\n" in _changed(text, "ini", {"global.other": 2, "global.new": 3})


def test_a_carriage_return_that_ends_no_line_is_refused() -> None:
    for form in ("ini", "systemd"):
        with pytest.raises(BadChange, match="carriage return"):
            _changed("[a]\nb=1\rc=2\n", form, {"a.b": "3"})


INI_LINES = st.sampled_from(
    [
        *("a = 1", "b: two", "C", "d = x ; y", "e =", "f==3", "g = k:l", "a = 2", "B = [x]", "h=\xa01", "\xdf = 1"),
        *("", "  ", "; note", "# note", "  # in", "\t; in", "[s2]", "[s1]", "  [s3]", "[s4]"),
        *("  more", "\tmore", "    much more", " a = 9", "  b = 8", "   d: 7", "\u2028x = 1", "c2 = \x85y"),
    ]
)
INI_TEXTS = st.lists(INI_LINES, max_size=12).map(lambda lines: "\n".join(["[s1]", *lines]))
INI_KEYS = st.sampled_from(["s1.a", "s1.b", "s1.c", "s1.d", "s1.e", "s2.a", "s2.F", "s2.new", "s1.new", "s3.b", "s9.x"])


@pytest.mark.parametrize("removes", [False, True])
@settings(max_examples=400)
@given(INI_TEXTS, INI_KEYS, st.sampled_from(["NEW", "", "# x", "= y", "[z]"]))
def test_configparser_reads_the_change_and_nothing_else(removes: bool, text: str, key: str, value: str) -> None:
    section, name = key.lower().split(".")
    try:
        wanted = ini_read(text)
    except (configparser.Error, AttributeError):  # a value of none that goes on, in Python 3.11
        with suppress(BadChange):
            changed(text.encode(), "ini", Changes({key: value}))
        return
    made, refused = tried(text, "ini", Changes({}, (key,)) if removes else Changes({key: value}))
    if refused:
        assert "readers differ" in refused
        return
    if removes:
        wanted.get(section, {}).pop(name, None)
    else:
        wanted.setdefault(section, {})[name] = value
    assert ini_read(made) == wanted


@settings(max_examples=300)
@given(INI_TEXTS, st.sampled_from(["s1.a", "s1.b", "s2.a"]), st.lists(st.sampled_from(["x", "y", "z"]), max_size=3))
def test_a_key_that_stands_several_times_gets_all_its_values(text: str, key: str, values: list[str]) -> None:
    section, name = key.split(".")
    try:
        wanted = ini_read(text, is_strict=False)
        made = changed(text.encode(), "ini", Changes({key: values})).decode()
    except (configparser.Error, AttributeError, BadChange):
        return
    if values:
        wanted.setdefault(section, {})[name] = values[-1]
    else:
        wanted.get(section, {}).pop(name, None)
    assert ini_read(made, is_strict=False) == wanted


def unit_read(text: str) -> list[tuple[str, str, str]]:
    """As systemd does it (``config_parse`` and ``parse_line`` of src/shared/conf-parser.c), letter by letter."""
    found, section, kept = list[tuple[str, str, str]](), "", None
    for line in [*text.split("\n"), None]:
        if line is None:
            if kept is None:
                break
            whole = kept
        else:
            rest = line.lstrip(" \t\n\r")
            if rest[:1] in ("#", ";"):
                continue
            whole = rest if kept is None else kept + rest
            escaped = False
            for letter in whole:
                escaped = not escaped and letter == "\\"
            if escaped:
                kept = whole[:-1] + " "
                continue
        kept, whole = None, whole.strip(" \t\n\r")
        if not whole:
            continue
        if whole.startswith("["):
            assert whole.endswith("]"), "Invalid section header"
            section = whole[1:-1]
            continue
        key, sign, value = whole.partition("=")
        assert sign, "Missing '='"
        assert key.strip(" \t\n\r"), "Missing key name before '='"
        found.append((section, key.strip(" \t\n\r"), value.strip(" \t\n\r")))
    return found


UNIT_LINES = st.sampled_from(
    [
        *("A=1", "B = two", "A=3", "C=x \\", "D=y\\\\", "E=z\\\\\\", "F= \\", "B=\xa01", "G=a\u2028b", "H=\\ "),
        *("", "  ", "# note", "; note \\", "  # in", "  more", "  more \\", "\tC=9", "[S]", "[T]", "  [T] ", "a=\x85b"),
    ]
)
UNIT_TEXTS = st.lists(UNIT_LINES, max_size=12).map(lambda lines: "\n".join(["[S]", *lines]))


@settings(max_examples=600)
@given(
    UNIT_TEXTS,
    st.sampled_from(["A", "B", "C", "D", "E", "F", "a", "new"]),
    st.lists(st.sampled_from(["x", "", "y z", "\\a"]), max_size=3),
)
def test_systemd_reads_the_change_and_nothing_else(text: str, key: str, values: list[str]) -> None:
    try:
        before = unit_read(text)
    except AssertionError:
        with suppress(BadChange):
            changed(text.encode(), "systemd", Changes({f"S.{key}": values}))
        return
    made, refused = tried(text, "systemd", Changes({f"S.{key}": values}))
    if refused:  # a file that ends in the middle of a value, or a key over two lines
        assert "would change more" in refused or "is no KEY=VALUE" in refused
        assert "\\\n" in f"{text}\n"
        return
    after = unit_read(made)
    assert [one[2] for one in after if one[:2] == ("S", key)] == values
    assert [one for one in after if one[:2] != ("S", key)] == [one for one in before if one[:2] != ("S", key)]
