"""From received bytes to JSON values, and from values to the bytes of one line; no I/O here.

A read that holds whole values, which is nearly every read, is decoded at once by msgspec. Anything else goes through
the lexer, which cuts values out of the stream at any split and names what is malformed. The peer is not trusted.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import msgspec

from aioemu.protocol.dialect import parse
from aioemu.protocol.lexer import MAX_DEPTH, NOT_BRACKETS, STEP, Lexer, Malformed

WHOLE_BYTES = 1 << 20  # reads up to this size are tried as whole values first; a larger one may hold too many tokens

_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()
_REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_KEY = re.compile(rb'"[ \t\r\n]*:')
_NOT_PLAIN = re.compile("[\x7f-\U0010ffff]")
_BLANKS = b" \t\r\n"


class Assembler:
    """Values out of a byte stream that may be split, run together or garbled anywhere."""

    def __init__(self) -> None:
        self._lexer = Lexer()

    @property
    def idle(self) -> bool:
        """Nothing is half read."""
        return self._lexer.idle

    def feed(self, data: bytes) -> list[Any]:
        """Take (data); answer the values it completes in order, a Malformed in the place of each bad one."""
        done: list[Any] = []
        if not self._lexer.idle:  # the end of what began in an earlier read: a line's, or at least an object's
            end = (data.find(b"\n") + 1 or data.find(b"}") + 1) if len(data) <= WHOLE_BYTES else 0
            done = self._cut(data[:end])
            data = data[end:]
        if data and self._lexer.idle and len(data) <= WHOLE_BYTES:
            text = data.strip(_BLANKS)
            if text and text[-1] not in b"}]":
                text = text[: max(text.rfind(b"\n"), text.rfind(b"}")) + 1]
            values = _decode_whole(text) if text else []
            if values is not None:
                done += values
                data = data[data.find(text) + len(text) :].lstrip(_BLANKS)
        return done + self._cut(data) if data else done

    def _cut(self, data: bytes) -> list[Any]:
        return [_decode(each) if isinstance(each, bytes) else each for each in self._lexer.feed(data)]


def _decode_whole(text: bytes) -> list[Any] | None:
    """The values of a text that holds nothing but whole, well-formed ones; None if it is not such a text."""
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return None
    try:
        values = _DECODER.decode_lines(text)
    except _REFUSED:
        return None
    return None if _has_duplicates(text, values) else values


def _depth(text: bytes) -> int:
    """The nesting of (text), roughly: brackets in strings count too. The decoder has its own bound."""
    return max(accumulate(memoryview(text.translate(STEP, NOT_BRACKETS)).cast("b")), default=0)


def _decode(text: bytes) -> Any:
    try:
        value = _DECODER.decode(text)
        if not _has_duplicates(text, value):
            return value
    except _REFUSED:
        pass
    try:
        return parse(text)
    except Malformed as exc:
        return exc


def _has_duplicates(text: bytes, value: Any) -> bool:
    """Whether a key may come twice: fewer keys survived decoding than the text seems to have. Never wrongly False."""
    keys = _count_keys(value)
    return text.count(b":") != keys and len(_KEY.findall(text)) != keys


def _count_keys(value: Any) -> int:
    keys = 0
    todo = [value]
    while todo:
        each = todo.pop()
        if type(each) is dict:
            keys += len(each)
            todo.extend(inner for inner in each.values() if type(inner) is dict or type(inner) is list)
        elif type(each) is list:
            todo.extend(inner for inner in each if type(inner) is dict or type(inner) is list)
    return keys


def encode(value: Any, pretty: bool = False) -> bytes:
    """One JSON text in ASCII, with a space after each comma and colon, or indented over several lines."""
    try:
        text = msgspec.json.format(_ENCODER.encode(value), indent=4 if pretty else 0)
    except RecursionError:
        text = _encode_deep(value)
    except UnicodeEncodeError:  # a file name that is no text: its odd bytes become question marks
        return encode(_as_text(msgspec.to_builtins(value)), pretty)
    if text.isascii() and b"\x7f" not in text:
        return text
    return _NOT_PLAIN.sub(_escape, text.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[i]:02X}{units[i + 1]:02X}" for i in range(0, len(units), 2))


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_as_text(key): _as_text(each) for key, each in value.items()}
    return [_as_text(each) for each in value] if isinstance(value, list) else value


def _encode_deep(value: Any) -> bytes:
    """Encode what is nested deeper than the encoder goes: such values only come back to the client that sent them."""
    out: list[bytes] = []
    todo: list[Any] = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, _Verbatim):
            out.append(each)
        elif type(each) is dict:
            inner: list[Any] = [_Verbatim(b"{")]
            for index, (key, item) in enumerate(each.items()):
                inner += [_Verbatim((b", " if index else b"") + _ENCODER.encode(key) + b": "), item]
            todo.extend(reversed([*inner, _Verbatim(b"}")]))
        elif type(each) is list:
            inner = [_Verbatim(b"[")]
            for index, item in enumerate(each):
                inner += [_Verbatim(b", " if index else b""), item]
            todo.extend(reversed([*inner, _Verbatim(b"]")]))
        else:
            out.append(_ENCODER.encode(each))
    return b"".join(out)


class _Verbatim(bytes):
    """A piece of output that is encoded already."""
