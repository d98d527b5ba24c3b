"""The console of the embedding program."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioemu.chardev import Chardevs, Console, ConsoleChardev, ConsoleClosedError, ConsoleTimeoutError
from tests.chardev.conftest import options
from tests.chardev.front import Front


@pytest.fixture
def console(chardevs: Chardevs) -> Console:
    """A console with its back end."""
    chardev = chardevs.add(options("console,id=c"))
    assert isinstance(chardev, ConsoleChardev)
    return chardev.console


async def front_of(chardevs: Chardevs, room: int | None = None) -> Front:
    """The guest's port."""
    front = Front(room).on(chardevs.get("c"))
    await chardevs.open_all()
    return front


async def test_late_and_several_readers_see_byte_0(chardevs: Chardevs, console: Console) -> None:
    """A reader that comes late reads from the first byte, whatever others have read."""
    front = await front_of(chardevs)
    front.send(b"first\n")
    early = console.reader()
    assert await anext(aiter(early)) == b"first\n"
    front.send(b"second\n")

    late = console.reader()
    assert await anext(aiter(late)) == b"first\nsecond\n"
    assert await anext(aiter(early)) == b"second\n"
    assert console.text == "first\nsecond\n"


async def test_expect_goes_on_behind_its_match(chardevs: Chardevs, console: Console) -> None:
    """Matches are found one after the other, over pieces, before or after they are printed."""
    front = await front_of(chardevs)
    front.send(b"login: ")
    assert (await console.expect(r"(\w+): ", 5))[1] == "login"
    waiting = asyncio.ensure_future(console.expect(r"^pass(\w)ord: $", 5))
    for piece in (b"\r\npa", b"ssw", b"ord: "):
        await asyncio.sleep(0)
        front.send(piece)
    assert (await waiting)[1] == "w"
    front.send(b"x login: ")

    assert (await console.expect("login: ", 5)).group() == "login: "


async def test_expect_counts_bytes_and_shows_text(chardevs: Chardevs, console: Console) -> None:
    """Umlauts and bytes that are no text do not shift the place where the next search begins."""
    front = await front_of(chardevs)
    front.send("grün".encode() + b"\xff\xfe ok1 ok2")

    assert (await console.expect("grün", 5)).group() == "grün"
    assert (await console.expect(r"ok(\d)", 5))[1] == "1"
    assert (await console.expect(re.compile(r"ok(\d)"), 5))[1] == "2"


async def test_timeout_carries_the_tail(chardevs: Chardevs, console: Console) -> None:
    """A failed expectation says what was expected, how long, and what was printed instead; it is a TimeoutError."""
    front = await front_of(chardevs)
    front.send(b"Kernel panic - not syncing")
    with pytest.raises(ConsoleTimeoutError, match=r"(?s)no match for 'login' in 0.01 s; .*\nKernel panic") as caught:
        await console.expect("login", 0.01)

    assert isinstance(caught.value, TimeoutError)
    assert caught.value.tail == "Kernel panic - not syncing"


async def collect(console: Console) -> bytes:
    """Everything, to the end."""
    return b"".join([piece async for piece in console])


async def test_close_ends_readers_and_expectations(chardevs: Chardevs, console: Console) -> None:
    """When the machine goes away, iteration ends after the last byte, and who still expects is told at once."""
    front = await front_of(chardevs)
    collected = asyncio.ensure_future(collect(console))
    hoping = asyncio.ensure_future(console.reader().expect("never"))
    await asyncio.sleep(0)
    front.send(b"last words")
    chardevs.close()

    assert await collected == b"last words"
    with pytest.raises(ConsoleClosedError, match="last words"):
        await hoping
    assert (await console.expect("words")).group() == "words"


async def test_send_waits_for_the_guest(chardevs: Chardevs, console: Console) -> None:
    """Send returns when the guest's port has taken everything, in order with other senders; nothing is lost."""
    front = await front_of(chardevs, room=4)
    first = asyncio.ensure_future(console.send("hello "))
    second = asyncio.ensure_future(console.send(b"world"))
    await asyncio.sleep(0)
    await front.gets(b"hell")
    assert not first.done()
    front.give_room(4)
    await first
    assert not second.done()
    front.give_room(100)
    await second

    assert bytes(front.data) == b"hello world"


async def test_cancelled_send_sends_no_more(chardevs: Chardevs, console: Console) -> None:
    """A send that is given up leaves what the guest took and nothing else, and the next one works."""
    front = await front_of(chardevs, room=1)
    given_up = asyncio.ensure_future(console.send("abc"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    front.give_room(100)
    await console.send("z")

    assert bytes(front.data) == b"az"


async def test_send_fails_when_the_machine_is_gone(chardevs: Chardevs, console: Console) -> None:
    """Input that the guest never took is an error, before and after the end."""
    await front_of(chardevs, room=0)
    waiting = asyncio.ensure_future(console.send("abc"))
    await asyncio.sleep(0)
    chardevs.close()

    with pytest.raises(ConsoleClosedError):
        await waiting
    with pytest.raises(ConsoleClosedError):
        await console.send("x")


async def test_memory_is_bounded() -> None:
    """A guest that prints for ever costs a bounded amount; what is gone is counted, and readers go on."""
    console = Console(limit_bytes=1000)
    reader = console.reader()
    for number in range(1000):
        console.put(b"%09d\n" % number)

    assert console.end == 10_000
    assert console.lost >= 8_000
    assert len(console.read()) <= 1_125
    assert (await anext(aiter(reader))).endswith(b"000000999\n")
    assert (await console.expect("0999", 5)).group() == "0999"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 200))
def test_places_are_positions_in_the_whole_output(pieces: list[bytes], limit: int) -> None:
    """Whatever is dropped, read(since) is the tail of everything ever written."""
    console = Console(limit_bytes=limit)
    whole = b""
    for piece in pieces:
        console.put(piece)
        whole += piece
    assert console.end == len(whole)
    assert console.read() == whole[console.lost :]
    for since in range(0, len(whole) + 1, 7):
        assert console.read(since) == whole[max(since, console.lost) :]
