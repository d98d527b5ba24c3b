"""Cut a byte stream into JSON texts as they complete, in the dialect that monitor clients rely on.

Values need no newline between them and may arrive split at any byte; strings may be in single quotes. A byte that
starts no token, or ends one badly, makes one error, and lexing starts again at the next structural or control
character. The peer is not trusted: nesting, tokens and bytes of one value are bounded, and no byte is looked at more
than a constant number of times. What is inside a text is the business of `dialect` and of the JSON decoder.
"""

from __future__ import annotations

import re
from itertools import accumulate

MAX_DEPTH = 1024  # levels of nesting; what clients' own tests expect to be the last one that works
MAX_TOKENS = 2 << 20  # per value, so that a value of tiny tokens costs bounded memory
MAX_TEXT_BYTES = 64 << 20  # per value
MAX_SCALAR_BYTES = 4096  # a number or keyword: none that means anything is longer
SKIM_BYTES = 2048  # from this size on a chunk is first looked at as a whole

_DIGITS = rb"-?(?:0|[1-9][0-9]*+)"
_BAD_NUMBER = rb"-[^0-9]|-?0[0-9]|" + _DIGITS + rb"(?:\.[^0-9]|(?:\.[0-9]++)?[eE](?:[^-+0-9]|[-+][^0-9]))"
_NUMBER = _DIGITS + rb"(?:(?=[^0-9.eE])|\.[0-9]++(?=[^0-9eE])|(?:\.[0-9]++)?[eE][-+]?[0-9]++(?=[^0-9]))"
_SPACE, _MARK, _QUOTE, _BAD, _SCALAR, _STRAY = range(1, 7)
TOKEN = re.compile(
    rb"([ \t\r\n]+)|([{}\[\],:])|([\"'])|(" + _BAD_NUMBER + rb")|(" + _NUMBER + rb"|[a-z]++(?=[^a-z]))|([^-0-9a-z])",
    re.DOTALL,
)
_BODY = {
    ord(quote): re.compile(rb"(?:[^\\\x00-\x1f\xfe\xff" + quote + rb"]++|\\[^\x00-\x1f\xfe\xff])*+", re.DOTALL)
    for quote in (b'"', b"'")
}
_RESET = re.compile(rb"[\x00-\x1f{}\[\],:\xfe\xff]")

# whole-chunk look: strings, and what may stand between them in a regular text
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f\xfe\xff]++|\\[^\x00-\x1f\xfe\xff])*+"')
_REGULAR = b" \t\r\n{}[],:-+.0123456789eE" + bytes(range(ord("a"), ord("z") + 1))
_CONTROL = re.compile(rb"[\x00-\x1f\xfe\xff]")
_SCALAR_BYTES = b"-+.0123456789abcdefghijklmnopqrstuvwxyzE"
STEP = bytes.maketrans(b"{}[]", b"\x01\xff\x01\xff")
NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


class Malformed(Exception):  # noqa: N818 - a finding that is handed on as a value, seldom raised
    """What is wrong with the input, as the client is told."""


class Lexer:
    """The cutting state between two reads: the text of the value under way and what has been seen of it."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._position = 0  # what is before it has been lexed
        self._start = 0  # of the value under way
        self._quote = 0  # the open string's quotation mark, or 0
        self._token = 0  # where the open string starts
        self._recovering = False
        self._forget()

    @property
    def idle(self) -> bool:
        """Nothing is half read: the next byte starts a value."""
        return not self._text and not self._recovering

    def feed(self, data: bytes) -> list[bytes | Malformed]:
        """Take (data); answer the texts that it completes and the errors found, in order."""
        self._text += data
        found: list[bytes | Malformed] = []
        if len(data) < SKIM_BYTES or not self._skim(found):
            self._scan(found)
        if len(self._text) - self._start > MAX_TEXT_BYTES:
            self._position = len(self._text)
            self._fail(found, "JSON token size limit exceeded")
        self._drop()
        return found

    def _scan(self, found: list[bytes | Malformed]) -> None:
        """Lex token by token until more input is needed."""
        text = self._text
        while True:
            if self._recovering:
                reset = _RESET.search(text, self._position)
                self._position = self._start = reset.start() if reset else len(text)
                self._recovering = reset is None
            if self._quote:
                if self._finish_string(found):
                    continue
                return
            match = TOKEN.match(text, self._position)
            if match is None:
                if len(text) - self._position <= MAX_SCALAR_BYTES:
                    return
                self._fail(found, "JSON token size limit exceeded")
                continue
            kind = match.lastindex
            begin, self._position = match.span()
            if kind == _MARK:
                self._count(text[begin], found)
            elif kind == _QUOTE:
                self._quote, self._token = text[begin], begin
            elif kind == _SCALAR:
                self._count(0, found)
            elif kind != _SPACE:
                self._fail(found, f"JSON parse error, stray '{_quote(text[begin : self._position])}'")
            elif not self._tokens:
                self._start = self._position

    def _finish_string(self, found: list[bytes | Malformed]) -> bool:
        text = self._text
        body = _BODY[self._quote].match(text, self._position)
        assert body is not None  # the pattern matches the empty string
        self._position = body.end()
        bad = self._position + (text[self._position : self._position + 1] == b"\\")
        if bad >= len(text):
            return False
        if text[bad] == self._quote and bad == self._position:
            self._position += 1
            self._quote = 0
            self._count(0, found)
            return True
        self._position = bad + 1
        self._fail(found, f"JSON parse error, stray '{_quote(text[self._token : self._position])}'")
        return True

    def _count(self, mark: int, found: list[bytes | Malformed]) -> None:
        """Account for one token; hand out the value if the token ends it."""
        if mark == 0x7B:
            self._braces += 1
        elif mark == 0x7D:
            self._braces -= 1
        elif mark == 0x5B:
            self._brackets += 1
        elif mark == 0x5D:
            self._brackets -= 1
        self._tokens += 1
        if self._tokens > MAX_TOKENS:
            self._fail(found, "JSON token count limit exceeded", recover=False)
        elif self._braces + self._brackets > MAX_DEPTH:
            self._fail(found, "JSON nesting depth limit exceeded", recover=False)
        elif not ((self._braces > 0 or self._brackets > 0) and self._braces >= 0 and self._brackets >= 0):
            found.append(bytes(self._text[self._start : self._position]))
            self._forget()

    def _fail(self, found: list[bytes | Malformed], message: str, recover: bool = True) -> None:
        found.append(Malformed(message))
        self._recovering = recover
        self._forget()

    def _forget(self) -> None:
        """Start a new value here."""
        self._start = self._position
        self._braces = self._brackets = self._tokens = self._quote = 0

    def _drop(self) -> None:
        """Let go of what no value under way needs."""
        if self._start:
            del self._text[: self._start]
            self._position -= self._start
            self._token -= self._start
            self._start = 0

    def _skim(self, found: list[bytes | Malformed]) -> bool:
        """Pass over a chunk that continues or ends one regular value, at the speed of the C library.

        False leaves everything as it was: the careful way will do it.
        """
        if self._recovering or self._quote == ord("'"):
            return False
        chunk = bytes(memoryview(self._text)[self._position :])
        begin = 0
        if self._quote:
            body = _BODY[self._quote].match(chunk)
            begin = body.end() + 1 if body else 0
            if chunk[begin - 1 : begin] != b'"':
                return False  # all of it inside one string: the careful way is as fast
        between, strings = _STRING.subn(b"", chunk[begin:])
        between, mark, tail = between.partition(b'"')
        if mark and (not chunk.endswith(mark + tail) or b"\\" in tail or _CONTROL.search(tail)):
            return False
        if not mark:  # a number or keyword may go on in the next chunk: lex its end when it has come
            tail = between[len(between.rstrip(_SCALAR_BYTES)) :]
        if between.translate(None, _REGULAR) or not self._count_chunk(between, strings + (begin > 0), found):
            return False
        if self._tokens:
            self._quote = ord('"') if mark else 0
            self._token = len(self._text) - len(tail) - 1
            self._position = len(self._text) - (0 if mark else len(tail))
        return True

    def _count_chunk(self, between: bytes, strings: int, found: list[bytes | Malformed]) -> bool:
        """Account for a chunk that keeps the depth in (0, MAX_DEPTH], or ends the value with its last byte."""
        steps = memoryview(between.translate(STEP, NOT_BRACKETS)).cast("b")
        depths = list(accumulate(steps, initial=self._braces + self._brackets))
        if not self._tokens and between.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
            del depths[0]
        last = depths.pop() if depths else 0
        braces = between.count(b"{") - between.count(b"}") + self._braces
        squares = between.count(b"[") - between.count(b"]") + self._brackets
        tokens = self._tokens + strings + len(steps) + 2 * between.count(b",") + between.count(b":")
        if min(depths, default=1) <= 0 or max(depths, default=1) > MAX_DEPTH or tokens > MAX_TOKENS:
            return False
        if braces < 0 or squares < 0 or (last == 0 and between.rstrip(b" \t\r\n")[-1:] not in (b"}", b"]")):
            return False
        self._braces, self._brackets, self._tokens = braces, squares, tokens
        if last == 0:
            found.append(bytes(self._text[self._start :]))
            self._position = len(self._text)
            self._forget()
        return True


def _quote(token: bytes | bytearray) -> str:
    """A stray token as it is quoted in a message: up to a NUL, bytes that are no text replaced."""
    return bytes(token[:80]).split(b"\0")[0].decode(errors="replace")
