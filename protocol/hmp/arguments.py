"""Words and numbers of a monitor line: quotes, options, expressions, checked against what the command declares.

Messages are those people and tools know. Numbers are sums, products and bit operations of constants; registers are
not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

DEPTH_LIMIT = 50  # parentheses and signs in one expression: nobody counts further
_MASK = (1 << 64) - 1
_WORD = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))')
_ESCAPES = {"n": "\n", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_LEVELS = (("+", "-", "|", "^"), ("*", "/", "%", "&"))  # loosest first, as the monitor has it
_FORMAT = re.compile(r"\s*/(\d*)([xduoci]?)([bhwg]?)([xduoci]?)(?=\s|$)")


NAMED = ("filename", "block device name")  # kinds of words that a message calls by their name


class UsageError(Exception):
    """A line that does not fit its command."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: `kind` is word, rest (of the line), number, switch (on or off), format (/4xw) or flag (-n)."""

    name: str
    kind: str = "word"
    optional: bool = False


def read(command: str, line: str, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """The values of (parameters) in (line); UsageError with what a person is told."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind == "flag":
            values[parameter.name], line = _flag(parameter.name, line)
        elif parameter.kind == "format":
            match = _FORMAT.match(line)
            values[parameter.name] = match.groups() if match else None
            line = line[match.end() :] if match else line
        elif not line.strip():
            if not parameter.optional:
                if parameter.kind == "switch":
                    raise UsageError("Expected 'on' or 'off'")
                kind = parameter.kind if parameter.kind in NAMED else "string"
                raise UsageError(
                    "unexpected end of expression" if parameter.kind == "number" else f"{command}: {kind} expected"
                )
            values[parameter.name] = None
        else:
            values[parameter.name], line = _value(parameter, line)
    if line.strip():
        raise UsageError(f"{command}: extraneous characters at the end of line")
    return values


def _value(parameter: Parameter, line: str) -> tuple[Any, str]:
    if parameter.kind == "number":
        return Expression(line).read()
    if parameter.kind == "rest":
        return line.strip(), ""
    match = _WORD.match(line)
    assert match is not None  # the line is not blank
    quoted, plain = match.groups()
    word = plain if quoted is None else re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[1]), quoted)
    if parameter.kind == "switch":
        if word not in ("on", "off"):
            raise UsageError("Expected 'on' or 'off'")
        return word == "on", line[match.end() :]
    return word, line[match.end() :]


def _flag(name: str, line: str) -> tuple[bool, str]:
    words = line.split(maxsplit=1)
    if words and words[0] == f"-{name}":
        return True, words[1] if len(words) > 1 else ""
    return False, line


class Expression:
    """A number, or a calculation with numbers, at the start of a line."""

    def __init__(self, text: str) -> None:
        self.text = text.lstrip()
        self.depth = 0

    def read(self) -> tuple[int, str]:
        """Its value, and the rest of the line."""
        value = self._level(0)
        return (value & _MASK) - ((value & (1 << 63)) << 1), self.text

    def _level(self, level: int) -> int:
        if level == len(_LEVELS):
            return self._unary()
        value = self._level(level + 1)
        while self.text[:1] in _LEVELS[level] and self.text:
            operator = self._take()
            value = self._apply(operator, value, self._level(level + 1)) & _MASK
        return value

    def _apply(self, operator: str, left: int, right: int) -> int:
        if operator in "/%":
            if right == 0:
                raise UsageError("division by zero")
            return left // right if operator == "/" else left % right
        return {
            "+": left + right,
            "-": left - right,
            "|": left | right,
            "^": left ^ right,
            "*": left * right,
            "&": left & right,
        }[operator]

    def _unary(self) -> int:
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise UsageError("expression too complex")
        try:
            return self._primary()
        finally:
            self.depth -= 1

    def _primary(self) -> int:
        first = self.text[:1]
        if not first:
            raise UsageError("unexpected end of expression")
        if first in "+-~":
            self._take()
            value = self._unary()
            return {"+": value, "-": -value, "~": ~value}[first] & _MASK
        if first == "(":
            self._take()
            value = self._level(0)
            if self.text[:1] != ")":
                raise UsageError("')' expected")
            self._take()
            return value
        if first == "$":
            raise UsageError("unknown register")
        match = re.match(r"0[xX][0-9a-fA-F]+|\d+", self.text)
        if match is None:
            raise UsageError(f"invalid char '{first}' in expression")
        digits = match[0]
        octal = len(digits) > 1 and digits[0] == "0" and digits[1:].isdigit() and set(digits) <= set("01234567")
        self.text = self.text[match.end() :].lstrip()
        if len(digits) > 20:
            raise UsageError("number too large")
        return int(digits, 8 if octal else 16 if digits[:2].lower() == "0x" else 10)

    def _take(self) -> str:
        taken, self.text = self.text[0], self.text[1:].lstrip()
        return taken
