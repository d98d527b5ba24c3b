"""The builder: a tree that is complete, the same every time, and never ambiguous."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest

from aioemu.errors import ConfigError, HostError
from aioemu.images import DebianKernel, Initramfs, debian_guest
from aioemu.images.initramfs import compile_c
from tests.images.elf import module
from tests.images.test_newc import Read, read


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DebianKernel:
    """A kernel with two modules and a busybox with three applets; an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "kernel"
    modules = root / "lib/modules/1/kernel"
    modules.mkdir(parents=True)
    (modules / "ring.ko").write_bytes(module(depends=""))
    (modules / "button.ko").write_bytes(module(depends=""))
    (modules / "evdev.ko").write_bytes(module(depends=""))
    (modules / "net.ko").write_bytes(module(depends="ring"))
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-1").write_bytes(b"kernel")
    (root / "bin").mkdir()
    (root / "bin/busybox").write_text("#!/bin/sh\nprintf '%s\\n' sh ls [\n")
    (root / "bin/busybox").chmod(0o755)
    return DebianKernel.at(root)


def entries(path: Path) -> dict[str, Read]:
    return {entry.name: entry for entry in read(path.read_bytes())}


def test_the_tree_is_complete(kernel: DebianKernel, tmp_path: Path) -> None:
    """Busybox with a link for each applet, the console node, modules in load order, files, and init."""
    image = Initramfs(kernel).add_modules(["net"]).add_file("etc/a/b", "text").init("#!/bin/sh\n")
    tree = entries(image.write(tmp_path / "i"))

    assert tree["bin/busybox"].data == kernel.busybox.read_bytes()
    assert tree["bin/["].data == b"busybox"
    assert tree["dev/console"].device == (5, 1)
    assert tree["etc/modules.load"].data == b"/lib/modules/1/kernel/ring.ko\n/lib/modules/1/kernel/net.ko\n"
    assert tree["lib/modules/1/kernel/net.ko"].data == module(depends="ring")
    assert tree["etc/a/b"].data == b"text"
    assert tree["init"].mode == stat.S_IFREG | 0o755


def test_parents_come_first(kernel: DebianKernel, tmp_path: Path) -> None:
    """The kernel makes no directories by itself: each stands before what it holds."""
    seen = set[str]()
    for entry in read(
        Initramfs(kernel).add_file("a/b/c-d/e", b"").add_file("a/b.x", b"").write(tmp_path / "i").read_bytes()
    ):
        parent = entry.name.rpartition("/")[0]
        assert not parent or parent in seen
        seen.add(entry.name)


def test_the_same_content_gives_the_same_bytes(kernel: DebianKernel, tmp_path: Path) -> None:
    """Neither the time nor the order of additions shows, compressed or not."""
    first = Initramfs(kernel).add_file("a", b"1").add_file("b", b"2")
    second = Initramfs(kernel).add_file("b", b"2").add_file("a", b"1")

    for compress in (False, True):
        one, two = first.write(tmp_path / "1", compress=compress), second.write(tmp_path / "2", compress=compress)
        assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress((tmp_path / "1").read_bytes()) == first.write(tmp_path / "3").read_bytes()


def test_one_path_is_one_thing(kernel: DebianKernel) -> None:
    """Adding a path twice, or below a file, is an error that names it."""
    image = Initramfs(kernel).add_file("a", b"")
    with pytest.raises(ConfigError, match="entry a: given twice"):
        image.add_symlink("a", "b")
    with pytest.raises(ConfigError, match="entry a/b: a is not a directory"):
        image.add_file("a/b", b"")
    with pytest.raises(ConfigError, match=r"'\.\./a': not a plain relative path"):
        image.add_file("../a", b"")


def test_a_missing_host_file_leaves_no_archive(kernel: DebianKernel, tmp_path: Path) -> None:
    """The archive appears complete or not at all, and the error names the file."""
    with pytest.raises(HostError, match="gone: No such file"):
        Initramfs(kernel).add_file("a", tmp_path / "gone").write(tmp_path / "out" / "i")
    assert list((tmp_path / "out").iterdir()) == []


def test_programs_are_compiled_once(kernel: DebianKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C becomes a static binary that the cache keeps: the second time needs no compiler."""
    source = "int main(void) { return 0; }\n"
    first = compile_c(source)
    monkeypatch.setenv("PATH", "/nowhere")

    assert first.startswith(b"\x7fELF")
    assert compile_c(source) == first


def test_a_wrong_program_shows_the_compilers_words(kernel: DebianKernel) -> None:
    """What gcc says about the source is in the error."""
    with pytest.raises(ConfigError, match=r"guest program: gcc: (.|\n)*error"):
        Initramfs(kernel).add_program("x", "int main(void) { return y; }")


def test_the_guest_is_built_once_per_content(kernel: DebianKernel) -> None:
    """Equal wishes share one image; any difference makes another."""
    first = debian_guest(["net"], kernel=kernel)
    stamp = first.initrd.stat().st_ino

    assert debian_guest(["net"], kernel=kernel) == first
    assert first.initrd.stat().st_ino == stamp
    others = [debian_guest(kernel=kernel), debian_guest(["net"], "true", kernel=kernel)]
    assert len({image.initrd for image in [first, *others]}) == 3


def test_commands_end_in_power_off_unless_a_shell_is_asked_for(kernel: DebianKernel) -> None:
    """With commands there is no prompt, unless both are wanted."""
    assert "etc/no-shell" in entries(debian_guest(rc="true", kernel=kernel).initrd)
    assert "etc/no-shell" not in entries(debian_guest(rc="true", shell=True, kernel=kernel).initrd)
    assert "etc/no-shell" not in entries(debian_guest(kernel=kernel).initrd)


def test_the_cache_keeps_the_images_in_use(kernel: DebianKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its limit the cache drops the image that was not asked for longest."""
    monkeypatch.setattr("aioemu.images.guest.INITRDS_KEPT", 2)
    first, second = debian_guest(rc="1", kernel=kernel), debian_guest(rc="2", kernel=kernel)
    os.utime(first.initrd, ns=(1, 1))
    os.utime(second.initrd, ns=(2, 2))
    debian_guest(rc="1", kernel=kernel)
    third = debian_guest(rc="3", kernel=kernel)

    assert set(first.initrd.parent.iterdir()) == {first.initrd, third.initrd}
