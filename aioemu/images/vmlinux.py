"""Take the ELF kernel out of a bzImage (Linux x86 boot protocol 2.08: payload_offset and payload_length).

The image is not trusted: offsets stay inside the file, and unpacking stops at a limit. Formats: gzip, xz, lzma,
bzip2, LZ4, and zstd where the `zstd` program is installed. The result may be started by its PVH note.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import subprocess
import zlib
from collections.abc import Callable

from aioemu.errors import ConfigError, HostError
from aioemu.images.lz4 import LEGACY_MAGIC, unpack_legacy

VMLINUX_MAX = 1 << 30  # no kernel comes near; a bomb stops here
LZMA_MEMORY_MAX = 512 << 20  # kernels are packed with dictionaries of up to 128 MiB
HEADER_MAGIC = b"HdrS"
SECTOR = 512


class _Zlib:
    """zlib's decompressor behind the interface that lzma's and bz2's share."""

    def __init__(self) -> None:
        self._z = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._z.decompress(data, limit)


def _lzma() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=LZMA_MEMORY_MAX)


def _bounded(make: Callable[[], _Zlib | lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> Callable[[bytes], bytes]:
    def unpack(data: bytes) -> bytes:
        return make().decompress(data, VMLINUX_MAX)

    return unpack


def _zstd(data: bytes) -> bytes:
    command = ["zstd", "-dcq", "--single-thread", "-M512MB"]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            out, err = process.communicate(data)
    except OSError as exc:
        raise HostError("zstd, which unpacks this kernel", exc.errno) from exc
    if process.returncode:
        raise ConfigError(f"kernel: zstd: {err.decode(errors='replace').strip()[:200]}")
    return out


UNPACKERS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", _bounded(_Zlib)),
    (b"\xfd7zXZ\0", _bounded(_lzma)),
    (b"\x5d\0\0", _bounded(_lzma)),
    (b"BZh", _bounded(bz2.BZ2Decompressor)),
    (LEGACY_MAGIC, lambda data: unpack_legacy(data, VMLINUX_MAX)),
    (b"\x28\xb5\x2f\xfd", _zstd),
)


def find_payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage, without the size that follows it; ConfigError when it is none."""
    if image[0x202:0x206] != HEADER_MAGIC or len(image) < 0x260:
        raise ConfigError("kernel: not a bzImage")
    sectors, version = image[0x1F1] or 4, struct.unpack_from("<H", image, 0x206)[0]
    if version < 0x208:
        raise ConfigError(f"kernel: boot protocol {version >> 8}.{version & 255:02}, needs 2.08 for its payload")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * SECTOR + offset
    if length < 8 or start + length > len(image):
        raise ConfigError(f"kernel: payload of {length} bytes at {start:#x} does not lie in {len(image)} bytes")
    return image[start : start + length - 4]


def extract_vmlinux(image: bytes) -> bytes:
    """The ELF image that the bzImage (image) would unpack and run."""
    payload = find_payload(image)
    unpack = next((unpack for magic, unpack in UNPACKERS if payload.startswith(magic)), None)
    if unpack is None:
        raise ConfigError(f"kernel: payload in an unknown format ({payload[:6].hex()})")
    try:
        kernel = unpack(payload)
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError) as exc:
        raise ConfigError(f"kernel: damaged payload: {exc}") from exc
    if not kernel.startswith(b"\x7fELF") or len(kernel) >= VMLINUX_MAX:
        raise ConfigError("kernel: payload is not an ELF image")
    return kernel
