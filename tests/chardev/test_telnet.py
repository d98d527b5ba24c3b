"""The telnet codec, cut anywhere and fed anything."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aioemu.chardev.telnet import GREETING, TelnetDecoder, encode

# what a client may send between data: options, a break, a subnegotiation with a doubled 255 inside
COMMANDS = [b"\xff\xfb\x01", b"\xff\xfe\x22", b"\xff\xf1", b"\xff\xf3", b"\xff\xfa\x18\x00\xff\xffx\xff\xf0"]


def decode(pieces: list[bytes]) -> tuple[bytes, int]:
    """Everything in order, and the breaks."""
    decoder = TelnetDecoder()
    return b"".join(map(decoder.decode, pieces)), decoder.breaks


@given(st.binary(max_size=40), st.data())
def test_data_survives_any_cut(data: bytes, draw: st.DataObject) -> None:
    """Any bytes, encoded, cut anywhere, come out as they went in; NUL behind CR is the protocol's own."""
    plain = data.replace(b"\r\x00", b"\r")
    wire = encode(plain)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    edges = [0, *cuts, len(wire)]
    pieces = [wire[a:b] for a, b in itertools.pairwise(edges)]

    assert decode(pieces) == (plain.replace(b"\r\x00", b"\r"), 0)


@given(st.lists(st.sampled_from(COMMANDS) | st.binary(max_size=5).map(lambda b: encode(b.replace(b"\r", b"")))))
def test_commands_leave_no_trace_in_the_data(parts: list[bytes]) -> None:
    """Commands are taken out wherever they stand; breaks are counted."""
    data = b"".join(part for part in parts if part not in COMMANDS)
    wire = b"".join(parts)

    found = decode([wire[at : at + 1] for at in range(len(wire))])

    assert found == (data.replace(b"\xff\xff", b"\xff"), parts.count(b"\xff\xf3"))


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded(wire: bytes) -> None:
    """A hostile client gets at most as many bytes in as it sent, however they are cut."""
    whole = decode([wire])
    assert len(whole[0]) <= len(wire)
    assert decode([wire[at : at + 1] for at in range(len(wire))]) == whole


def test_greeting_is_commands_only() -> None:
    """Our own greeting, seen by a client of our kind, is no data."""
    assert decode([GREETING]) == (b"", 0)
