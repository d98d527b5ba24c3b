"""Parse one JSON text in the monitor's dialect: what the strict decoder refuses, and the words for what is wrong.

Slow and exact: it is asked only after the C decoder said no. Strings may be in single quotes and escape them, a key
may not come twice, and each mistake has its text. Nesting needs no stack of ours; the lexer has bounded it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from aioemu.protocol.lexer import TOKEN, Malformed

_KEYWORDS = {b"true": True, b"false": False, b"null": None}
_STRING = re.compile(rb"\"(?:[^\"\\]++|\\.)*+\"|'(?:[^'\\]++|\\.)*+'", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
)
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", "'": "'", '"': '"'}
_END = object()


class _Punctuation(bytes):
    """A structural character, so that it is never taken for a value."""


def parse(text: bytes) -> object:
    """Answer the value of (text), or raise Malformed with what a client is told."""
    tokens = _tokens(text)
    stack: list[_Container] = []
    while True:
        token = next(tokens, _END)
        container: _Container | None = None
        if token == b"{" and isinstance(token, _Punctuation):
            container = _Object(tokens)
        elif token == b"[" and isinstance(token, _Punctuation):
            container = _Array(tokens)
        elif token is _END:
            raise _error("premature EOI")
        elif isinstance(token, _Punctuation) and not (stack and stack[-1].may_end and stack[-1].closes(token)):
            raise _error("expecting value")
        if container is not None:
            stack.append(container)
            continue
        value: object = token
        if isinstance(token, _Punctuation):
            value = stack.pop().result
        while stack:
            stack[-1].take(value)
            if not stack[-1].finished:
                break
            value = stack.pop().result
        if not stack:
            return value


class _Container:
    """An array or object under way; `take` is told each value in turn, and reads the marks between values."""

    mark = b""
    name = ""

    def __init__(self, tokens: Iterator[object]) -> None:
        self.tokens = tokens
        self.may_end = True  # directly after the opening mark only
        self.finished = False
        self.result: object = None

    def closes(self, token: object) -> bool:
        return token == self.mark

    def take(self, value: object) -> None:
        raise NotImplementedError

    def separator(self) -> None:
        token = next(self.tokens, _END)
        if not isinstance(token, _Punctuation) or token not in (b",", self.mark):
            raise _error(f"expected separator in {self.name}")
        self.finished = token == self.mark


class _Array(_Container):
    mark = b"]"
    name = "list"

    def __init__(self, tokens: Iterator[object]) -> None:
        super().__init__(tokens)
        self.items: list[object] = []
        self.result = self.items

    def take(self, value: object) -> None:
        self.may_end = False
        self.items.append(value)
        self.separator()


class _Object(_Container):
    mark = b"}"
    name = "dict"

    def __init__(self, tokens: Iterator[object]) -> None:
        super().__init__(tokens)
        self.items: dict[str, object] = {}
        self.result = self.items
        self.key: str | None = None

    def take(self, value: object) -> None:
        self.may_end = False
        if self.key is None:
            if not isinstance(value, str):
                raise _error("key is not a string in object")
            if next(self.tokens, _END) != b":":
                raise _error("missing : in object pair")
            self.key = value
            return
        if self.key in self.items:
            raise _error("duplicate key")
        self.items[self.key] = value
        self.key = None
        self.separator()


def _tokens(text: bytes) -> Iterator[object]:
    """The punctuation and scalar values of (text), converted as they are asked for."""
    position = 0
    text += b"\n"  # the end of a last number or keyword
    while match := TOKEN.match(text, position):
        token, position = match[0], match.end()
        if match[1]:
            continue
        if match[2]:
            yield _Punctuation(token)
        elif match[3]:
            string = _STRING.match(text, match.start())
            if string is None:
                raise _error("premature EOI")
            position = string.end()
            yield _string(string[0])
        elif match[5]:
            yield _scalar(token)
        else:
            raise _error(f"stray '{token.decode(errors='replace')}'")


def _scalar(token: bytes) -> object:
    if token[0] in b"-0123456789":
        return _number(token)
    if token not in _KEYWORDS:
        raise _error(f"invalid keyword '{token.decode()}'")
    return _KEYWORDS[token]


def _number(token: bytes) -> int | float:
    try:
        convert: Callable[[bytes], int | float] = int if token.lstrip(b"-").isdigit() else float
        number = convert(token)
    except ValueError as exc:  # more digits than the interpreter converts
        raise _error("number out of range") from exc
    if abs(number) == float("inf"):
        raise _error("number out of range")
    return number


def _string(token: bytes) -> str:
    try:
        body = token[1:-1].decode()
    except UnicodeDecodeError as exc:
        raise _error("invalid UTF-8 sequence in string") from exc
    return _ESCAPE.sub(_unescape, body) if "\\" in body else body


def _unescape(match: re.Match[str]) -> str:
    high, low, single, simple = match.groups()
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if single is not None:
        code = int(single, 16)
        if 0xD800 <= code < 0xE000:
            raise _error(f"\\u{single} is not a valid Unicode character")
        return chr(code)
    if simple == "u":
        raise _error(f"{match.string[match.start() : match.start() + 6]} is not a valid Unicode character")
    if simple not in _SIMPLE:
        raise _error("invalid escape sequence in string")
    return _SIMPLE[simple]


def _error(text: str) -> Malformed:
    return Malformed(f"JSON parse error, {text}")
