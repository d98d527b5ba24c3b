"""The disks of a machine: -blockdev and -drive as launchers write them, and which device may have them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aioemu.blockdev.qcow2.create import create_image
from aioemu.cli.command_line import read_command_line
from aioemu.errors import ConfigError
from aioemu.log import EventLog, Log
from aioemu.machine.drives import Drives
from aioemu.machine.machine import Machine
from aioemu.machine.served import SERVED
from tests.blockdev.conftest import tools_of_their_own  # noqa: F401 - a fixture

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(MIB))
    return path


def machine(*words: str) -> Machine:
    """A machine without board and processor."""
    return Machine(read_command_line(["-machine", "none", *words])[0])


async def refusal(*words: str) -> str:
    """Why a machine with these options cannot be."""
    made = machine(*words)
    with pytest.raises(ConfigError) as caught:
        await made.open()
    assert not made.drives.used or not made.drives.graph.nodes
    return str(caught.value)


async def test_nodes_and_drives_are_there(image: Path) -> None:
    """Both grammars; a drive that nobody named has the name that QEMU gives it."""
    made = machine(
        *("-blockdev", f"driver=file,node-name=f,filename={image}"),
        *("-blockdev", '{"driver": "raw", "node-name": "r", "file": "f", "read-only": true}'),
        *("-blockdev", f"raw,node-name=w,file.driver=file,file.filename={image},offset=512,size=1024"),
        *("-drive", f"file={image},if=none,format=raw,cache=none,node-name=d0,discard=unmap,detect-zeroes=unmap"),
        *("-drive", f"file={image},if=none,id=d1,format=raw,file.driver=file,cache=unsafe,werror=stop,readonly=on"),
        *("-drive", "if=none,id=empty"),
    )
    await made.open()
    try:
        nodes = made.drives.graph.nodes
        assert {"f", "r", "w", "d0"} <= set(nodes)
        assert list(made.drives.backends) == ["none0", "d1", "empty"]
        assert nodes["d0"].options.cache.direct
        assert nodes["d0"].options.detect_zeroes == "unmap"
        second = made.drives.backends["d1"]
        assert (second.werror, second.rerror, second.read_only) == ("stop", "report", True)
        assert second.node.file.options.cache.no_flush
        assert await made.drives.backends["none0"].read(0, 512) == bytes(512)
    finally:
        made.close()
    assert not nodes


async def test_a_device_takes_a_drive_and_gives_it_back(image: Path) -> None:
    """One device at a time; what names a node leaves the node."""
    made = machine(
        *("-blockdev", f"raw,node-name=n,file.driver=file,file.filename={image}"),
        *("-drive", f"file={image},if=none,id=d,format=raw,file.locking=off"),
        *("-drive", "if=none,id=empty"),
    )
    await made.open()
    drives = made.drives
    try:
        first = drives.claim("n", "blk0", "virtio-blk-pci")
        with pytest.raises(ConfigError, match="Permission conflict on node 'n'"):
            drives.claim("n", "blk1", "virtio-blk-pci")
        drives.release(first)
        shared = [drives.claim("n", name, "virtio-blk-pci", share_rw=True) for name in ("a", "b")]
        for each in shared:
            drives.release(each)
        drives.claim("d", "blk2", "virtio-blk-pci")
        with pytest.raises(ConfigError, match="Drive 'd' is already in use by another device"):
            drives.claim("d", "blk3", "virtio-blk-pci")
        with pytest.raises(ConfigError, match=r"Property 'virtio-blk-pci.drive' can't find value 'zz'"):
            drives.claim("zz", "blk4", "virtio-blk-pci")
        with pytest.raises(ConfigError, match="Device needs media, but drive is empty"):
            drives.claim("empty", "blk5", "virtio-blk-pci")
        assert "n" in drives.graph.nodes
        assert [each.name for each in drives.all] == ["d", "empty"]
    finally:
        made.close()


@pytest.mark.parametrize(  # the texts of QEMU 10.0
    ("words", "message"),
    [
        ("discard=bla", "Invalid discard option"),
        ("werror=bla", "'bla' invalid write error action"),
        ("rerror=enospc", "'enospc' invalid read error action"),
        ("cache=bla", "invalid cache option"),
        ("if=bla", "unsupported bus type 'bla'"),
        ("if=ide", "machine type does not support if=ide,bus=0,unit=0"),
        ("werror=auto", "'auto' invalid write error action"),
        ("format=raw,index=3 -drive if=none,index=3", "drive with bus=0, unit=3 (index=3) exists"),
        ("format=raw,unit=0 -drive if=none,index=0", "drive with bus=0, unit=0 (index=0) exists"),
        ("media=bla", "'bla' invalid media"),
        ("aio=bla", "invalid aio option"),
        ("format=bla", "Unknown driver 'bla'"),
        ("format=raw,foo=1", "Block format 'raw' does not support the option 'foo'"),
        ("index=1,unit=1", "index cannot be used with bus and unit"),
        ("cache.direct=x", "Parameter 'cache.direct' expects 'on' or 'off'"),
        ("node-name=4a", "Invalid node-name: '4a'"),
        ("driver=raw,format=raw", "Cannot specify both 'driver' and 'format'"),
        ("file.filename=/x", "Can't specify 'file' and 'filename' options at the same time"),
        ("file.foo=1,format=raw", "Block protocol 'file' doesn't support the option 'foo'"),
        (
            "aio=native,format=raw",
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
        ),
        ("force-share=on,format=raw", "force-share=on can only be used with read-only images"),
        ("size=1,format=raw", "Specified size is not multiple of 512"),
        ("offset=3M,format=raw", "Offset (3145728) cannot be greater than size of the containing file (1048576)"),
        ("format=null-co", "The only allowed filename for this driver is 'null-co://'"),
    ],
)
async def test_mistakes_are_named(image: Path, words: str, message: str) -> None:
    """What cannot be is refused before anything runs, in words that people have met."""
    prefix = "if=none," if not words.startswith("if=") else ""
    assert f": {message}" in await refusal("-drive", *f"file={image},{prefix}id=d,{words}".split())


@pytest.mark.parametrize("words", [[",snapshot=on"], ["", "-snapshot"]])
async def test_a_temporary_image_takes_the_writes(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """snapshot=on and -snapshot: the image stays as it is, and nothing is left in the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    image.write_bytes(b"i" * MIB)
    made = machine("-drive", f"file={image},if=none,id=d,format=raw{words[0]}", *words[1:])
    await made.open()
    try:
        disk = made.drives.backends["d"]
        assert not disk.read_only
        assert await disk.read(0, 512) == b"i" * 512
        await disk.write(0, b"w" * 512)
        await disk.write_zeroes(65536, 65536, unmap=True)
        assert await disk.read(0, 1024) == b"w" * 512 + b"i" * 512
        assert await disk.read(65536, 512) == bytes(512)
        await disk.flush()
        assert list(folder.iterdir()) == []
    finally:
        made.close()
    assert image.read_bytes() == b"i" * MIB


async def test_a_temporary_image_that_cannot_be(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder for it: refused, and the image is let go."""
    monkeypatch.setenv("TMPDIR", "/no/such/folder")
    found = await refusal("-drive", f"file={image},if=none,id=d,format=raw,snapshot=on")
    assert "Could not get temporary filename in /no/such/folder: No such file or directory" in found


async def test_what_is_read_is_kept(tmp_path: Path) -> None:
    """copy-on-read=on: the filter is not what query-block shows, and what was read is in the image."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-utils is not installed")
    (tmp_path / "base.img").write_bytes(b"b" * MIB)
    path = tmp_path / "over.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", path], check=True)
    made = machine("-drive", f"file={path},if=none,id=d,copy-on-read=on")
    await made.open()
    try:
        disk = made.drives.backends["d"]
        assert await disk.read(0, 512) == b"b" * 512
        assert disk.node.implicit
    finally:
        made.close()
    (tmp_path / "base.img").write_bytes(bytes(MIB))
    out = tmp_path / "out.img"
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, out], check=True)
    assert out.read_bytes()[:65536] == b"b" * 65536


@pytest.mark.parametrize(
    ("words", "message"),  # the texts of QEMU 7.2
    [
        ("file=FOLDER", "'file' driver requires 'FOLDER' to be a regular file"),
        ('file=json:{"driver":"raw"}', 'A block device must be specified for "file"'),
        ("file=blkdebug:IMAGE,format=raw", "blkdebug requires both config file and image path"),
        ("file=blkdebug:none:IMAGE,format=raw", "Could not read blkdebug config file: No such file or directory"),
        ("file=OVERLAY,backing.driver=qcow2", "Could not open backing file: Image is not in qcow2 format"),
        (
            "file=OVERLAY,backing.file.filename=none",
            "Could not open backing file: Could not open 'none': No such file or directory",
        ),
    ],
)
async def test_mistakes_in_names(image: Path, words: str, message: str) -> None:
    """File names that hold options, and options of a backing file, are refused in words that people have met."""
    overlay = image.parent / "over.qcow2"
    await create_image(str(overlay), MIB, backing_file="a.img", backing_fmt="raw")

    def named(text: str) -> str:
        places = {"FOLDER": image.parent, "IMAGE": image, "OVERLAY": overlay}
        return re.sub("|".join(places), lambda match: str(places[match[0]]), text)

    assert named(message) in await refusal("-drive", f"{named(words)},if=none")


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("OVERLAY", ["over.qcow2", "a.img"]),
        ("OVERLAY,backing.node-name=b,backing.file.locking=off", ["over.qcow2", "a.img"]),
        ("OVERLAY,backing.driver=raw,backing.file.filename=OTHER", ["over.qcow2", "b.img"]),
        ("OVERLAY,backing.file.filename=OTHER", ["over.qcow2", "b.img"]),
        ("OVERLAY,driver=qcow2,backing.driver=null-co,backing.size=1M,file.driver=file", None),
        ('json:{"driver":"qcow2",,"file.filename":"OVERLAY",,"backing":null}', ["over.qcow2"]),
        ('json:{"driver":"raw",,"file":{"filename":"OTHER"}},file.driver=file,file.locking=off', ["b.img"]),
        ('json:{"file.filename":"OVERLAY"}', ["over.qcow2", "a.img"]),
        ("blkdebug::OTHER,format=raw", ["b.img"]),
    ],
)
async def test_options_in_and_beside_names(image: Path, words: str, files: list[str] | None) -> None:
    """`json:` and `blkdebug:` names, dotted keys, and `backing.*` where the image's header says the rest."""
    overlay, other = image.parent / "over.qcow2", image.parent / "b.img"
    other.write_bytes(bytes(MIB))
    await create_image(str(overlay), MIB, backing_file="a.img", backing_fmt="raw")
    words = words.replace("OVERLAY", str(overlay)).replace("OTHER", str(other))
    if files is None:
        assert "The only allowed filename for this driver is 'null-co://'" in await refusal(
            "-drive", f"file={words},if=none"
        )
        return
    made = machine("-drive", f"file={words},if=none,id=d")
    await made.open()
    try:
        opened = [node for node in made.drives.graph.nodes.values() if node.driver == "file"]
        assert sorted(Path(node.filename).name for node in opened) == sorted(files)
        assert "b" in made.drives.graph.nodes or "node-name" not in words
        assert await made.drives.backends["d"].read(0, 512) == bytes(512)
    finally:
        made.close()


async def test_drives_have_places(tmp_path: Path) -> None:
    """-hda, -cdrom and drives without if= are virtio disks here; each has a place, and its name by that."""
    paths = [tmp_path / f"{number}.img" for number in range(4)]
    for path in paths:
        path.write_bytes(bytes(MIB))
    words = ["-hda", str(paths[0]), "-cdrom", str(paths[1])]
    for path in paths[2:]:
        words += ["-drive", f"file={path},format=raw"]
    drives = Drives(read_command_line(["-machine", "none", *words])[0], Log("block", "m", EventLog()))
    await drives.open()
    try:
        assert list(drives.backends) == ["virtio0", "virtio2", "virtio1", "virtio3"]
        assert [backend.read_only for backend in drives.all] == [False, True, False, False]
        assert {device.driver for device in drives.devices()} == {"virtio-blk"}
    finally:
        drives.close()


async def test_a_drive_that_no_device_has_bars_nobody(image: Path) -> None:
    """Others may write a raw image until a device takes it; then the lock is refused with its hint."""
    made = machine("-drive", f"file={image},if=none,id=d,format=raw", "-drive", f"file={image},if=none,id=e,format=raw")
    await made.open()
    try:
        made.drives.claim("d", "blk0", "virtio-blk-pci")
        with pytest.raises(ConfigError, match='Failed to get "write" lock') as caught:
            made.drives.claim("e", "blk1", "virtio-blk-pci")
        assert caught.value.__notes__ == [f"Is another process using the image [{image}]?"]
    finally:
        made.close()


async def test_names_do_not_collide(image: Path) -> None:
    """Drives and nodes share one space of names."""
    found = await refusal("-blockdev", "driver=null-co,node-name=d", "-drive", f"file={image},if=none,id=d,format=raw")
    assert "Device name 'd' conflicts with an existing node name" in found
    found = await refusal("-drive", f"file={image},if=none,id=d,format=raw,node-name=d")
    assert "Device name 'd' conflicts with an existing node name" in found
    assert "'node-name' must be specified for the root node" in await refusal("-blockdev", "driver=null-co")


def test_both_options_are_served() -> None:
    """A machine with disks is not refused."""
    assert {"drive", "blockdev"} <= SERVED
