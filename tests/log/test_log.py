"""Messages, events, and the -d and -D options behind them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioemu import log
from aioemu.errors import ConfigError, HostError


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[Path]:
    """A log file; whatever a test configures into it is undone by the test."""
    yield tmp_path / "log"
    assert not logging.getLogger(log.ROOT).handlers


def test_a_message_names_its_machine_and_area(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr a line reads: program, kind, machine, area, text."""
    undo = log.configure()
    log.Log("net", "vm0").warning("port %d is gone", 3)
    undo()
    assert capsys.readouterr().err == "aioemu: warning: vm0: net: port 3 is gone\n"


def test_silent_areas_format_nothing(printed: Path) -> None:
    """A message below its area's level costs no formatting: its arguments are never turned into text."""

    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    undo = log.configure("net=warning", str(printed))
    log.Log("net").debug("%s", Costly())
    assert not log.Log("net").is_on()
    undo()
    assert printed.read_text() == ""


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("", ["block warning"]),
        ("info", ["net info", "block info", "block warning"]),
        ("net", ["net debug", "net info", "block warning"]),
        ("net=info,error", ["net info"]),
        ("all", ["net debug", "net info", "block info", "block warning"]),
        ("in_asm,exec", ["block warning"]),
    ],
)
def test_items_choose_areas_and_levels(printed: Path, items: str, expected: list[str]) -> None:
    """-d takes levels for all, areas for their details, area=level, and a translator's items without effect."""
    undo = log.configure(items, str(printed), timestamp=False)
    log.Log("net").debug("net debug")
    log.Log("net").info("net info")
    log.Log("block").info("block info")
    log.Log("block").warning("block warning")
    undo()
    assert [line.rpartition(": ")[2] for line in printed.read_text().splitlines()] == expected


def test_trace_prints_matching_events_only(printed: Path) -> None:
    """-d trace:PATTERN shows events by name, of every area, and no other message."""
    undo = log.configure("trace:link-*", str(printed), timestamp=False)
    log.Log("net", "vm0").event("link-down", link="l0", by_user=True)
    log.Log("net", "vm0").event("port-added")
    log.Log("net", "vm0").info("text")
    undo()
    assert printed.read_text() == "aioemu: vm0: net: link-down link=l0 by-user=True\n"


@pytest.mark.parametrize("items", ["nte", "net=loud", "trace", "loud"])
def test_an_unknown_item_is_named(items: str) -> None:
    """A misspelt item is refused, and configures nothing."""
    with pytest.raises(ConfigError, match=f"-d {items}: no such item"):
        log.configure(items)
    assert not logging.getLogger(log.ROOT).handlers


def test_help_names_every_item() -> None:
    """-d help prints each area, so that nobody has to read the source."""
    text = log.describe_items()
    assert not [area for area in log.AREAS if f"\n{area} " not in text]


def test_a_file_that_cannot_be_opened_is_the_hosts_error(tmp_path: Path) -> None:
    """-D says which file and why, at once."""
    with pytest.raises(HostError, match="No such file or directory"):
        log.configure("", str(tmp_path / "absent" / "log"))


def test_a_files_name_can_hold_the_process_id(tmp_path: Path) -> None:
    """%d in -D keeps the logs of several processes apart."""
    log.configure("", str(tmp_path / "log.%d"))()
    assert [path.name.removeprefix("log.").isdigit() for path in tmp_path.iterdir()] == [True]


def test_guests_cannot_forge_lines(printed: Path) -> None:
    """Control characters in text from outside are shown, not obeyed."""
    undo = log.configure("", str(printed), timestamp=False)
    log.Log("guest_errors", "vm0").warning("said %s", "a\nb\x1b[2J\x9b")
    undo()
    assert printed.read_text() == "aioemu: warning: vm0: guest_errors: said a\\x0ab\\x1b[2J\\x9b\n"


def test_a_files_lines_carry_the_date(printed: Path) -> None:
    """What is read later says when it was written; what is read on stderr need not."""
    undo = log.configure("", str(printed))
    log.Log("machine", "vm0").error("stopped")
    undo()
    line = printed.read_text()
    assert line.endswith("Z error: vm0: machine: stopped\n")
    assert line[4] == line[7] == "-"


def test_embedders_get_records_through_logging() -> None:
    """Without configure, messages reach whatever handler the program installed, with machine and area on them."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(machine)s %(message)s"))
    logging.getLogger("aioemu").addHandler(handler)
    try:
        log.Log("monitor", "vm1").warning("gone")
    finally:
        logging.getLogger("aioemu").removeHandler(handler)
    assert stream.getvalue() == "aioemu.monitor vm1 gone\n"


def test_events_are_kept_in_order_up_to_a_bound() -> None:
    """The log of a machine holds the newest events with their time, whatever is printed."""
    ticks = iter(range(100))
    events = log.EventLog(kept=3, clock=lambda: next(ticks))
    voice = log.Log("net", "vm0", events)
    for number in range(5):
        voice.to("block").event("done", number=number)
    assert [(each.time_ns, each.fields["number"]) for each in events] == [(2, 2), (3, 3), (4, 4)]
    assert {(each.machine, each.area) for each in events} == {("vm0", "block")}


def test_subscribers_see_events_until_they_leave() -> None:
    """A subscriber is called as each event happens; leaving in the middle of one, and twice, is fine."""
    events, seen = log.EventLog(), list[str]()

    def once(event: log.Event) -> None:
        seen.append(event.name)
        leave()

    leave = events.subscribe(once)
    events.subscribe(lambda event: seen.append(event.name.upper()))
    events.record("", "net", "one", {})
    events.record("", "net", "two", {})
    leave()
    assert seen == ["one", "ONE", "TWO"]
