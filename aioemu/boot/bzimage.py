"""Reads a bzImage: its setup header is checked and kept, its protected-mode part goes to where it wants to run.

The kernel's own real-mode code is not run. Entered at the 64-bit entry where the header says that there is one, else
at the 32-bit entry. The file is not trusted: sizes and addresses are checked against the file and against RAM.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from aioemu.boot import lowmem, params
from aioemu.boot.image import ImageFile
from aioemu.boot.ram import GuestRam, RamRange, runs_of

MAGIC = b"HdrS"
MAGIC_AT = params.HEADER_MAGIC
SECTOR = 512
DEFAULT_SETUP_SECTS = 4  # what 0 means
PROTOCOL_MIN = 0x0204  # the first whose syssize is whole (Linux 2.6.14)
PROTOCOL_INIT_SIZE = 0x020A
PROTOCOL_XLOADFLAGS = 0x020C
LOADED_HIGH = 0x01
XLF_KERNEL_64 = 0x01
ENTRY64_OFFSET = 0x200
INITRD_ADDR_MAX = 0x37FFFFFF  # before protocol 2.03, and where the header gives none
OLD_CMDLINE_SIZE = 255  # before protocol 2.06


class BzImage(Struct, frozen=True):
    """A bzImage whose header holds together."""

    header: bytes  # for the zero page, from offset 0x1f1 on
    version: int
    payload_at: int
    payload_size: int
    load_address: int
    memory: RamRange  # what the kernel needs before it knows the memory map
    cmdline_max: int
    initrd_addr_max: int
    long: bool

    @property
    def entry(self) -> int:
        return self.load_address + (ENTRY64_OFFSET if self.long else 0)


def is_bzimage(head: bytes) -> bool:
    """Whether a Linux setup header is there."""
    return head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def parse(image: ImageFile, head: bytes) -> BzImage:
    """Check the setup header. `head` is the file's beginning, as read once by the caller."""
    end = min(MAGIC_AT + head[MAGIC_AT - 1], params.HEADER_END_MAX)  # the jump over the header tells its end
    if len(head) < end:
        raise image.error("truncated setup header")
    page = head[:end].ljust(params.HEADER_END_MAX, b"\0")  # fields that an old header has not read as 0

    def field(code: str, offset: int, since: int = PROTOCOL_MIN) -> int:
        value: int = struct.unpack_from("<" + code, page, offset)[0]
        return value if version >= since else 0

    version = struct.unpack_from("<H", page, params.VERSION)[0]
    if field("H", params.BOOT_FLAG, 0) != 0xAA55:
        raise image.error("no boot flag 0xaa55 before the setup header")
    if version < PROTOCOL_MIN:
        raise image.error(f"boot protocol {version >> 8}.{version & 0xFF:02}, at least 2.04 is needed")
    if not field("B", 0x211) & LOADED_HIGH:
        raise image.error("a zImage, which loads below 640 KiB, cannot be booted")
    payload_at = ((field("B", 0x1F1) or DEFAULT_SETUP_SECTS) + 1) * SECTOR
    payload_size = field("I", 0x1F4) * 16
    if payload_size == 0:
        raise image.error("the setup header gives a kernel of 0 bytes")
    if field("I", 0x248, 0x0208) + field("I", 0x24C, 0x0208) > payload_size:
        raise image.error(f"the compressed payload lies outside of the kernel's {payload_size} bytes")
    load_address, memory = _place(
        image,
        payload_size,
        code32_start=field("I", 0x214),
        relocatable=bool(field("B", 0x234, 0x0205)),
        pref_address=field("Q", 0x258, PROTOCOL_INIT_SIZE),
        init_size=field("I", 0x260, PROTOCOL_INIT_SIZE),
    )
    header = bytearray(page)
    struct.pack_into("<I", header, params.CODE32_START, load_address)  # where it is, not where it was built to be
    return BzImage(
        header=bytes(header[params.SETUP_HEADER : end]),
        version=version,
        payload_at=payload_at,
        payload_size=payload_size,
        load_address=load_address,
        memory=memory,
        cmdline_max=min(field("I", 0x238, 0x0206) or OLD_CMDLINE_SIZE, lowmem.CMDLINE.size - 1),
        initrd_addr_max=field("I", 0x22C) or INITRD_ADDR_MAX,
        long=bool(field("H", 0x236, PROTOCOL_XLOADFLAGS) & XLF_KERNEL_64),
    )


def load(ram: GuestRam, image: ImageFile, kernel: BzImage) -> None:
    """Read the protected-mode part into RAM."""
    if not any(run.holds(kernel.memory.start, kernel.memory.size) for run in ram.ranges):
        raise image.error(f"the kernel needs {kernel.memory} to unpack itself, RAM is {runs_of(ram)}")
    place = RamRange(kernel.load_address, kernel.payload_size)
    image.load(kernel.payload_at, ram, place, "the kernel's protected-mode part")


def _place(
    image: ImageFile, payload_size: int, code32_start: int, relocatable: bool, pref_address: int, init_size: int
) -> tuple[int, RamRange]:
    """Where the payload goes, and the range that it and what it unpacks to need."""
    load_address = pref_address if relocatable and pref_address else code32_start or lowmem.LOAD_MIN
    start = min(load_address, pref_address or load_address)
    end = max(load_address + payload_size, (pref_address or load_address) + init_size)
    if start < lowmem.LOAD_MIN or end > 1 << 32:
        raise image.error(f"the kernel wants {RamRange(start, end - start)}, only 1 MiB to 4 GiB can be used")
    return load_address, RamRange(start, end - start)
