"""Edit a line on a terminal, without the terminal: bytes in, bytes to print and finished lines out.

Keys are those of every shell: arrows, Home, End, Ctrl-A E B F D H K U W L, history, Tab. Lines that come without a
terminal (a pipe, a script) pass through the same way. The peer is not trusted: a line has a longest length.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LINE_LIMIT = 4095  # bytes of one line: a command, not a file
HISTORY_LIMIT = 64
_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z]|[^\[O])", re.DOTALL)
_PARTIAL = re.compile(rb"\x1b(?:\[[0-9;]{0,16}|O)?\Z")
_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b[3~": "delete",
    b"\x01": "home",
    b"\x05": "end",
    b"\x02": "left",
    b"\x06": "right",
    b"\x04": "delete",
    b"\x08": "backspace",
    b"\x7f": "backspace",
    b"\x0b": "kill",
    b"\x15": "clear",
    b"\x17": "rubout",
    b"\x10": "up",
    b"\x0e": "down",
    b"\t": "complete_key",
    b"\x0c": "redraw",
    b"\r": "enter",
    b"\n": "enter",
}

Completer = Callable[[str], list[str]]


class LineEditor:
    """The line under way, its cursor, and the lines before."""

    def __init__(self, prompt: str, complete: Completer) -> None:
        self.prompt = prompt
        self.history: list[str] = []
        self._complete = complete
        self._line = ""
        self._cursor = 0
        self._at = 0  # in the history
        self._rest = b""  # half a key
        self._last_was_cr = False
        self._out: list[str] = []

    def feed(self, data: bytes) -> list[tuple[str, str | None]]:
        """Take input; answer what to print, each piece with the line that ends it, or None."""
        data = self._rest + data
        self._rest = b""
        done: list[tuple[str, str | None]] = []
        position = 0
        while position < len(data):
            if _PARTIAL.match(data, position) and data[position:][:1] == b"\x1b":
                self._rest = data[position:]
                break
            match = _ESCAPE.match(data, position)
            key = match[0] if match else data[position : position + 1]
            position += len(key)
            if key == b"\n" and self._last_was_cr:
                self._last_was_cr = False
                continue
            self._last_was_cr = key == b"\r"
            line = self._press(key)
            if line is not None:
                done.append((self._take_output(), line))
        done.append((self._take_output(), None))
        return done

    def show(self) -> str:
        """The prompt and what has been typed so far."""
        back = len(self._line) - self._cursor
        return self.prompt + self._line + _left(back)

    def _take_output(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    def _press(self, key: bytes) -> str | None:
        action = _KEYS.get(key)
        if action == "enter":
            return self._enter()
        if action is not None:
            getattr(self, f"_{action}")()
        elif len(key) == 1 and key[0] >= 0x20:
            self._insert(key.decode("latin-1"))
        return None

    def _enter(self) -> str:
        line = self._line
        self._out.append("\r\n")
        if line.strip():
            if line in self.history:
                self.history.remove(line)
            self.history = [*self.history, line][-HISTORY_LIMIT:]
        self._line, self._cursor, self._at = "", 0, len(self.history)
        return line

    def _insert(self, text: str) -> None:
        if len(self._line) + len(text) > LINE_LIMIT:
            return
        tail = self._line[self._cursor :]
        self._line = self._line[: self._cursor] + text + tail
        self._cursor += len(text)
        self._out.append(text + tail + _left(len(tail)))

    def _replace(self, line: str, cursor: int) -> None:
        """Show another line."""
        self._line, self._cursor = line, cursor
        self._out.append(f"\r{self.prompt}{line}\x1b[K{_left(len(line) - cursor)}")

    def _left(self) -> None:
        if self._cursor:
            self._cursor -= 1
            self._out.append("\x1b[D")

    def _right(self) -> None:
        if self._cursor < len(self._line):
            self._cursor += 1
            self._out.append("\x1b[C")

    def _home(self) -> None:
        self._replace(self._line, 0)

    def _end(self) -> None:
        self._replace(self._line, len(self._line))

    def _delete(self) -> None:
        if self._cursor < len(self._line):
            self._replace(self._line[: self._cursor] + self._line[self._cursor + 1 :], self._cursor)

    def _backspace(self) -> None:
        if self._cursor:
            self._cursor -= 1
            self._delete()

    def _kill(self) -> None:
        self._replace(self._line[: self._cursor], self._cursor)

    def _clear(self) -> None:
        self._replace("", 0)

    def _rubout(self) -> None:
        kept = self._line[: self._cursor].rstrip()
        kept = kept[: kept.rfind(" ") + 1]
        self._replace(kept + self._line[self._cursor :], len(kept))

    def _redraw(self) -> None:
        self._out.append("\x1b[2J\x1b[1;1H" + self.show())

    def _up(self) -> None:
        self._recall(self._at - 1)

    def _down(self) -> None:
        self._recall(self._at + 1)

    def _recall(self, at: int) -> None:
        if 0 <= at <= len(self.history):
            self._at = at
            line = self.history[at] if at < len(self.history) else ""
            self._replace(line, len(line))

    def _complete_word(self, words: list[str], typed: str) -> None:
        shared = words[0]
        for word in words[1:]:
            while not word.startswith(shared):
                shared = shared[:-1]
        if len(words) == 1:
            shared += " "
        self._insert(shared[len(typed) :])
        if len(words) > 1 and len(shared) == len(typed):
            self._out.append("\r\n" + "  ".join(words) + "\r\n" + self.show())

    def _complete_key(self) -> None:
        before = self._line[: self._cursor]
        words = self._complete(before)
        if words:
            self._complete_word(words, before.rsplit(" ", 1)[-1])


def _left(columns: int) -> str:
    """Move the terminal's cursor to the left."""
    return f"\x1b[{columns}D" if columns else ""
