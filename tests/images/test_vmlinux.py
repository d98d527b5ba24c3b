"""Unpacking a bzImage: every format gives the same kernel, and a damaged image gives an error."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.errors import ConfigError
from aioemu.images.lz4 import LEGACY_MAGIC, unpack_legacy
from aioemu.images.vmlinux import extract_vmlinux
from tests.images.elf import bzimage

KERNEL = b"\x7fELF" + bytes(range(256)) * 64


def lz4_literals(data: bytes) -> bytes:
    """An LZ4 legacy frame of one block that holds nothing but literals."""
    extra, last = divmod(len(data) - 15, 255)
    block = b"\xf0" + b"\xff" * extra + bytes([last]) + data
    return LEGACY_MAGIC + struct.pack("<I", len(block)) + block


def zstd(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("needs zstd to make the image")
    return subprocess.run(["zstd", "-cq"], input=data, stdout=subprocess.PIPE, check=True).stdout


def xz(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
    return lzma.compress(data, check=lzma.CHECK_CRC32, filters=filters)


FORMATS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    xz,
    lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    bz2.compress,
    lz4_literals,
    zstd,
]


@pytest.mark.parametrize("pack", FORMATS, ids=["gzip", "xz", "lzma", "bzip2", "lz4", "zstd"])
def test_each_format_unpacks(pack: Callable[[bytes], bytes]) -> None:
    """The kernel comes out as it went in, whatever packed it."""
    assert extract_vmlinux(bzimage(pack(KERNEL))) == KERNEL


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (b"", "not a bzImage"),
        (b"MZ" + bytes(100), "not a bzImage"),
        (bzimage(gzip.compress(KERNEL), version=0x207), "boot protocol 2.07"),
        (bzimage(gzip.compress(KERNEL), offset=0xFFFFFFFF), "does not lie in"),
        (bzimage(gzip.compress(KERNEL), length=0xFFFFFFFF), "does not lie in"),
        (bzimage(gzip.compress(KERNEL), length=0), "does not lie in"),
        (bzimage(b"????????"), "unknown format"),
        (bzimage(gzip.compress(b"text")), "not an ELF image"),
        (bzimage(b"\x1f\x8b????????"), "damaged payload"),
        (bzimage(LEGACY_MAGIC + b"\xff\xff\xff\xff"), "damaged payload"),
    ],
)
def test_what_is_wrong_is_said(image: bytes, complaint: str) -> None:
    """An image that is none, or that points outside of itself, is refused with the reason."""
    with pytest.raises(ConfigError, match=complaint):
        extract_vmlinux(image)


@given(st.data())
def test_damage_is_an_error_not_a_crash(data: st.DataObject) -> None:
    """Any bytes changed anywhere: a kernel or a ConfigError."""
    pack = data.draw(st.sampled_from(FORMATS[:5]))
    image = bytearray(bzimage(pack(KERNEL)))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0x1F0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ConfigError):
        assert extract_vmlinux(bytes(image)).startswith(b"\x7fELF")


def block(*parts: bytes) -> bytes:
    data = b"".join(parts)
    return LEGACY_MAGIC + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (block(b"\x30abc"), b"abc"),
        (block(b"\x30abc\x03\x00", b"\x10!"), b"abcabca!"),  # a match of four over three bytes overlaps itself
        (block(b"\x1fa\x01\x00\x00", b"\x00"), b"a" * 20),  # fifteen and an empty extra byte, plus the four implied
        (block(b"\x1fa\x01\x00\xff\x01", b"\x00"), b"a" * (1 + 15 + 255 + 1 + 4)),
        (block(b"\x64abcdef\x06\x00", b"\x00"), b"abcdefabcdefab"),
        (block(b"\x10a") + block(b"\x10b")[4:], b"ab"),
    ],
)
def test_lz4_sequences(frame: bytes, expected: bytes) -> None:
    """Literals, plain and overlapping matches, long lengths and several blocks (lz4_Block_format.md)."""
    assert unpack_legacy(frame, 1 << 20) == expected


@pytest.mark.parametrize(
    "frame", [block(b"\x10a\x02\x00"), block(b"\x10a\x00\x00"), block(b"\x20a"), block(b"\x1fa\x01")]
)
def test_lz4_damage_is_an_error(frame: bytes) -> None:
    """A match from before the start or at distance 0, and blocks that end early, are errors."""
    with pytest.raises(ValueError, match=r"block|match"):
        unpack_legacy(frame, 1 << 20)


@given(st.binary(max_size=200))
def test_lz4_stays_in_its_limit(data: bytes) -> None:
    """No input unpacks to more than the limit."""
    with contextlib.suppress(ValueError):
        assert len(unpack_legacy(LEGACY_MAGIC + struct.pack("<I", len(data)) + data, 1000)) <= 1000
