"""AML terms, as the specification's examples encode them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.boot.acpi import aml


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("_S5", b"_S5_"),
        ("\\", b"\\\0"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("^^A", b"^^A___"),
        ("A.B.C", b"\x2f\x03A___B___C___"),
    ],
)
def test_names(path: str, encoded: bytes) -> None:
    """Segments are padded with underscores; two and more have a prefix."""
    assert aml.name_string(path) == encoded


@pytest.mark.parametrize("path", ["abc", "TOOLONG", "1AB", "A..B", "A\\B", "Ä", "\\^A"])
def test_bad_names(path: str) -> None:
    """A name that AML cannot say is an error here, not in the guest."""
    with pytest.raises(ValueError, match="bad"):
        aml.name_string(path)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\0"),
        (1, b"\1"),
        (2, b"\x0a\2"),
        (0xFF, b"\x0a\xff"),
        (0x100, b"\x0b\0\1"),
        (0x10000, b"\x0c\0\0\1\0"),
        (1 << 32, b"\x0e\0\0\0\0\1\0\0\0"),
    ],
)
def test_integers(value: int, encoded: bytes) -> None:
    """The shortest form is used."""
    assert aml.integer(value) == encoded


def test_what_is_no_constant() -> None:
    """Values beyond their encoding are refused."""
    for value in (-1, 1 << 64):
        with pytest.raises(ValueError, match="64-bit"):
            aml.integer(value)
    with pytest.raises(ValueError, match="EISA"):
        aml.eisa_id("pnp0501")
    with pytest.raises(ValueError, match="ASCII"):
        aml.string("ü")
    with pytest.raises(ValueError, match="elements"):
        aml.package(*[aml.ZERO] * 256)


def test_eisa_id() -> None:
    """PNP0C0C is 0x0C0CD041, as in every DSDT."""
    assert aml.eisa_id("PNP0C0C") == b"\x0c\x41\xd0\x0c\x0c"


@given(st.integers(0, (1 << 28) - 5))
def test_package_length_counts_itself(size: int) -> None:
    """Decoding gives the body's size plus the encoding's own, in the shortest form that holds it."""
    encoded = aml.pkg_length(size)
    extra = encoded[0] >> 6
    assert len(encoded) == 1 + extra
    low = encoded[0] & (0x0F if extra else 0x3F)
    assert low | int.from_bytes(encoded[1:], "little") << 4 == size + len(encoded)
    assert extra == 0 or size + extra >= 1 << (6 if extra == 1 else 4 + 8 * (extra - 1))


def test_package_too_long() -> None:
    """28 bits are all there are."""
    with pytest.raises(ValueError, match="too long"):
        aml.pkg_length(1 << 28)
