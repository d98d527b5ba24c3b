"""Nested values: dotted keys and JSON; and the configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.config.inifile import parse_groups, read_groups
from aioemu.config.keyval import parse_keyval, unflatten
from aioemu.errors import ConfigError, EmuError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("q,a=1", {"driver": "q", "a": "1"}),
        ("driver=q,a.b.c=1,a.d=2", {"driver": "q", "a": {"b": {"c": "1"}, "d": "2"}}),
        ("l.0=a,l.1=b", {"l": ["a", "b"]}),
        ("l.1.x=b,l.0.x=a", {"l": [{"x": "a"}, {"x": "b"}]}),
        ("a=1,a=2", {"a": "2"}),
        ("f.filename=a,,b", {"f": {"filename": "a,b"}}),
        ('{"a": [1, true, null, "x"], "b": {"c": 1.5}}', {"a": [1, True, None, "x"], "b": {"c": 1.5}}),
        ("{'a': 'it\\'s \"so\"'}", {"a": 'it\'s "so"'}),
    ],
)
def test_values(text: str, value: dict[str, Any]) -> None:
    """Dots nest, numbers make lists, JSON is taken as it is with either quote."""
    assert parse_keyval("-blockdev", text, "driver") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q,flag", "Expected '=' after parameter 'flag'"),
        ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
        ("a=2,a.b=1", "Parameters 'a.*' used inconsistently"),
        ("l.0=a,l.x=b", "used inconsistently: both numbers and names"),
        ("l.0=a,l.2=b", "Parameter 'l.1' is missing"),
        ("l.01=a", "Parameter 'l.0' is missing"),
        ("=x", "Invalid parameter ''"),
        ("a..b=x", "Invalid parameter 'a..b'"),
        ("l.99999999999=a", "Invalid parameter 'l.99999999999'"),
        ("a." * 100 + "b=1", "Invalid parameter"),
        ("{", "JSON parse error"),
        ('{"a": 1, "a": 2}', "JSON parse error, duplicate key"),
        ('{"a": NaN}', "JSON parse error, invalid keyword 'NaN'"),
        ('{"a":' * 100_000, "JSON nesting depth limit exceeded"),
        ("{}x", "JSON parse error"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    """What cannot be read says so, with the option."""
    with pytest.raises(ConfigError) as caught:
        parse_keyval("-blockdev", text, "driver")

    assert str(caught.value).startswith("-blockdev ")
    assert message in str(caught.value)


LEAF = st.text(max_size=5)
NAME = st.from_regex(r"[a-z][a-z-]{0,4}", fullmatch=True)
TREE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAME, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    """The dotted keys of a tree."""
    if isinstance(value, str):
        return [(prefix, value)]
    items = enumerate(value) if isinstance(value, list) else value.items()
    return [pair for key, inner in items for pair in flatten(f"{prefix}.{key}", inner)]


@given(st.dictionaries(NAME, TREE, max_size=3))
def test_dotted_keys_and_json_say_the_same(tree: dict[str, Any]) -> None:
    """A tree written with dotted keys reads back as the tree, and so does its JSON."""
    pairs = [pair for key, value in tree.items() for pair in flatten(key, value)]

    assert unflatten("x", pairs) == tree
    assert parse_keyval("-x", json.dumps(tree)) == tree


@given(st.text(max_size=80))
def test_any_argument_is_read_or_refused(text: str) -> None:
    """No argument breaks the reader; `{` in front too."""
    for argument in (text, "{" + text, "{'a':" + text + "}"):
        try:
            parse_keyval("-x", argument, "driver")
        except ConfigError:
            continue


def test_configuration_file(tmp_path: Path) -> None:
    """Groups with and without id, quoted and bare values, comments and blank lines, in order."""
    path = tmp_path / "c.cfg"
    path.write_text('# comment\n[machine]\n  type = "q35"\n\n[device "d0"]\n  driver="x"\n  a.b = "1, 2"\n bare = 5\n')

    groups = [(g.name, g.id, g.pairs) for g in read_groups(str(path))]

    assert groups == [
        ("machine", None, [("type", "q35")]),
        ("device", "d0", [("driver", "x"), ("a.b", "1, 2"), ("bare", "5")]),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [("x = 1", 1), ("[m]\nx", 2), ("[m", 1), ('[m]\nx = "1', 2), ("\n\n[m] [n]", 3), ('[m "a" b]', 1)],
)
def test_configuration_file_mistakes_have_a_line(text: str, line: int) -> None:
    """An error names the file and the line."""
    with pytest.raises(ConfigError, match=rf"^c\.cfg:{line}: "):
        list(parse_groups("c.cfg", text))


def test_configuration_file_that_is_not_there() -> None:
    """A missing file is named."""
    with pytest.raises(EmuError, match="/no/such"):
        list(read_groups("/no/such"))


@given(st.text(max_size=200))
def test_any_file_is_read_or_refused(text: str) -> None:
    """No content breaks the reader."""
    try:
        list(parse_groups("c.cfg", text))
    except ConfigError:
        return
