"""Boots a kernel directly: tells the kind of image, fills guest RAM, and returns the state of the boot processor.

Takes ELF with a PVH note, ELF with a 64-bit Linux entry, multiboot, and bzImage. Compressed images are named, not
unpacked. Kernel and initrd may be hostile: their errors are ConfigError (the file) or HostError (the host), and
name the file. What the guest may find in RAM beyond what is loaded is not cleared.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from msgspec import Struct

from aioemu.boot import bzimage, e820, elf, initrd, lowmem, multiboot, params, pvh
from aioemu.boot.e820 import E820Entry
from aioemu.boot.entry import BootEntry
from aioemu.boot.image import ImageFile
from aioemu.boot.ram import GuestRam, RamRange, runs_of
from aioemu.boot.tables import FirmwareTables
from aioemu.errors import ConfigError

HEAD_SIZE = 8192  # ELF header, setup header (to 0x290) and multiboot header (in the first 8192 bytes)
LINUX_CMDLINE_MAX = 2047  # COMMAND_LINE_SIZE - 1: a bare vmlinux does not say how much it takes
VMLINUX_INITRD_MAX = 0x7FFFFFFF  # what Linux's own header says as initrd_addr_max

_OTHER_FORMATS = (
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4"),
    (0, b"\x02\x21\x4c\x18", "compressed with lz4"),
    (0, b"BZh", "compressed with bzip2"),
    (4, b"zimg", "a compressed EFI image"),
    (0x38, b"ARM\x64", "a kernel for arm64"),
    (0, b"MZ", "an EFI program without a Linux setup header"),
)


class KernelImage(Struct, frozen=True):
    """What `-kernel`, `-initrd` and `-append` give."""

    kernel: str
    initrd: str | None = None
    cmdline: str = ""


class BootLayout(Struct, frozen=True):
    """What the board adds: ranges that are not the guest's to use, and what goes into the zero page."""

    reserved: tuple[E820Entry, ...] = ()  # ECAM and the like; RAM below them is taken out of the map
    rng_seed: bytes = b""  # given to Linux as first entropy where its boot protocol can; empty: none


class BootFiles:
    """Kernel and initrd held open: every load, also after a reset, takes the same files."""

    def __init__(self, image: KernelImage) -> None:
        self.cmdline = image.cmdline
        with ExitStack() as stack:
            self.kernel = stack.enter_context(ImageFile(image.kernel, "kernel"))
            self.initrd = stack.enter_context(ImageFile(image.initrd, "initrd")) if image.initrd else None
            self._close = stack.pop_all()

    def close(self) -> None:
        self._close.close()

    def __enter__(self) -> BootFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def load(
    ram: GuestRam, image: KernelImage | BootFiles, layout: BootLayout, tables: FirmwareTables | None = None
) -> BootEntry:
    """Fill RAM and say how the boot processor starts. Blocks for as long as reading the files takes."""
    if isinstance(image, KernelImage):
        with BootFiles(image) as files:
            return load(ram, files, layout, tables)
    boot = _Boot(ram, image, layout, tables or FirmwareTables(()))
    boot.tables.write(ram)
    return boot.load()


class _Boot:
    """One load: what every kind of kernel needs, and one method per kind."""

    def __init__(self, ram: GuestRam, files: BootFiles, layout: BootLayout, tables: FirmwareTables) -> None:
        self.ram = ram
        self.files = files
        self.layout = layout
        self.tables = tables
        self.held = [RamRange(entry.start, entry.size) for entry in layout.reserved]
        self.held += [RamRange(placement.address, len(placement.data)) for placement in tables.placements]
        for needed in (RamRange(0, lowmem.VIDEO_START), lowmem.FIRMWARE):
            if not any(run.holds(needed.start, needed.size) for run in ram.ranges):
                raise ConfigError(f"booting a kernel needs RAM at {needed}, RAM is {runs_of(ram)}", option="m")
        self.memory_map = e820.build_map(ram.ranges, layout.reserved)

    def load(self) -> BootEntry:
        kernel = self.files.kernel
        head = kernel.read(0, HEAD_SIZE)
        if head.startswith(elf.MAGIC):
            return self._elf(head)
        if bzimage.is_bzimage(head):
            return self._bzimage(head)
        if multiboot.find(head) is not None:
            return self._multiboot(head, None)
        raise kernel.error(_unknown(head))

    def _elf(self, head: bytes) -> BootEntry:
        kernel = self.files.kernel
        image = elf.parse(kernel, head)
        if image.pvh_entry is None and multiboot.find(head) is not None:
            return self._multiboot(head, image)
        if image.pvh_entry is None and image.bits == 32:
            raise kernel.error("a 32-bit ELF file needs a PVH note or a multiboot header to be booted")
        limit = LINUX_CMDLINE_MAX if image.pvh_entry is None else pvh.CMDLINE_MAX
        cmdline = self._cmdline(limit)
        self._check_clear(image.places)
        elf.load(self.ram, kernel, image)
        if image.pvh_entry is not None:
            disk = self._initrd(image.places, initrd.ADDRESS_MAX)
            pvh.write_start_info(self.ram, cmdline, disk, self.tables.rsdp, self.memory_map)
            return pvh.enter(self.ram, image.pvh_entry)
        if not any(place.holds(image.entry, 1) for place in image.places):
            raise kernel.error(f"the entry {image.entry:#x} lies in no segment")
        disk = self._initrd(image.places, VMLINUX_INITRD_MAX)
        self._boot_params(params.bare_header(), cmdline, disk)
        return params.enter_long64(self.ram, image.entry)

    def _bzimage(self, head: bytes) -> BootEntry:
        image = bzimage.parse(self.files.kernel, head)
        cmdline = self._cmdline(image.cmdline_max)
        self._check_clear([image.memory])
        bzimage.load(self.ram, self.files.kernel, image)
        disk = self._initrd([image.memory], image.initrd_addr_max)
        self._boot_params(image.header, cmdline, disk)
        enter = params.enter_long64 if image.long else params.enter_protected32
        return enter(self.ram, image.entry)

    def _multiboot(self, head: bytes, image: elf.ElfKernel | None) -> BootEntry:
        cmdline = self._cmdline(pvh.CMDLINE_MAX - multiboot.NAME_MAX - 1)
        kernel = multiboot.parse(self.files.kernel, head, image)
        self._check_clear(kernel.places)
        elf.load(self.ram, self.files.kernel, kernel)
        disk = self._initrd(kernel.places, initrd.ADDRESS_MAX)
        names = (self.files.kernel.path, self.files.initrd.path if self.files.initrd else "")
        return multiboot.enter(self.ram, kernel.entry, names, cmdline, disk, self.memory_map)

    def _boot_params(self, header: bytes, cmdline: bytes, disk: RamRange | None) -> None:
        seed = self.layout.rng_seed
        params.write_boot_params(self.ram, header, cmdline, disk, self.tables.rsdp, self.memory_map, seed)

    def _initrd(self, taken: Sequence[RamRange], address_max: int) -> RamRange | None:
        if self.files.initrd is None:
            return None
        return initrd.load_initrd(self.ram, self.files.initrd, [*taken, *self.held], address_max)

    def _check_clear(self, places: Sequence[RamRange]) -> None:
        """A kernel may not lie over what the board reserves or over tables."""
        for place in places:
            over = next((held for held in self.held if held.size and held.overlaps(place)), None)
            if over is not None:
                raise self.files.kernel.error(f"wants {place}, where the board has reserved {over}")

    def _cmdline(self, limit: int) -> bytes:
        try:
            cmdline = self.files.cmdline.encode("utf-8", "surrogateescape")  # bytes of argv come through unchanged
        except UnicodeEncodeError as exc:
            raise ConfigError("the kernel command line holds a lone surrogate", option="append") from exc
        if b"\0" in cmdline:
            raise ConfigError("the kernel command line holds a NUL character", option="append")
        if len(cmdline) > limit:
            reason = f"the kernel command line has {len(cmdline)} bytes, this kernel takes {limit}"
            raise ConfigError(reason, option="append")
        return cmdline


def _unknown(head: bytes) -> str:
    if not head:
        return "is empty"
    for offset, magic, meaning in _OTHER_FORMATS:
        if head[offset : offset + len(magic)] == magic:
            return f"is {meaning}; a bzImage or an unpacked vmlinux is needed"
    return "is no kernel: neither an ELF file nor a bzImage, and without a multiboot header"
