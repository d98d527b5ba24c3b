"""What the program says about itself: messages for people and events for programs, each with its machine and area.

A message costs one comparison while nobody listens. It goes through the standard `logging` tree under `aioemu`, so an
embedding program treats it like any other; the command calls `configure` for `-d` and `-D`. An event has a name and
fields and is kept in its machine's bounded `EventLog` whatever the level, for failure reports and for subscribers.
Text from guests is printed with control characters escaped: a guest cannot forge a line or drive a terminal.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aioemu.errors import ConfigError, HostError

ROOT = "aioemu"
EVENTS_KEPT = 1000  # per machine: minutes of a busy lab in well under a megabyte
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
AREAS = {
    "accel": "accelerators and vCPUs",
    "block": "block nodes, images and jobs",
    "boot": "kernels, firmware and tables",
    "bus": "address ranges, interrupts",
    "chardev": "character devices",
    "cpu_reset": "every reset of a CPU",
    "device": "chips and their registers",
    "guest_errors": "what the guest did wrong",
    "int": "interrupts as they are raised",
    "machine": "run states, start and stop",
    "monitor": "the control protocols",
    "net": "ports, links and network back ends",
    "unimp": "what the guest asked for and is not modelled",
}
# items of -d that name a translator's internals: accepted, and there is nothing to print
SILENT = frozenset(
    "cpu exec fpu in_asm mmu nochain op op_ind op_opt op_plugin out_asm page pcall plugin strace tid vpu".split()
)
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: when (monotonic clock), to which machine, in which area, and its particulars."""

    time_ns: int
    machine: str
    area: str
    name: str
    fields: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key.replace('_', '-')}={value}" for key, value in self.fields.items())])


class EventLog:
    """The last events of one machine or one lab, oldest first; subscribers are called as each one is recorded."""

    def __init__(self, kept: int = EVENTS_KEPT, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock = clock
        self._events: deque[Event] = deque(maxlen=kept)
        self._subscribers: list[Callable[[Event], None]] = []

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def record(self, machine: str, area: str, name: str, fields: dict[str, object]) -> Event:
        """Keep one event and tell the subscribers."""
        event = Event(self.clock(), machine, area, name, fields)
        self._events.append(event)
        for tell in tuple(self._subscribers):
            tell(event)
        return event

    def subscribe(self, tell: Callable[[Event], None]) -> Callable[[], None]:
        """Call (tell) with each event from now on; the answer ends that. (tell) must not block or raise."""
        self._subscribers.append(tell)

        def unsubscribe() -> None:
            if tell in self._subscribers:
                self._subscribers.remove(tell)

        return unsubscribe


class Log:
    """The voice of one part of one machine. Arguments are formatted only when the message is printed."""

    __slots__ = ("_logger", "area", "events", "machine")

    def __init__(self, area: str, machine: str = "", events: EventLog | None = None) -> None:
        self.area = area
        self.machine = machine
        self.events = events
        self._logger = logging.getLogger(f"{ROOT}.{area}")

    def to(self, area: str) -> Log:
        """The same machine's voice in another area."""
        return Log(area, self.machine, self.events)

    def is_on(self, level: int = logging.DEBUG) -> bool:
        """Whether a message of this level would be printed: ask before computing what is costly to print."""
        return self._logger.isEnabledFor(level)

    def debug(self, message: str, *args: object) -> None:
        self._say(logging.DEBUG, message, args)

    def info(self, message: str, *args: object) -> None:
        self._say(logging.INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        self._say(logging.WARNING, message, args)

    def error(self, message: str, *args: object) -> None:
        self._say(logging.ERROR, message, args)

    def exception(self, message: str, *args: object) -> None:
        """An error of the program's own: the message, and where the exception that is being handled came from."""
        if self._logger.isEnabledFor(logging.ERROR):
            extra = {"machine": self.machine, "area": self.area}
            self._logger.error(message, *args, exc_info=True, extra=extra)

    def event(self, name: str, /, **fields: object) -> None:
        """Record that (name) happened; printed too where this area is at level info."""
        if self.events is not None:
            event = self.events.record(self.machine, self.area, name, fields)
        elif self._logger.isEnabledFor(logging.INFO):
            event = Event(time.monotonic_ns(), self.machine, self.area, name, fields)
        else:
            return
        self._say(logging.INFO, "%s", (event,))

    def _say(self, level: int, message: str, args: tuple[object, ...]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, *args, extra={"machine": self.machine, "area": self.area})


class LineFormatter(logging.Formatter):
    """One message, one line: `aioemu: warning: vm0: net: text`, or with the date first in a file."""

    def __init__(self, timestamp: bool) -> None:
        super().__init__()
        self.timestamp = timestamp

    def format(self, record: logging.LogRecord) -> str:
        """The line, control characters escaped."""
        level = "" if record.levelno in (logging.DEBUG, logging.INFO) else f"{record.levelname.lower()}: "
        parts = (getattr(record, "machine", ""), getattr(record, "area", ""))
        text = record.getMessage().translate(_UNPRINTABLE)
        line = f"{level}{''.join(f'{part}: ' for part in parts if part)}{text}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        if not self.timestamp:
            return f"{ROOT}: {line}"
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{date}.{int(record.msecs):03d}Z {line}"


class _EventFilter(logging.Filter):
    """Lets through what is at its area's own level, and events whose names were asked for by `trace:`."""

    def __init__(self, levels: dict[str, int], patterns: list[str]) -> None:
        super().__init__()
        self.levels = levels
        self.patterns = patterns

    def filter(self, record: logging.LogRecord) -> bool:
        area = getattr(record, "area", "")
        if record.levelno >= self.levels.get(area, self.levels[""]):
            return True
        event = record.args[0] if isinstance(record.args, tuple) and record.args else None
        return isinstance(event, Event) and any(fnmatch.fnmatch(event.name, each) for each in self.patterns)


def parse_items(items: str) -> tuple[dict[str, int], list[str]]:
    """Read `-d`: levels, areas, `area=level`, `trace:pattern`. Answers levels by area ("" is the rest), patterns."""
    levels, patterns = {"": logging.WARNING}, list[str]()
    for item in filter(None, items.split(",")):
        name, _, level = item.partition("=")
        if item.startswith("trace:"):
            patterns.append(item.removeprefix("trace:"))
        elif item in LEVELS:
            levels[""] = LEVELS[item]
        elif item == "all":
            levels[""] = logging.DEBUG
        elif name in AREAS and (not level or level in LEVELS):
            levels[name] = LEVELS[level or "debug"]
        elif item not in SILENT:
            raise ConfigError(f"-d {item}: no such item; -d help names them", "-d")
    return levels, patterns


def describe_items() -> str:
    """What `-d help` prints."""
    lines = ["Log items (comma separated):", *(f"{name:<16}{text}" for name, text in AREAS.items())]
    lines += [f"{'area=LEVEL':<16}an area from LEVEL on", f"{'trace:PATTERN':<16}events whose names match"]
    return "\n".join([*lines, f"{'all':<16}everything", f"levels: {', '.join(LEVELS)}"])


def configure(items: str = "", path: str | None = None, *, timestamp: bool | None = None) -> Callable[[], None]:
    """Print what (items) ask for to the file (path) or to stderr; the answer undoes it. For the command only.

    `%d` in (path) becomes the process id. A file's lines carry the date unless (timestamp) says otherwise.
    """
    levels, patterns = parse_items(items)
    handler = _open_handler(path)
    handler.setFormatter(LineFormatter(path is not None if timestamp is None else timestamp))
    handler.addFilter(_EventFilter(levels, patterns))
    root = logging.getLogger(ROOT)
    before = root.level, root.propagate
    root.addHandler(handler)
    root.setLevel(min(*levels.values(), logging.INFO if patterns else logging.CRITICAL))
    root.propagate = False
    previous = {area: logging.getLogger(f"{ROOT}.{area}").level for area in AREAS}
    for area in AREAS:
        wanted = min(levels.get(area, levels[""]), logging.INFO if patterns else logging.CRITICAL)
        logging.getLogger(f"{ROOT}.{area}").setLevel(wanted)

    def undo() -> None:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(before[0])
        root.propagate = before[1]
        for area, level in previous.items():
            logging.getLogger(f"{ROOT}.{area}").setLevel(level)

    return undo


def _open_handler(path: str | None) -> logging.Handler:
    if path is None:
        return logging.StreamHandler(sys.stderr)
    path = path.replace("%d", str(os.getpid()))
    try:
        return logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise HostError(f"-D {path}", exc.errno) from exc
