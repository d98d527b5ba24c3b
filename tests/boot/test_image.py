"""Files that are not what they should be: kinds, sizes that lie, files that change."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import pytest

from aioemu.boot.image import ImageFile
from aioemu.boot.initrd import load_initrd, place_high
from aioemu.boot.loader import BootFiles, BootLayout, KernelImage, load
from aioemu.boot.ram import RamRange
from aioemu.errors import ConfigError, EmuError, HostError
from tests.boot.fakes import MIB, Elf, FakeRam, put


def refuse(path: str | Path, what: str = "initrd") -> EmuError:
    with pytest.raises(EmuError) as caught:
        ImageFile(path, what)
    assert str(path) in str(caught.value)
    assert what in str(caught.value)
    return caught.value


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    """A FIFO has no offsets; looking at it neither blocks nor wakes its writer."""
    os.mkfifo(tmp_path / "fifo")
    assert "is a FIFO" in str(refuse(tmp_path / "fifo"))


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    """Folders, devices and sockets are named as what they are."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        assert "is a directory" in str(refuse(tmp_path))
        assert "is a character device" in str(refuse("/dev/zero"))
        assert "is a socket" in str(refuse(tmp_path / "s"))


def test_host_errors_keep_their_errno(tmp_path: Path) -> None:
    """A missing file, a loop of links and a name that cannot be are the host's answers."""
    os.symlink("loop", tmp_path / "loop")
    for path, expected in ((tmp_path / "none", "No such file"), (tmp_path / "loop", "symbolic links")):
        error = refuse(path, "kernel")
        assert isinstance(error, HostError)
        assert expected in str(error)
    assert isinstance(refuse(tmp_path / ("x" * 300)), HostError)
    with pytest.raises(ConfigError, match="null byte"):
        ImageFile("a\0b", "kernel")


def test_refused_files_leave_no_descriptor(tmp_path: Path) -> None:
    """A kernel that cannot be opened, or whose initrd cannot, costs no file descriptor."""
    kernel = put(tmp_path, Elf().build())
    gc.collect()  # what other tests left goes now, not while this one counts
    before = len(os.listdir("/proc/self/fd"))
    for image in (KernelImage(str(tmp_path)), KernelImage(kernel, str(tmp_path)), KernelImage(kernel, "/none")):
        with pytest.raises(EmuError):
            load(FakeRam(), image, BootLayout())
    load(FakeRam(), KernelImage(kernel), BootLayout())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("data", [b"", b"\0", b"hello, world", b"\x7fEL", b"MZ" + bytes(6000)])
def test_what_is_no_kernel(tmp_path: Path, data: bytes) -> None:
    """An empty or unknown file is refused by name."""
    path = put(tmp_path, data)
    with pytest.raises(ConfigError, match=f"kernel {path}: is "):
        load(FakeRam(), KernelImage(path), BootLayout())


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"MZ\0\0zimg", "EFI")],
)
def test_compressed_kernels_are_named(tmp_path: Path, head: bytes, name: str) -> None:
    """A compressed kernel is refused with the name of its format."""
    with pytest.raises(ConfigError, match=name):
        load(FakeRam(), KernelImage(put(tmp_path, head.ljust(9000, b"\0"))), BootLayout())


def initrd_of(path: str, ram: FakeRam) -> RamRange:
    with ImageFile(path, "initrd") as image:
        return load_initrd(ram, image, [RamRange(0x100000, 0x1000)], 0xFFFFFFFF)


def test_initrd_lies_high_and_page_aligned(tmp_path: Path) -> None:
    """Its end is as near to the end of RAM as alignment lets it."""
    ram = FakeRam()
    place = initrd_of(put(tmp_path, b"x" * 5000), ram)
    assert place == RamRange(64 * MIB - 8192, 5000)
    assert ram.read(place.start, place.size) == b"x" * 5000


def test_initrd_larger_than_ram(tmp_path: Path) -> None:
    """An initrd that does not fit is refused before it is read, however large it claims to be."""
    path = put(tmp_path, b"")
    for size in (63 * MIB, 64 * MIB, 1 << 40, (1 << 43) - 1):
        os.truncate(path, size)
        ram = FakeRam()
        with pytest.raises(ConfigError, match=f"does not fit: {size} bytes"):
            initrd_of(path, ram)
        assert not ram.told


def test_empty_initrd(tmp_path: Path) -> None:
    """A file without bytes, or one whose size the host does not tell, is refused."""
    for path in (put(tmp_path, b""), "/proc/self/status"):
        with pytest.raises(ConfigError, match="is empty"):
            initrd_of(path, FakeRam())


def test_initrd_that_changes_size_after_it_was_opened(tmp_path: Path) -> None:
    """A file that shrank or grew since its size was asked is refused, not loaded in part."""
    path = put(tmp_path, b"x" * 5000)
    for size, reason in ((4000, "truncated"), (5001, "more than the 5000 bytes")):
        os.truncate(path, 5000)
        ram = FakeRam()
        with ImageFile(path, "initrd") as image:
            os.truncate(path, size)
            with pytest.raises(ConfigError, match=reason):
                load_initrd(ram, image, [], 0xFFFFFFFF)
        ram.assert_no_view_is_held()


def test_a_second_load_takes_the_files_that_were_opened(tmp_path: Path) -> None:
    """After a reset the machine boots what it booted before, though the name is another file's now or nobody's."""
    path = put(tmp_path, Elf().build())
    with BootFiles(KernelImage(path)) as files:
        first = load(FakeRam(), files, BootLayout())
        os.replace(put(tmp_path, b"other", "new"), path)
        second = load(FakeRam(), files, BootLayout())
        os.unlink(path)
        third = load(FakeRam(), files, BootLayout())
    assert first == second == third


LOW = RamRange(0, 4 * MIB)
HIGH = RamRange(8 * MIB, 4 * MIB)


@pytest.mark.parametrize(
    ("taken", "size", "limit", "start"),
    [
        ([], MIB, 1 << 32, 11 * MIB),
        ([], MIB, 10 * MIB - 1, 9 * MIB),
        ([], MIB, 10 * MIB, 9 * MIB),
        ([], 4 * MIB, 1 << 32, 8 * MIB),
        ([], 4 * MIB + 1, 1 << 32, None),
        ([], 3 * MIB, 8 * MIB, 1 * MIB),
        ([], 3 * MIB + 1, 8 * MIB, None),
        ([RamRange(11 * MIB, 1)], MIB, 1 << 32, 10 * MIB),
        ([RamRange(9 * MIB, 2 * MIB + 1)], MIB, 1 << 32, 8 * MIB),
        ([HIGH], 2 * MIB, 1 << 32, 2 * MIB),
        ([HIGH, LOW], 1, 1 << 32, None),
        ([], 1, 0xFFFFF, None),
        ([], 4096, 0x100FFF, 0x100000),
        ([], 4096, 0x100FFE, None),
    ],
)
def test_place_high(taken: list[RamRange], size: int, limit: int, start: int | None) -> None:
    """The highest aligned place that is RAM, free, above 1 MiB and below the limit."""
    place = place_high([LOW, HIGH], taken, size, limit)
    assert place == (None if start is None else RamRange(start, size))


def test_machine_without_low_memory(tmp_path: Path) -> None:
    """A machine with less RAM than start data and tables need is told so."""
    path = put(tmp_path, Elf().build())
    for ram in (FakeRam(RamRange(0, 0x80000)), FakeRam(RamRange(0, 0xA0000)), FakeRam(RamRange(MIB, MIB))):
        with pytest.raises(ConfigError, match="needs RAM at"):
            load(ram, KernelImage(path), BootLayout())
