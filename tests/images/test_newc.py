"""The cpio writer: what it writes is what other readers of the format find."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.errors import ConfigError
from aioemu.images.newc import NewcWriter


@dataclass
class Read:
    """One entry as a reader of the format sees it."""

    name: str
    mode: int
    data: bytes
    device: tuple[int, int]


def read(archive: bytes) -> list[Read]:
    """A reader after cpio(5), section "New ASCII Format", that shares nothing with the writer."""
    found, at = list[Read](), 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_at = at + 110
        data_at = (name_at + fields[11] + 3) // 4 * 4
        assert archive[name_at + fields[11] - 1] == 0
        name = archive[name_at : name_at + fields[11] - 1].decode("utf-8", "surrogateescape")
        if name == "TRAILER!!!":
            return found
        found.append(Read(name, fields[1], archive[data_at : data_at + fields[6]], (fields[9], fields[10])))
        at = (data_at + fields[6] + 3) // 4 * 4


def written(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = NewcWriter(out)
    for name, data in files:
        writer.file(name, data)
    writer.close()
    return out.getvalue()


PLAIN = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=60).filter(lambda s: s not in (".", ".."))
names = st.lists(PLAIN, min_size=1, max_size=4).map("/".join).filter(lambda name: name != "TRAILER!!!")
encodable = names.filter(lambda name: "\\ud" not in ascii(name))


@given(st.dictionaries(encodable, st.binary(max_size=2000), max_size=8))
def test_every_file_comes_back(files: dict[str, bytes]) -> None:
    """Any name that a file can have and any content survive, in order, at any length."""
    archive = written(*files.items())

    assert [(entry.name, entry.data) for entry in read(archive)] == list(files.items())
    assert len(archive) % 512 == 0


@given(st.binary(min_size=1, max_size=40))
def test_names_that_are_not_text_survive(raw: bytes) -> None:
    """A file name is bytes: those that are no UTF-8 pass through surrogates."""
    name = raw.replace(b"\0", b"_").replace(b"/", b"_").decode("utf-8", "surrogateescape")
    if name not in (".", ".."):
        assert read(written((name, b"")))[0].name == name


def test_kinds_and_modes() -> None:
    """Directories, links, device nodes and files keep their kind, mode and numbers."""
    out = io.BytesIO()
    writer = NewcWriter(out)
    writer.directory("dev", 0o1777)
    writer.node("dev/console", stat.S_IFCHR, 5, 1)
    writer.node("dev/vda", stat.S_IFBLK, 254, 0, 0o660)
    writer.symlink("lib64", "usr/lib64")
    writer.file("init", b"#!", 0o4755)
    writer.close()
    entries = {entry.name: entry for entry in read(out.getvalue())}

    assert entries["dev"].mode == stat.S_IFDIR | 0o1777
    assert entries["dev/console"].mode == stat.S_IFCHR | 0o600
    assert entries["dev/console"].device == (5, 1)
    assert entries["dev/vda"].mode == stat.S_IFBLK | 0o660
    assert entries["lib64"].data == b"usr/lib64"
    assert entries["init"].mode == stat.S_IFREG | 0o4755


@pytest.mark.parametrize("name", ["", "/etc", "a//b", "a/", "./a", "a/../b", "..", "a\0b", "TRAILER!!!", "x" * 4096])
def test_unusable_names_are_refused(name: str) -> None:
    """A name that leaves the archive, ends it early or does not fit is an error that shows it."""
    with pytest.raises(ConfigError, match="initramfs entry"):
        written((name, b""))


def test_a_short_source_is_an_error() -> None:
    """A file that shrank while it was read does not shift what follows it."""
    with pytest.raises(ConfigError, match="2 of 5 bytes missing"):
        NewcWriter(io.BytesIO()).stream("a", io.BytesIO(b"123"), 5)


@pytest.mark.parametrize("size", [-1, 1 << 32])
def test_sizes_beyond_the_format_are_refused(size: int) -> None:
    """A size that eight hex digits cannot hold is refused before anything is written."""
    out = io.BytesIO()

    with pytest.raises(ConfigError, match="do not fit"):
        NewcWriter(out).stream("a", io.BytesIO(), size)
    assert out.getvalue() == b""


def test_device_numbers_out_of_range_are_refused() -> None:
    """Device numbers that Linux cannot have are refused."""
    with pytest.raises(ConfigError, match="out of range"):
        NewcWriter(io.BytesIO()).node("a", stat.S_IFCHR, 4096, 0)


@pytest.mark.parametrize("reader", [["cpio", "-idm", "--quiet"], ["busybox", "cpio", "-idm"]])
def test_other_programs_unpack_it(reader: list[str], tmp_path: Path) -> None:
    """GNU cpio and busybox unpack an archive to the tree that went in."""
    if shutil.which(reader[0]) is None:
        pytest.skip(f"needs {reader[0]} as the other reader")
    out = io.BytesIO()
    writer = NewcWriter(out)
    writer.directory("a")
    writer.directory("a/b c", 0o700)
    sizes = range(9)
    for size in sizes:
        writer.file(f"a/b c/{'n' * (size + 1)}", b"x" * size, 0o640)
    writer.symlink("a/link", "b c/n")
    writer.close()
    subprocess.run(reader, input=out.getvalue(), cwd=tmp_path, check=True, capture_output=True)

    for size in sizes:
        path = tmp_path / "a/b c" / ("n" * (size + 1))
        assert path.read_bytes() == b"x" * size
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (tmp_path / "a/link").readlink() == Path("b c/n")
    assert stat.S_IMODE((tmp_path / "a/b c").stat().st_mode) == 0o700
