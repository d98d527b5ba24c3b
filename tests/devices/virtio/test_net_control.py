"""virtio-net's control queue: filters, addresses, offloads, queue pairs, and junk."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioemu.bus.virtqueue import TURN_CHAINS
from aioemu.devices.virtio import net
from aioemu.devices.virtio.net import VirtioNet
from tests.devices.virtio.driver import drive
from tests.devices.virtio.net_rig import ALL, CONTROL_AT, MAC, OTHER, PLAIN, Rig, ethernet


@pytest.fixture
def r() -> Iterator[Rig]:
    made = Rig(ALL)
    yield made
    made.close()


def test_control_commands(r: Rig) -> None:
    """What is possible is done at once, the rest refused, and only what the driver wants is received."""
    group = bytes((1, 0, 0x5E, 0, 0, 1))

    def passes(frame: bytes) -> bool:
        r.give_buffers(2000)
        before = r.port.stats.received.frames
        assert r.box.send(frame)
        r.rx.used()
        return r.port.stats.received.frames > before

    assert passes(ethernet(to=OTHER))
    assert r.command(b"\0\0", b"\0") == 0  # not promiscuous
    assert [passes(ethernet(to=to)) for to in (MAC, OTHER, group, b"\xff" * 6)] == [True, False, False, True]
    assert r.command(b"\0\1\1") == 0  # all multicast
    assert passes(ethernet(to=group))
    assert r.command(b"\0\1\0") == 0
    tables = struct.pack("<I", 1) + OTHER + struct.pack("<I", 1) + group
    assert r.command(b"\1\0", tables) == 0
    assert [passes(ethernet(to=to)) for to in (OTHER, group)] == [True, True]
    assert r.command(b"\1\1", OTHER) == 0
    assert r.card.mac == OTHER
    tagged = ethernet(to=OTHER, type_=b"\x81\0")[:14] + b"\0\7" + bytes(60)
    assert not passes(tagged)
    assert r.command(b"\2\0\7\0") == 0
    assert passes(tagged)
    assert r.command(b"\2\1\7\0") == 0
    assert not passes(tagged)
    assert r.command(b"\5\0", (net.F_GUEST_CSUM | net.F_GUEST_TSO4).to_bytes(8, "little")) == 0
    assert r.port.takes == {"csum", "tso4"}
    assert r.command(b"\5\0", bytes(8)) == 0
    assert r.port.takes == frozenset()
    too_many = struct.pack("<I", 100) + bytes(600) + struct.pack("<I", 0)
    assert r.command(b"\1\0", too_many) == 0
    assert r.card.unicast_overflow
    junk = "00 0000 00000000 000901 0100 010000000000000000 0100ffffffffffffffff 01010000000000 02000010 04000100"
    for each in f"{junk} 04000000 0500ffffffffffffffff 7700".split():
        assert r.command(bytes.fromhex(each)) == 1


@settings(max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_no_command_hurts(commands: list[bytes]) -> None:
    """Any bytes are answered with one of two answers, and frames still pass."""
    r = Rig(ALL)
    try:
        assert all(r.command(each) in (0, 1) for each in commands)
        r.send(PLAIN + ethernet())
        assert r.box.take() == ethernet()
    finally:
        r.close()


def test_queue_pairs_are_taken_from_those_that_there_are() -> None:
    """Zero and too many are refused; frames go to the pairs in use."""
    card = VirtioNet(MAC, features=ALL | net.F_MQ, pairs=4)
    board, rings = drive(card, ALL | net.F_MQ, size=16)
    control = rings[8]
    for pairs, answer in ((0, 1), (5, 1), (65535, 1), (4, 0), (1, 0)):
        board.memory.write(CONTROL_AT, b"\4\0" + pairs.to_bytes(2, "little"))
        control.add([(CONTROL_AT, 4, False), (CONTROL_AT + 8, 1, True)])
        control.kick()
        assert board.memory.read(CONTROL_AT + 8, 1)[0] == answer
    assert card.pairs == 1
    card.close()
    board.close()


def test_commands_without_end_leave_the_loop_its_turn(r: Rig) -> None:
    """A driver that puts the next one in before the last is done does not keep the program from everything else."""
    served = 0

    def another() -> None:
        nonlocal served
        served += 1
        r.rings[2].used()
        if served < 1000:
            r.rings[2].add([(CONTROL_AT, 3, False), (CONTROL_AT + 3, 1, True)])

    r.board.memory.write(CONTROL_AT, b"\0\0\1")
    r.card.on_filter = another
    r.rings[2].add([(CONTROL_AT, 3, False), (CONTROL_AT + 3, 1, True)])
    r.rings[2].kick()
    turns = [served]
    while served < 1000:
        r.card.notified()
        turns.append(served - sum(turns))
    assert max(turns) == TURN_CHAINS
    assert min(turns) > 0
