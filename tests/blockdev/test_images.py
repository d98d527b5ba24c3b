"""Images by file name: formats that are guessed, protocols, `json:` names, and what a guessed raw image refuses."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.backend import Backend
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.legacy import open_image
from aioemu.blockdev.node import ExtentKind
from aioemu.blockdev.probe import MAGICS, probe
from aioemu.errors import ConfigError, HostError
from tests.blockdev.conftest import Warnings


async def test_a_guessed_raw_image_stays_raw(graph: Graph, image: Path, warnings: Warnings) -> None:
    """The user is warned, and no write turns it into an image that names other files."""
    node = await open_image(graph, str(image), {})
    assert node.driver == "raw"
    assert "Image format was not specified" in warnings[0]
    for offset, magic, name in MAGICS:
        if name != "qcow":
            with pytest.raises(HostError) as caught:
                await node.write(offset, magic + bytes(512))
            assert caught.value.errno == errno.EPERM
    await node.write(0, b"QF")
    with pytest.raises(HostError):  # the other half of a header
        await node.write(2, b"I\xfb")
    await node.write(510, bytes(4))
    await node.write_zeroes(0, 512)
    assert image.read_bytes()[:512] == bytes(512)
    assert (await node.extent(0, 512)).kind is ExtentKind.ASK
    rest = await node.extent(4096, 512)
    assert (rest.start, rest.kind) == (512, ExtentKind.DATA)
    await graph.release(node)


async def test_a_raw_image_that_was_asked_for_takes_everything(graph: Graph, image: Path, warnings: Warnings) -> None:
    """format=raw: no warning, no restriction."""
    node = await open_image(graph, str(image), {"driver": "raw"})
    await node.write(0, b"QFI\xfb" + bytes(508))
    assert not warnings
    assert (await node.extent(0, 512)).kind is ExtentKind.DATA
    await graph.release(node)


async def test_a_guessed_read_only_image_needs_no_warning(graph: Graph, image: Path, warnings: Warnings) -> None:
    """Nothing can be written there."""
    node = await open_image(graph, str(image), {"read-only": True})
    assert not warnings
    await graph.release(node)


@pytest.mark.parametrize("name", ["vmdk", "vhdx", "qed", "luks"])
async def test_formats_that_cannot_be_opened_are_not_taken_for_raw(graph: Graph, image: Path, name: str) -> None:
    """A guest must not write into the middle of somebody's image."""
    magic = next(magic for _, magic, known in MAGICS if known == name)
    image.write_bytes(magic + bytes(4096))
    with pytest.raises(ConfigError, match=f"is a {name} image"):
        await open_image(graph, str(image), {})
    assert not graph.nodes


def test_zeroes_are_raw() -> None:
    """An empty disk is a disk."""
    assert probe(bytes(512)) == "raw" == probe(b"")


@pytest.mark.parametrize(
    "name",
    [
        "{path}",
        "file:{path}",
        'json:{{"driver":"raw","file":{{"driver":"file","filename":"{path}"}}}}',
        'json:{{"file":{{"driver":"file","filename":"{path}"}}}}',
        'json:{{"driver":"file","filename":"{path}"}}',
    ],
)
async def test_a_name_says_where_the_image_is(graph: Graph, image: Path, name: str) -> None:
    """Plain paths, the file protocol and options as JSON."""
    node = await open_image(graph, name.format(path=image), {"read-only": True})
    assert await node.read(512, 512) == image.read_bytes()[512:1024]
    await graph.release(node)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("nbd://host/x", {}, "Unknown protocol 'nbd'"),
        ("json:{", {}, "Could not parse the JSON options: JSON parse error"),
        ("json:[]", {}, "Could not parse the JSON options: expected a JSON object"),
        ("x", {"driver": "raw", "file": {"filename": "x"}}, "Can't specify 'file' and 'filename' options at the same"),
        ('json:{"file.filename":"a\\u0000"}', {}, "must not contain a null character"),
        ('json:{"driver":"file","filename":"a\\u0000"}', {}, "must not contain a null character"),
        ("a\0b", {"driver": "raw"}, "must not contain a null character"),
        (None, {}, "Must specify either driver or file"),
        ("x", {"driver": "nope"}, "Unknown driver 'nope'"),
        ("x", {"driver": "raw", "file": {"foo": 1}}, "Block protocol 'file' doesn't support the option 'foo'"),
        ("x", {"driver": "raw", "bar": "1"}, "Block format 'raw' does not support the option 'bar'"),
    ],
)
async def test_names_that_cannot_be_opened(graph: Graph, name: str | None, given: dict[str, Any], words: str) -> None:
    """Each says what is the matter with it."""
    with pytest.raises(ConfigError, match=words):
        await open_image(graph, name, given)
    assert not graph.nodes


async def test_a_last_sector_that_is_not_whole(graph: Graph, tmp_path: Path) -> None:
    """A device sees whole sectors: the rest reads as zeroes, and is there once it is written."""
    path = tmp_path / "odd.img"
    path.write_bytes(b"a" * 1000)
    node = await open_image(graph, str(path), {"driver": "raw"})
    assert node.size == 1024
    assert (await node.extent(0, 512)).length == 512
    assert (await node.extent(512, 512)).kind is ExtentKind.ASK
    assert await node.read(512, 512) == b"a" * 488 + bytes(24)
    await node.write(512, b"b" * 512)
    assert (await node.extent(512, 512)).kind is ExtentKind.DATA
    assert path.stat().st_size == 1024
    await graph.release(node)


async def test_a_file_that_may_only_be_read(graph: Graph, image: Path) -> None:
    """auto-read-only opens it for readers; a writer is told the host's reason."""

    def open_file(path: str, flags: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return os.open(path, flags)

    graph.open_file = open_file
    node = await open_image(graph, str(image), {"driver": "raw", "auto-read-only": True})
    assert await node.read(512, 512) == image.read_bytes()[512:1024]
    backend = Backend(graph, "d")
    backend.insert(node)
    with pytest.raises(ConfigError, match=f"Could not open '{image}': Permission denied"):
        backend.attach("disk")
    backend.eject()
    await graph.release(node)
    with pytest.raises(HostError, match=f"Could not open '{image}': Permission denied"):
        await open_image(graph, str(image), {"driver": "raw"})


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-utils is not installed")
async def test_an_image_without_its_backing_file(graph: Graph, image: Path) -> None:
    """`backing=` with nothing after it is an older way to say null; the header's name is told with its folder."""
    over = image.with_name("over.qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.name, "-F", "raw", str(over)]
    subprocess.run(command, check=True, timeout=60)
    node = await open_image(graph, str(over), {"backing": ""})
    assert node.backing is None
    assert node.info()["full-backing-filename"] == str(image)
    assert await node.read(512, 512) == bytes(512)
    await graph.release(node)
