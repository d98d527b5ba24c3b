"""Module dependencies: everything a module needs is loaded, once, before it."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.errors import ConfigError
from aioemu.images.modules import ModuleTree, modinfo
from tests.images.elf import module


@pytest.fixture
def tree(tmp_path: Path) -> ModuleTree:
    """net needs core and ring; blk needs ring; disk softly wants blk before and net after; ring needs nothing."""
    folder = tmp_path / "kernel/drivers"
    folder.mkdir(parents=True)
    (folder / "ring.ko").write_bytes(module(name="ring", depends=""))
    (folder / "my-core.ko").write_bytes(module(name="my_core", depends="ring,vga_builtin"))
    (folder / "net.ko.xz").write_bytes(lzma.compress(module(name="net", depends="my_core,ring")))
    (folder / "blk.ko.gz").write_bytes(gzip.compress(module(name="blk", depends="ring")))
    (folder / "disk.ko").write_bytes(module(name="disk", depends="", softdep="pre: blk absent post: net"))
    (folder / "odd.ko").write_bytes(module(name="odd", depends="nowhere"))
    (tmp_path / "modules.builtin").write_text("kernel/drivers/vga-builtin.ko\n")
    return ModuleTree(tmp_path)


def test_needs_come_first_and_once(tree: ModuleTree) -> None:
    """The order has each module after all it needs, and no module twice."""
    assert tree.load_order(["net", "blk", "ring"]) == ["ring", "my_core", "net", "blk"]


def test_dashes_and_underscores_are_one(tree: ModuleTree) -> None:
    """A module answers to both spellings of its name."""
    assert tree.load_order(["my-core"]) == tree.load_order(["my_core"]) == ["ring", "my_core"]


def test_what_is_built_in_needs_no_loading(tree: ModuleTree) -> None:
    """Asking for a built-in one is fine and loads nothing."""
    assert tree.load_order(["vga_builtin"]) == []


def test_soft_dependencies_before_are_taken_along(tree: ModuleTree) -> None:
    """`pre:` modules that exist come first; missing ones and `post:` ones do not count."""
    assert tree.load_order(["disk"]) == ["ring", "blk", "disk"]


def test_a_missing_module_is_named_with_who_needs_it(tree: ModuleTree) -> None:
    """The error names the missing module and the one that wants it."""
    with pytest.raises(ConfigError, match="kernel module nowhere, which odd needs: not in"):
        tree.load_order(["odd"])
    with pytest.raises(ConfigError, match="kernel module absent: not in"):
        tree.load_order(["absent"])


def test_a_soft_circle_ends(tmp_path: Path) -> None:
    """Two modules that softly want each other first are both loaded."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/a.ko").write_bytes(module(depends="", softdep="pre: b"))
    (tmp_path / "kernel/b.ko").write_bytes(module(depends="", softdep="pre: a"))

    assert ModuleTree(tmp_path).load_order(["a"]) == ["b", "a"]


@given(st.data())
def test_damaged_modules_are_an_error_not_a_crash(data: st.DataObject) -> None:
    """Whatever bytes a module file holds, reading it ends in its strings or in ConfigError."""
    image = bytearray(module(name="x", depends="a,b"))
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        info = modinfo(bytes(image[: data.draw(st.integers(0, len(image)))]))
    except ConfigError:
        return
    assert all(isinstance(value, str) for values in info.values() for value in values)
