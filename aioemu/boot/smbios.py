"""SMBIOS 3.0 tables: who made the machine and what is in it, where a guest without EFI looks for them.

The entry point goes to the start of 0xf0000..0xfffff, the structures behind it. Left out: caches, slots, sensors, and
the 32-bit entry point of SMBIOS 2. Values are the user's: strings with NUL and tables that do not fit are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from msgspec import Struct

from aioemu.boot import lowmem
from aioemu.boot.acpi.header import checksum
from aioemu.boot.ram import RamRange
from aioemu.boot.tables import Placement
from aioemu.errors import ConfigError

ENTRY_POINT_SIZE = 24
TABLE_OFFSET = 0x20  # behind the entry point, aligned
CHASSIS_HANDLE, ARRAY_HANDLE = 0x0300, 0x1000
UNKNOWN_SPEED = 0
NO_HANDLE = 0xFFFF
NO_ERROR_HANDLE = 0xFFFE  # "error information is not provided"
DIMM_MAX = 16 << 30  # memory is shown in modules of at most this size
DIMMS_MAX = 256  # more memory than that in modules is shown in larger modules
BYTE_COUNT_MAX = 0xFF  # of cores and threads; more are counted in the 16-bit fields alone


class Bios(Struct, frozen=True):
    """Type 0."""

    vendor: str = "aioemu"
    version: str = ""
    date: str = "01/01/2025"
    release: tuple[int, int] = (0, 0)
    uefi: bool = False


class System(Struct, frozen=True):
    """Type 1. A `uuid` of None is shown as not set."""

    manufacturer: str = "aioemu"
    product: str = "Virtual Machine"
    version: str = ""
    serial: str = ""
    uuid: UUID | None = None
    sku: str = ""
    family: str = ""


class Baseboard(Struct, frozen=True):
    """Type 2."""

    manufacturer: str = "aioemu"
    product: str = "Virtual Machine"
    version: str = ""
    serial: str = ""
    asset: str = ""
    location: str = ""


class Chassis(Struct, frozen=True):
    """Type 3."""

    manufacturer: str = "aioemu"
    version: str = ""
    serial: str = ""
    asset: str = ""
    sku: str = ""


class Processor(Struct, frozen=True):
    """Type 4, once per socket."""

    sock_pfx: str = "CPU"
    manufacturer: str = "aioemu"
    version: str = ""
    serial: str = ""
    asset: str = ""
    part: str = ""
    max_speed: int = UNKNOWN_SPEED
    current_speed: int = UNKNOWN_SPEED
    processor_id: int = 0
    sockets: int = 1
    cores: int = 1  # per socket
    threads: int = 1  # per socket


class Memory(Struct, frozen=True):
    """Types 16, 17 and 19; `ranges` is where RAM is."""

    ranges: tuple[RamRange, ...] = ()
    loc_pfx: str = "DIMM"
    bank: str = ""
    manufacturer: str = "aioemu"
    serial: str = ""
    asset: str = ""
    part: str = ""
    speed: int = UNKNOWN_SPEED


class Smbios(Struct, frozen=True):
    """Everything that the tables say."""

    bios: Bios = Bios()
    system: System = System()
    baseboard: Baseboard = Baseboard()
    chassis: Chassis = Chassis()
    processor: Processor = Processor()
    memory: Memory = Memory()
    oem_strings: tuple[str, ...] = ()  # type 11
    raw: tuple[bytes, ...] = ()  # whole structures (`-smbios file=`)


def build(smbios: Smbios, area: RamRange = lowmem.SMBIOS) -> tuple[Placement, ...]:
    """The entry point at the start of `area`, and the table behind it."""
    address = area.start + TABLE_OFFSET
    data = b"".join(_structures(smbios))
    if address + len(data) > area.end:
        raise ConfigError(
            f"SMBIOS tables of {len(data)} bytes, there is room for {area.end - address}", option="smbios"
        )
    entry = bytearray(struct.pack("<5sBBBBBBxIQ", b"_SM3_", 0, ENTRY_POINT_SIZE, 3, 0, 0, 1, len(data), address))
    entry[5] = checksum(entry)
    return Placement("_SM3_", area.start, bytes(entry)), Placement("SMBIOS", address, data)


def _structures(smbios: Smbios) -> Iterator[bytes]:
    yield _bios(smbios.bios)
    yield _system(smbios.system)
    yield _baseboard(smbios.baseboard)
    yield _chassis(smbios.chassis)
    yield from (_processor(smbios.processor, index) for index in range(smbios.processor.sockets))
    if smbios.oem_strings:
        yield _structure(11, 0x0E00, "<B", len(smbios.oem_strings), strings=smbios.oem_strings)
    yield from _memory(smbios.memory)
    yield _structure(32, 0x2000, "<6xB", 0)
    yield from (_checked(raw) for raw in smbios.raw)
    yield _structure(127, 0x7F00, "<")


class _Strings:
    """A structure's string set: adding one gives its number, 0 for none."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> int:
        if not text:
            return 0
        self.texts.append(text)
        return len(self.texts)


def _structure(kind: int, handle: int, layout: str, *fields: int | bytes, strings: Iterable[str] = ()) -> bytes:
    """Header, formatted area, then the strings and their double NUL (SMBIOS 3.7 section 6.1)."""
    body = struct.pack(layout, *fields)
    encoded = b""
    for text in strings:
        if "\0" in text:
            raise ConfigError(f"an SMBIOS string holds a NUL character: {text!r}", option="smbios")
        encoded += text.encode("utf-8", "surrogateescape") + b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), handle) + body + (encoded or b"\0") + b"\0"


def _bios(bios: Bios) -> bytes:
    add = _Strings()
    unsupported, virtual_machine = 1 << 3, 0x10 | (0x08 if bios.uefi else 0)
    head = (add(bios.vendor), add(bios.version), 0xE000, add(bios.date), 1, unsupported, 0, virtual_machine)
    return _structure(0, 0x0000, "<BBHBBQBBBBBB", *head, *bios.release, 0xFF, 0xFF, strings=add.texts)


def _system(system: System) -> bytes:
    add = _Strings()
    names = (add(system.manufacturer), add(system.product), add(system.version), add(system.serial))
    uuid = system.uuid.bytes_le if system.uuid else bytes(16)
    power_switch = 6
    rest = (uuid, power_switch, add(system.sku), add(system.family))
    return _structure(1, 0x0100, "<BBBB16sBBB", *names, *rest, strings=add.texts)


def _baseboard(board: Baseboard) -> bytes:
    add = _Strings()
    names = (add(board.manufacturer), add(board.product), add(board.version), add(board.serial), add(board.asset))
    hosting, motherboard = 1, 0x0A
    rest = (hosting, add(board.location), CHASSIS_HANDLE, motherboard, 0)
    return _structure(2, 0x0200, "<BBBBBBBHBB", *names, *rest, strings=add.texts)


def _chassis(chassis: Chassis) -> bytes:
    add = _Strings()
    other, safe, no_security = 1, 3, 2
    head = (add(chassis.manufacturer), other, add(chassis.version), add(chassis.serial), add(chassis.asset))
    rest = (safe, safe, safe, no_security, 0, 0, 0, 0, 0, add(chassis.sku))
    return _structure(3, CHASSIS_HANDLE, "<BBBBBBBBBIBBBBB", *head, *rest, strings=add.texts)


def _processor(cpu: Processor, index: int) -> bytes:
    add = _Strings()
    central, other, enabled_populated, is_64bit = 3, 1, 0x41, 1 << 2
    cores, threads = min(cpu.cores, BYTE_COUNT_MAX), min(cpu.threads, BYTE_COUNT_MAX)
    fields = (
        *(add(f"{cpu.sock_pfx} {index}"), central, other, add(cpu.manufacturer), cpu.processor_id, add(cpu.version)),
        *(0, 0, cpu.max_speed, cpu.current_speed, enabled_populated, other),
        *(NO_HANDLE, NO_HANDLE, NO_HANDLE, add(cpu.serial), add(cpu.asset), add(cpu.part)),
        *(cores, cores, threads, is_64bit, other, cpu.cores, cpu.cores, cpu.threads),
    )
    return _structure(4, 0x4000 + index, "<BBBBQBBHHHBBHHHBBBBBBHHHHH", *fields, strings=add.texts)


def _memory(memory: Memory) -> Iterator[bytes]:
    total = sum(run.size for run in memory.ranges)
    if not total:
        return
    step = max(DIMM_MAX, -(-total // DIMMS_MAX >> 30) << 30)
    sizes = [min(step, total - start) for start in range(0, total, step)]
    other, system_memory, multi_bit_ecc, extended = 1, 3, 6, 0x80000000
    array = (other, system_memory, multi_bit_ecc, extended, NO_ERROR_HANDLE, len(sizes), total)
    yield _structure(16, ARRAY_HANDLE, "<BBBIHHQ", *array)
    yield from (_module(memory, index, size) for index, size in enumerate(sizes))
    for index, run in enumerate(memory.ranges):
        where = (0xFFFFFFFF, 0xFFFFFFFF, ARRAY_HANDLE, 1, run.start, run.end - 1)
        yield _structure(19, 0x1300 + index, "<IIHBQQ", *where)


def _module(memory: Memory, index: int, size: int) -> bytes:
    add = _Strings()
    mib = size >> 20
    dimm, ram, other, use_extended = 9, 7, 1 << 1, 0x7FFF
    fields = (
        *(ARRAY_HANDLE, NO_ERROR_HANDLE, 0xFFFF, 0xFFFF, mib if mib < use_extended else use_extended, dimm, 0),
        *(add(f"{memory.loc_pfx} {index}"), add(memory.bank), ram, other, memory.speed),
        *(add(memory.manufacturer), add(memory.serial), add(memory.asset), add(memory.part)),
        *(0, mib if mib >= use_extended else 0, memory.speed, 0, 0, 0),
    )
    return _structure(17, 0x1100 + index, "<HHHHHBBBBBHHBBBBBIHHHH", *fields, strings=add.texts)


def _checked(raw: bytes) -> bytes:
    """A structure that the user gave: its length and its end must be true, or guests read past it."""
    if len(raw) < 6 or not 4 <= raw[1] <= len(raw) - 2 or _strings_end(raw, raw[1]) != len(raw):
        raise ConfigError(f"an SMBIOS structure of {len(raw)} bytes is not whole", option="smbios")
    if raw[0] == 127:
        raise ConfigError("an SMBIOS structure of type 127 would end the table early", option="smbios")
    return raw


def _strings_end(raw: Sequence[int], start: int) -> int:
    end = bytes(raw).find(b"\0\0", start)
    return end + 2 if end >= 0 else -1
