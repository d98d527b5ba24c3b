"""SMBIOS tables, read back by the specification's rules."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from aioemu.boot.ram import RamRange
from aioemu.boot.smbios import Memory, Processor, Smbios, System, build
from aioemu.boot.smbios_options import FILE_MAX, apply_options
from aioemu.config.model import SmbiosOptions
from aioemu.errors import ConfigError, HostError

ID = UUID("12345678-9abc-def0-1234-56789abcdef0")
GIB = 1 << 30


def decode(smbios: Smbios) -> list[tuple[int, int, bytes, list[bytes]]]:
    """Type, handle, formatted area and strings of every structure."""
    _, table = build(smbios)
    data, structures = table.data, []
    while data:
        kind, length, handle = struct.unpack_from("<BBH", data)
        end = data.index(b"\0\0", length)
        structures.append((kind, handle, data[:length], data[length:end].split(b"\0")))
        data = data[end + 2 :]
    return structures


def text(smbios: Smbios, kind: int, offset: int) -> str:
    _, _, area, strings = next(s for s in decode(smbios) if s[0] == kind)
    return strings[area[offset] - 1].decode() if area[offset] else ""


def option(kind: int, **values: Any) -> SmbiosOptions:
    return SmbiosOptions(kind, None, {key.replace("_", "-"): value for key, value in values.items()})


def test_entry_point() -> None:
    """_SM3_ on a 16-byte boundary at 0xf0000, checksum zero, pointing to the whole table."""
    entry, table = build(Smbios())
    assert entry.address == 0xF0000
    assert sum(entry.data) & 0xFF == 0
    fields = struct.unpack("<5sBBBBBBBIQ", entry.data)
    assert fields[0] == b"_SM3_"
    assert (fields[2], fields[3], fields[6]) == (24, 3, 1)
    assert fields[8:] == (len(table.data), table.address)


def test_structures_and_handles() -> None:
    """Required types are there, the end comes last, no handle is used twice, references lead somewhere."""
    memory = Memory((RamRange(0, 3 * GIB), RamRange(4 * GIB, 61 * GIB)))
    structures = decode(Smbios(memory=memory, processor=Processor(sockets=300)))
    kinds = [kind for kind, *_ in structures]
    assert {0, 1, 2, 3, 4, 16, 17, 19, 32, 127} == set(kinds)
    assert kinds[-1] == 127
    assert (kinds.count(4), kinds.count(17), kinds.count(19)) == (300, 4, 2)
    handles = [handle for _, handle, *_ in structures]
    assert len(handles) == len(set(handles))
    assert next(struct.unpack_from("<H", area, 11)[0] for kind, _, area, _ in structures if kind == 2) in handles


@pytest.mark.parametrize("size", [64 << 20, GIB, 16 * GIB, 33 * GIB, 8192 * GIB])
def test_modules_add_up(size: int) -> None:
    """Module sizes, plain or extended, add up to the machine's memory."""
    total = 0
    for kind, _, area, _ in decode(Smbios(memory=Memory((RamRange(0, size),)))):
        if kind == 17:
            plain = struct.unpack_from("<H", area, 12)[0]
            total += (struct.unpack_from("<I", area, 28)[0] if plain == 0x7FFF else plain) << 20
    assert total == size


def test_uuid_is_stored_as_the_specification_says() -> None:
    """The first three fields are little-endian (7.2.1)."""
    _, _, area, _ = decode(Smbios(system=System(uuid=ID)))[1]
    assert area[8:24].hex() == "78563412bc9af0de123456789abcdef0"


def test_options_lie_over_what_the_board_says() -> None:
    """Fields of several types and options join; the later one wins; the rest stays."""
    base = Smbios(system=System(product="board"))
    smbios = apply_options(
        base,
        [
            option(0, vendor="V", version="1", date="02/03/2024", release="4.5", uefi="on"),
            option(1, manufacturer="M", serial="old", sku="K", family="F"),
            option(1, serial="new", version="2"),
            option(2, asset="A", location="L"),
            option(3, manufacturer="C", sku="CK"),
            option(4, sock_pfx="S", max_speed="3000", processor_id="0x123456789abcdef0"),
            option(17, loc_pfx="D", bank="B", speed=2400),
            option(11, value=["a", "b"]),
            option(11, value="c"),
        ],
        ID,
    )
    smbios = Smbios(
        **{**{f: getattr(smbios, f) for f in Smbios.__struct_fields__}, "memory": Memory((RamRange(0, GIB),), "D")}
    )
    assert [text(smbios, 1, offset) for offset in (4, 5, 6, 7, 25, 26)] == ["M", "board", "2", "new", "K", "F"]
    assert (text(smbios, 0, 4), text(smbios, 0, 8)) == ("V", "02/03/2024")
    assert (text(smbios, 2, 8), text(smbios, 2, 10), text(smbios, 3, 4)) == ("A", "L", "C")
    assert (text(smbios, 4, 4), text(smbios, 17, 16)) == ("S 0", "D 0")
    assert smbios.system.uuid == ID
    assert smbios.oem_strings == ("a", "b", "c")
    area = decode(smbios)[0][2]
    assert tuple(area[20:22]) == (4, 5)
    assert area[19] & 0x18 == 0x18


def test_uuid_of_type_1_wins_over_the_machines() -> None:
    """`type=1,uuid=` is the more particular of the two."""
    assert apply_options(Smbios(), [option(1, uuid=str(ID))], UUID(int=1)).system.uuid == ID


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        (1, {"serail": "x"}, "no field 'serail', did you mean 'serial'"),
        (4, {"max-sped": "1"}, "did you mean 'max-speed'"),
        (4, {"cores": "9"}, "no field 'cores'"),
        (17, {"ranges": "x"}, "no field 'ranges'"),
        (1, {"uuid": "not-one"}, "uuid cannot be 'not-one'"),
        (0, {"release": "1"}, "release cannot be '1'"),
        (0, {"release": "1.256"}, "release cannot be"),
        (0, {"uefi": "maybe"}, "uefi cannot be 'maybe'"),
        (4, {"max-speed": "65536"}, "max_speed cannot be"),
        (4, {"current-speed": "-1"}, "current_speed cannot be"),
        (4, {"processor-id": "many"}, "processor_id cannot be"),
        (9, {}, "type=9 is not known"),
        (None, {}, "is not known"),
        (11, {"values": "x"}, "no field 'values'"),
    ],
)
def test_bad_options(kind: int | None, values: Mapping[str, str], reason: str) -> None:
    """An option that cannot be says which field, and what is near."""
    with pytest.raises(ConfigError, match=reason) as caught:
        apply_options(Smbios(), [SmbiosOptions(kind, None, values)])
    assert caught.value.option == "smbios"


def test_what_cannot_be_a_table() -> None:
    """Strings with NUL, and more than the area holds, are refused."""
    with pytest.raises(ConfigError, match="NUL"):
        build(Smbios(system=System(serial="a\0b")))
    with pytest.raises(ConfigError, match="room for"):
        build(Smbios(system=System(serial="x" * 33000)))


def test_files(tmp_path: Path) -> None:
    """A structure from a file is taken whole, or refused: cut, with an end of table, or too large."""
    path = tmp_path / "s.bin"
    whole = b"\x80\x06\x34\x12\x01\x02" + b"text\0\0"
    path.write_bytes(whole)
    smbios = apply_options(Smbios(), [SmbiosOptions(file=str(path))])
    assert (0x80, 0x1234, whole[:6], [b"text"]) in decode(smbios)
    assert decode(smbios)[-1][0] == 127
    for bad in (b"", whole[:-1], whole + b"x", b"\x80\xff" + whole[2:], b"\x80\0" + whole[2:], b"\x7f" + whole[1:]):
        with pytest.raises(ConfigError, match="SMBIOS structure"):
            build(Smbios(raw=(bad,)))
    path.write_bytes(bytes(FILE_MAX + 1))
    with pytest.raises(ConfigError, match="more than"):
        apply_options(Smbios(), [SmbiosOptions(file=str(path))])
    with pytest.raises(HostError, match="No such file"):
        apply_options(Smbios(), [option(11, path=str(tmp_path / "none"))])


@pytest.mark.skipif(shutil.which("dmidecode") is None, reason="needs dmidecode")
def test_dmidecode_reads_it(tmp_path: Path) -> None:
    """The tool that administrators use prints what was set, without a complaint."""
    memory, cpu = Memory((RamRange(0, 2 * GIB),)), Processor(sockets=2, cores=4, threads=8)
    entry, table = build(Smbios(system=System("ACME", "Rocket", serial="S1", uuid=ID), memory=memory, processor=cpu))
    moved = bytearray(entry.data)
    moved[16:24] = struct.pack("<Q", 32)
    moved[5] = 0
    moved[5] = -sum(moved) & 0xFF
    (tmp_path / "dump").write_bytes(bytes(moved).ljust(32, b"\0") + table.data)

    said = subprocess.run(
        ["dmidecode", "--from-dump", "dump"], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert not said.stderr
    for line in ("Manufacturer: ACME", "Product Name: Rocket", f"UUID: {ID}", "Size: 2 GB", "Core Count: 4"):
        assert line in said.stdout
    for complaint in ("BROKEN", "TRUNCATED", "Wrong", "bad index", "OUT OF SPEC"):
        assert complaint not in said.stdout
