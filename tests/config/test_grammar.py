"""The comma grammar, its scalars, and reading key by key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.config.grammar import (
    Options,
    nearest,
    parse_bool,
    parse_number,
    parse_pairs,
    parse_size,
    where_of,
)
from aioemu.errors import ConfigError

KEY = st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True)


def opts(text: str, implied: str | None = None) -> Options:
    return Options.parse("-x", text, implied)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a", [("first", "a")]),
        ("a=1", [("a", "1")]),
        ("v,a=1,b=", [("first", "v"), ("a", "1"), ("b", "")]),
        ("v,flag,noflag", [("first", "v"), ("flag", "on"), ("flag", "off")]),
        ("a=x,,y,b=,,", [("a", "x,y"), ("b", ",")]),
        ("v,,w,a=1", [("first", "v,w"), ("a", "1")]),
        ("a=b=c", [("a", "b=c")]),
        ("v,", [("first", "v")]),
        (",a=1", [("first", ""), ("a", "1")]),
        ("a=,,,b=2", [("a", ","), ("b", "2")]),
        ("nodelay", [("first", "nodelay")]),
        ("v,nodelay", [("first", "v"), ("delay", "off")]),
    ],
)
def test_pairs(text: str, pairs: list[tuple[str, str]]) -> None:
    """Pairs come in order; the first bare word is the implied key's value, later ones are flags, doubled commas one."""
    assert parse_pairs(text, "first") == pairs


@given(st.lists(st.tuples(KEY, st.text(alphabet=st.characters(codec="utf-8"), max_size=12)), max_size=6))
def test_what_is_written_with_doubled_commas_is_read_back(pairs: list[tuple[str, str]]) -> None:
    """Any value survives when its commas are doubled."""
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in pairs)

    assert parse_pairs(text) == pairs


@given(st.text(max_size=60))
def test_any_text_is_taken_apart(text: str) -> None:
    """No text makes the parser fail or loses a key."""
    pairs = parse_pairs(text, "first")

    assert all(isinstance(key, str) and isinstance(value, str) for key, value in pairs)
    assert len(pairs) <= text.count(",") + 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("1K", 1024),
        ("1.5G", 3 << 29),
        ("0.5k", 512),
        ("1.M", 1 << 20),
        ("0x1000", 4096),
        ("0x10M", 16 << 20),
        ("15E", 15 << 60),
        ("8b", 8),
        ("16E", None),
        ("18446744073709551616", None),
        ("1.5", None),
        ("1e3", None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1KB", None),
        ("1 K", None),
        ("K", None),
        ("٣", None),
        ("0x", None),
        (".5K", None),
        ("1" * 1000, None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    """Letters are powers of 1024, fractions need one, nothing reaches 2^64."""
    assert parse_size(text) == size


@given(st.integers(0, (1 << 64) - 1), st.sampled_from("bkmgtpe"))
def test_whole_sizes_are_exact(number: int, unit: str) -> None:
    """A whole number with a suffix is exact, or refused when it does not fit."""
    exact = number << 10 * "bkmgtpe".index(unit)

    assert parse_size(f"{number}{unit}") == (exact if exact < 1 << 64 else None)


def test_default_unit() -> None:
    """-m counts in MiB where nothing is said."""
    assert parse_size("2", "m") == 2 << 20
    assert parse_size("2K", "m") == 2 << 10


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("010", 8),
        ("0x1F", 31),
        ("-5", -5),
        ("08", None),
        ("1_0", None),
        ("", None),
        ("1 ", None),
        ("٣", None),
    ],
)
def test_numbers(text: str, number: int | None) -> None:
    """Decimal, 0x and leading-0 octal, as strtoull with base 0."""
    assert parse_number(text) == number


def test_booleans() -> None:
    """on/off, yes/no, true/false and nothing else."""
    assert [parse_bool(word) for word in ("on", "yes", "true", "y")] == [True] * 4
    assert [parse_bool(word) for word in ("off", "no", "false", "n")] == [False] * 4
    assert [parse_bool(word) for word in ("", "On", "1", "0", "maybe")] == [None] * 5


def test_reading_takes_the_last_value_and_refuses_the_rest() -> None:
    """Of a repeated key the last value counts; a key that nobody takes is named with its nearest neighbour."""
    read = opts("a=1,a=2,servr=on")
    assert read.number("a", 0) == 2
    assert read.flag("server", False) is False
    with pytest.raises(
        ConfigError, match=r"^-x a=1,a=2,servr=on: Invalid parameter 'servr'; did you mean server"
    ) as err:
        read.close()

    assert err.value.option == "-x a=1,a=2,servr=on"


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("a=maybe", lambda o: o.flag("a", True), "Parameter 'a' expects 'on' or 'off'"),
        ("a=x", lambda o: o.number("a", 0), "Parameter 'a' expects a number"),
        ("a=-1", lambda o: o.number("a", 0), "Parameter 'a' must be between 0 and"),
        ("a=1X", lambda o: o.size("a"), "Parameter 'a' expects a size"),
        ("b=1", lambda o: o.need("a"), "Parameter 'a' is missing"),
        ("id=1a", lambda o: o.identifier(), "Parameter 'id' expects an identifier"),
        (
            "a=conrol",
            lambda o: o.choice("a", ("control",), "x"),
            "does not accept value 'conrol'; did you mean control",
        ),
        ("a=q", lambda o: o.choice("a", ("x", "y"), "x"), r"does not accept value 'q' \(known: x, y\)"),
    ],
)
def test_each_reader_says_what_it_wants(text: str, read: object, message: str) -> None:
    """A value of the wrong kind is an error with the option and the key."""
    assert callable(read)
    with pytest.raises(ConfigError, match=f"^-x {text}: .*{message}"):
        read(opts(text))


def test_json_values_keep_their_types() -> None:
    """A value that came by JSON or Python is taken if its type fits, and refused if not."""
    read = Options("x", [("n", 5), ("b", True), ("s", "text"), ("l", [1])])
    assert (read.number("n", 0), read.flag("b", False), read.text("s"), read.value("l")) == (5, True, "text", [1])
    for key, value in (("n", True), ("n", [1]), ("n", None)):
        if value is not None:
            with pytest.raises(ConfigError):
                Options("x", [(key, value)]).number(key, 0)
    with pytest.raises(ConfigError, match="expected: string"):
        Options("x", [("s", 5)]).text("s")


def test_long_arguments_are_cut_in_errors() -> None:
    """An error names the argument without repeating a screenful."""
    assert len(where_of("-append", "x" * 10_000)) < 200


def test_nearest() -> None:
    """A near word is offered, a far one is not."""
    assert nearest("machin", ["machine", "m"]) == "machine"
    assert nearest("zzz", ["machine", "m"]) is None
