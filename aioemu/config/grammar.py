"""QEMU's option grammar: `first,key=value,flag,noflag` with doubled commas, read key by key.

Parsing never fails on content; reading does, and names the option, the key and the nearest known key.
Not here: dotted keys and JSON (keyval), what a key means (whoever reads it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from aioemu.config.model import OptionValue
from aioemu.errors import ConfigError

Pairs = Sequence[tuple[str, OptionValue]]

ARGUMENT_SHOWN = 160  # characters of an argument that an error repeats: enough to find it, one screen line or two
SIZE_LIMIT = 1 << 64
NEAREST_CUTOFF = 0.6  # below this, a suggestion confuses more than it helps
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_SIZE = re.compile(r"(?:(0[xX][0-9a-fA-F]+)|(\d+)(\.\d*)?)([bBkKmMgGtTpPeE]?)", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
_TRUE, _FALSE = ("on", "yes", "true", "y"), ("off", "no", "false", "n")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    from difflib import get_close_matches  # only an error pays for this import

    found = get_close_matches(word, list(known), n=1, cutoff=NEAREST_CUTOFF)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?` where a known word is near, else nothing."""
    near = nearest(word, known)
    return f"; did you mean {prefix}{near}?" if near else ""


def where_of(option: str, argument: str) -> str:
    """How errors name an option with its argument, cut to a readable length."""
    shown = argument if len(argument) <= ARGUMENT_SHOWN else argument[: ARGUMENT_SHOWN - 3] + "..."
    return f"{option} {shown}" if shown else option


def is_identifier(text: str) -> bool:
    """Whether `text` may name an object: a letter, then letters, digits, `-`, `.`, `_`."""
    return _IDENTIFIER.fullmatch(text) is not None


def parse_pairs(text: str, implied: str | None = None) -> list[tuple[str, str]]:
    """Take `text` apart in order; a bare first piece is the value of `implied`, any other is on, `no...` is off."""
    pairs: list[tuple[str, str]] = []
    for at, (key, value) in enumerate(pieces(text)):
        if value is not None:
            pairs.append((key, value))
        elif at == 0 and implied is not None:
            pairs.append((implied, key))
        elif key.startswith("no"):
            pairs.append((key[2:], "off"))
        else:
            pairs.append((key, "on"))
    return pairs


def pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Each piece as key and value, or as a bare word. A trailing comma adds nothing; a key holds no comma."""
    rest = text
    while rest:
        cut = re.search(r"[=,]", rest)
        if cut is not None and cut.group() == "=":
            key = rest[: cut.start()]
            value, rest = _take_value(rest[cut.end() :])
            yield key, value
        else:
            word, rest = _take_value(rest)
            yield word, None


def _take_value(text: str) -> tuple[str, str]:
    """The value at the start of `text` up to a single comma, and what follows that comma."""
    at = 0
    while (at := text.find(",", at)) >= 0:
        if text[at + 1 : at + 2] != ",":
            return text[:at].replace(",,", ","), text[at + 1 :]
        at += 2
    return text.replace(",,", ","), ""


def parse_bool(text: str) -> bool | None:
    """On, yes, true, y and their opposites; None for anything else."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def parse_number(text: str) -> int | None:
    """A decimal, 0x or leading-0 octal number; None for anything else."""
    if _NUMBER.fullmatch(text) is None:
        return None
    digits = text.lstrip("+-")
    base = 16 if digits[:2] in ("0x", "0X") else 8 if len(digits) > 1 and digits[0] == "0" else 10
    value = int(digits, base)
    return -value if text.startswith("-") else value


def parse_size(text: str, default_unit: str = "b") -> int | None:
    """A size in bytes: `512`, `0x1000`, `1.5G`; letters are powers of 1024; None where it is not one below 2^64."""
    match = _SIZE.fullmatch(text)
    if match is None or len(text) > ARGUMENT_SHOWN:
        return None
    hexadecimal, whole, fraction, unit = match.groups()
    shift = _UNITS[(unit or default_unit).lower()]
    if hexadecimal:
        value = int(hexadecimal, 16) << shift
    else:
        if fraction and not shift:
            return None  # there is no half byte
        digits = (fraction or ".")[1:]
        value = (int(whole + digits) << shift) // 10 ** len(digits)
    return value if value < SIZE_LIMIT else None


class Options:
    """One option argument: each reader takes its key, and `close` refuses what nobody took."""

    def __init__(self, where: str, pairs: Iterable[tuple[str, OptionValue]]) -> None:
        self.where = where
        self._values: dict[str, list[OptionValue]] = {}
        self._known: list[str] = []
        for key, value in pairs:
            self._values.setdefault(key, []).append(value)

    @classmethod
    def parse(cls, option: str, argument: str, implied: str | None = None) -> Options:
        """Read `argument` of `option` in the comma grammar."""
        return cls(where_of(option, argument), parse_pairs(argument, implied))

    def __contains__(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values

    def fail(self, message: str) -> NoReturn:
        """Refuse this argument."""
        raise ConfigError(f"{self.where}: {message}", self.where)

    def left(self) -> list[str]:
        """Keys given and not taken yet, in order."""
        return list(self._values)

    def value(self, key: str, default: OptionValue = None) -> OptionValue:
        """Take the last value of `key` as it was given, string or JSON."""
        self._known.append(key)
        return self._values.pop(key, [default])[-1]

    def every(self, key: str) -> list[OptionValue]:
        """Take all values of a key that may be repeated, in order."""
        self._known.append(key)
        return self._values.pop(key, [])

    def text(self, key: str) -> str | None:
        """Take `key` as a string, None where absent."""
        value = self.value(key)
        if value is None or isinstance(value, str):
            return value
        self.fail(f"Invalid parameter type for '{key}', expected: string")

    def need(self, key: str) -> str:
        """Take `key`, which must be there."""
        value = self.text(key)
        if value is None:
            self.fail(f"Parameter '{key}' is missing")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Take a boolean."""
        value = self.value(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        parsed = parse_bool(value) if isinstance(value, str) else None
        if parsed is None:
            self.fail(f"Parameter '{key}' expects 'on' or 'off'")
        return parsed

    def maybe_flag(self, key: str) -> bool | None:
        """Take a boolean that has a third state: not given."""
        return self.flag(key, False) if key in self._values else self.value(key)

    def number(self, key: str, default: int, low: int = 0, high: int = SIZE_LIMIT - 1) -> int:
        """Take a whole number from low to high."""
        value = self.value(key, default)
        parsed = parse_number(value) if isinstance(value, str) else value
        if not isinstance(parsed, int) or isinstance(parsed, bool):
            self.fail(f"Parameter '{key}' expects a number")
        if not low <= parsed <= high:
            self.fail(f"Parameter '{key}' must be between {low} and {high}")
        return parsed

    def size(self, key: str, default: int = 0, default_unit: str = "b") -> int:
        """Take a size in bytes, with an optional suffix."""
        value = self.value(key, default)
        parsed = parse_size(value, default_unit) if isinstance(value, str) else value
        if not isinstance(parsed, int) or isinstance(parsed, bool) or not 0 <= parsed < SIZE_LIMIT:
            self.fail(f"Parameter '{key}' expects a size below 2^64 (with suffix K, M, G, T, P or E)")
        return parsed

    def choice(self, key: str, allowed: Sequence[str], default: str) -> str:
        """Take one of a few words."""
        value = self.text(key)
        if value is None:
            return default
        if value not in allowed:
            hint = did_you_mean(value, allowed) or f" (known: {', '.join(allowed)})"
            self.fail(f"Parameter '{key}' does not accept value '{value}'{hint}")
        return value

    def identifier(self, key: str = "id") -> str | None:
        """Take a name for an object."""
        value = self.text(key)
        if value is not None and not is_identifier(value):
            self.fail(
                f"Parameter '{key}' expects an identifier (letters, digits, '-', '.', '_', starting with a letter)"
            )
        return value

    def rest(self) -> dict[str, OptionValue]:
        """Take everything that is left, the last value of each key."""
        left = {key: values[-1] for key, values in self._values.items()}
        self._values.clear()
        return left

    def close(self) -> None:
        """Refuse the first key that nobody took."""
        for key in self._values:
            self.fail(f"Invalid parameter '{key}'{did_you_mean(key, self._known)}")
