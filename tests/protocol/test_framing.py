"""JSON out of bytes: any split, any garbage, QEMU's dialect, bounded cost."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioemu.protocol import lexer
from aioemu.protocol.framing import Assembler, encode
from aioemu.protocol.lexer import MAX_DEPTH, Malformed

STRAY = "JSON parse error, stray "
VALUE = "JSON parse error, expecting value"

# what a stream holds, and what comes of it: QEMU 10.0 was asked for each
STREAMS: dict[bytes, list[Any]] = {
    b'{"a": 1}': [{"a": 1}],
    b'{"a":1}{"b":[]}\r\n\r\n [1]': [{"a": 1}, {"b": []}, [1]],
    b"{'it': 'is \\' \"', \"\\/\\b\\f\\n\\r\\t\\'\": 'x'}": [{"it": "is ' \"", "/\b\f\n\r\t'": "x"}],
    b"true false null 12 \"x\"'y'\n": [True, False, None, 12, "x", "y"],
    b"{]": [VALUE],
    b"{[}]": [VALUE],
    b"{}}": [{}, VALUE],
    b"]": [VALUE],
    b",": [VALUE],
    b"[1 2]": ["JSON parse error, expected separator in list"],
    b'{"a" 1}': ["JSON parse error, missing : in object pair"],
    b'{"a":1 "b":2}': ["JSON parse error, expected separator in dict"],
    b'{"a":1,}': [VALUE],
    b"{1:2}": ["JSON parse error, key is not a string in object"],
    b'{"a":{"b":1,"b":2}}': ["JSON parse error, duplicate key"],
    b'{"a":foo}': ["JSON parse error, invalid keyword 'foo'"],
    b'{"a":"\\q"}': ["JSON parse error, invalid escape sequence in string"],
    b'{"a":"\\ud800"}': ["JSON parse error, \\ud800 is not a valid Unicode character"],
    b'{"a":"\\u12zz"}': ["JSON parse error, \\u12zz is not a valid Unicode character"],
    b'["\\u00e9\\ud83d\\ude00\\u0000"]': [["\u00e9\U0001f600\0"]],
    b'["\x80"]': ["JSON parse error, invalid UTF-8 sequence in string"],
    b'{"a":%p}': [STRAY + "'%'", VALUE],
    b"%%p\n{}": [STRAY + "'%'", {}],
    b"\xff{}": [STRAY + "'\ufffd'", {}],
    b"\x01{}": [STRAY + "'\x01'", {}],
    b"{\xff{}": [STRAY + "'\ufffd'", {}],
    b"{'bad \xff{}": [STRAY + "''bad \ufffd'", {}],
    b'{"a\nb"}': [STRAY + "'\"a\n'", VALUE],
    b'{"id":01}': [STRAY + "'01'", VALUE],
    b'{"id":-}{}': [STRAY + "'-}'", {}],
    b'{"id":1.}{}': [STRAY + "'1.}'", {}],
    b"1.5.3\n": [1.5, STRAY + "'.'"],
    b"nullA\n": [None, STRAY + "'A'"],
    b"[1e999]": ["JSON parse error, number out of range"],
}


def feed(*parts: bytes) -> list[Any]:
    assembler = Assembler()
    return [str(each) if isinstance(each, Malformed) else each for part in parts for each in assembler.feed(part)]


@pytest.mark.parametrize("stream", STREAMS)
def test_stream_whole_and_split_at_every_byte(stream: bytes) -> None:
    """Each stream means the same whole, in two parts at any byte, and one byte at a time."""
    expected = STREAMS[stream]

    assert feed(stream) == expected
    assert feed(*(stream[i : i + 1] for i in range(len(stream)))) == expected
    for cut in range(len(stream)):
        assert feed(stream[:cut], stream[cut:]) == expected


@pytest.mark.parametrize("text", [b"%s", b'{"a":%s}'])
@pytest.mark.parametrize("chunk", [1 << 20, 1000, 7])
def test_depth_limit(text: bytes, chunk: int) -> None:
    """1024 levels work and come back; one more is refused, and the session goes on."""
    room = MAX_DEPTH - text.count(b"{")
    deep = text % (b"[" * room + b"]" * room)
    [value] = feed(*(deep[i : i + chunk] for i in range(0, len(deep), chunk)))
    assert encode(value).replace(b" ", b"") == deep

    found = feed(b"[" * (MAX_DEPTH + 1), b"{}")
    assert found == ["JSON nesting depth limit exceeded", {}]


def test_token_and_size_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many tokens, too long a value and an endless number are refused; what follows works."""
    monkeypatch.setattr(lexer, "MAX_TOKENS", 1000)
    monkeypatch.setattr(lexer, "MAX_TEXT_BYTES", 1 << 20)

    assert feed(b"[" + b"1," * 500)[0] == "JSON token count limit exceeded"
    found = feed(*[b'{"a":"' + b"x" * 65536] * 17, b"}\n{}")
    assert found[0] == "JSON token size limit exceeded"
    assert found[-1] == {}
    assert feed(*[b"1" * 1000] * 10, b"\n{}")[0] == "JSON token size limit exceeded"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(
    st.lists(
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), JSON, max_size=4),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_values_survive_any_split_and_come_back(values: list[Any], data: st.DataObject) -> None:
    """Values written by any encoder, cut anywhere, are read as they were; our encoder's output too."""
    ascii_only = data.draw(st.booleans())
    stream = b"".join(json.dumps(value, ensure_ascii=ascii_only).encode() for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert feed(*parts) == values
    ours = b"".join(encode(value) + b"\r\n" for value in values)
    assert ours.isascii()
    assert feed(ours) == values


@given(
    st.binary(max_size=200)
    | st.text(alphabet="{}[]\"'\\:,%truefalsn0123456789.eE-+ \n\x01u", max_size=200).map(str.encode),
    st.data(),
)
@settings(max_examples=300)
def test_garbage_means_the_same_however_it_is_split(stream: bytes, data: st.DataObject) -> None:
    """No input raises, and where it is cut never matters; a following line is understood after recovery."""
    whole = feed(stream)
    cut = data.draw(st.integers(0, len(stream)))

    assert repr(feed(stream[:cut], stream[cut:])) == repr(whole)
    assert feed(stream, b"\n\xff\n", b'{"execute": "x"}')[-1] == {"execute": "x"}


@given(st.integers(1, 5000), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_large_values_in_chunks(chunk: int, seed: int) -> None:
    """A large value of every kind of token is the same whatever the chunk size."""
    items = [{"a:b": [seed + i, -i / 7, True, None], 'q"\\{': f'é{{[\\"{i}', "": {}} for i in range(200)]
    stream = json.dumps({"arguments": items}, ensure_ascii=seed % 2 == 0).encode() + b"[1]"

    assert feed(*(stream[i : i + chunk] for i in range(0, len(stream), chunk))) == [{"arguments": items}, [1]]


def test_cost_is_linear() -> None:
    """A string, brackets or spaces that trickle in cost as much per byte at the end as at the start."""
    for pattern in (
        b'{"a":"' + b"x" * 200_000,
        b"[" + b"[]," * 60_000,
        b"[" + b" " * 200_000,
        b'["' + b"\\\\" * 100_000,
    ):
        assembler = Assembler()
        started = time.process_time()
        for i in range(0, len(pattern), 20):
            assembler.feed(pattern[i : i + 20])
        assert time.process_time() - started < 5


def test_output_form() -> None:
    """Spaces after commas and colons, ASCII only; four spaces a level when pretty."""
    assert encode({"a": [1, "\x7fé"], "b": {}}) == b'{"a": [1, "\\u007F\\u00E9"], "b": {}}'
    assert encode({"a": [1]}, pretty=True) == b'{\n    "a": [\n        1\n    ]\n}'
    assert encode({"name": ["a\udcff"]}) == b'{"name": ["a?"]}'
