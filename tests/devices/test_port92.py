"""System control port A."""

from __future__ import annotations

from aioemu.devices.port92 import Port92


def test_bit_0_resets() -> None:
    """Writing bit 0 resets; it never reads back set."""
    resets: list[int] = []
    port = Port92(lambda: resets.append(1))
    port.write(0, 1, port.read(0, 1) | 1)

    assert resets == [1]
    assert port.read(0, 1) == 0x02


def test_a20_is_kept() -> None:
    """A guest that closes and opens A20 reads what it wrote, and nothing resets."""
    resets: list[int] = []
    port = Port92(lambda: resets.append(1))
    port.write(0, 1, 0)
    assert port.read(0, 1) == 0
    port.write(0, 1, 2)
    assert (port.read(0, 1), resets) == (2, [])
