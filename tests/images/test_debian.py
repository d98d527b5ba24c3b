"""Fetching: complete or not at all, once for parallel runs, and what the host refuses is said."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from aioemu.errors import ConfigError, HostError
from aioemu.images.debian import DebianKernel, cache_folder, debian_kernel, kernel_package
from tests.images.elf import bzimage, module

KERNEL = b"\x7fELF" + bytes(1000)
RELEASE = "6.1.0-9-cloud-amd64"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian in a folder: commands that answer as the archive's tools do, and an empty cache."""
    commands = tmp_path / "commands"
    commands.mkdir()
    tree = tmp_path / "tree"
    modules = tree / "lib/modules" / RELEASE / "kernel"
    modules.mkdir(parents=True)
    (modules / "a.ko").write_bytes(module(depends=""))
    (tree / "boot").mkdir()
    (tree / "boot" / f"vmlinuz-{RELEASE}").write_bytes(bzimage(gzip.compress(KERNEL)))
    (tree / "bin").mkdir()
    (tree / "bin/busybox").write_bytes(b"\x7fELF")
    write(commands / "apt-cache", f'echo linux-image-cloud-amd64; echo "  Depends: linux-image-{RELEASE}"')
    write(commands / "apt-get", f'echo "$@" >>{tmp_path}/calls; [ "$2" != download ] || touch kernel.deb')
    write(commands / "dpkg", f'cp -r {tree}/. "$3"')
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return commands


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def leftovers() -> set[str]:
    return {path.name for path in cache_folder().iterdir()} - {"lock"}


def test_fetch_gives_a_complete_tree(archive: Path) -> None:
    """The packages are downloaded and unpacked, and the ELF kernel is taken out of the bzImage."""
    kernel = debian_kernel()

    assert kernel.release == RELEASE
    assert kernel.vmlinux.read_bytes() == KERNEL
    assert kernel.modules.load_order(["a"]) == ["a"]
    assert leftovers() == {"debian"}
    assert (archive.parent / "calls").read_text() == f"-q download linux-image-{RELEASE} busybox-static\n"


def test_fetch_happens_once(archive: Path) -> None:
    """What is in the cache is used, also by runs that started while it was fetched."""
    found: list[DebianKernel] = []
    threads = [threading.Thread(target=lambda: found.append(debian_kernel())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 4
    assert (archive.parent / "calls").read_text().count("\n") == 1


def test_refresh_fetches_again(archive: Path) -> None:
    """`refresh` replaces the tree by the archive's present one."""
    debian_kernel()
    debian_kernel(refresh=True)

    assert (archive.parent / "calls").read_text().count("\n") == 2
    assert leftovers() == {"debian"}


def test_a_failed_download_leaves_nothing(archive: Path) -> None:
    """The tool's own words are in the error, and the next run starts afresh."""
    write(archive / "apt-get", "echo 'E: Failed to fetch' >&2; exit 100")

    with pytest.raises(HostError, match="apt-get -q download: E: Failed to fetch"):
        debian_kernel()
    assert leftovers() == set()


def test_a_damaged_kernel_leaves_nothing(archive: Path) -> None:
    """A package with an unusable kernel is not taken into the cache."""
    image = archive.parent / "tree/boot" / f"vmlinuz-{RELEASE}"
    image.write_bytes(image.read_bytes()[:1000])

    with pytest.raises(ConfigError, match="does not lie in"):
        debian_kernel()
    assert leftovers() == set()


def test_missing_lists_are_updated_once(archive: Path) -> None:
    """Without package lists they are updated; when that does not help, the error says what is missing."""
    write(archive / "apt-cache", "echo 'W: Unable to locate package' >&2; exit 100")

    with pytest.raises(HostError, match="names no kernel package"):
        kernel_package()
    assert (archive.parent / "calls").read_text() == "-q update\n"


def test_a_host_without_apt_is_told(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system the error names the program that is missing."""
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(HostError, match=r"apt-cache depends .*: No such file"):
        debian_kernel()


def test_other_trees_can_be_used(tmp_path: Path) -> None:
    """A folder with unpacked packages serves as well; an empty one says what it lacks."""
    with pytest.raises(HostError, match="holds no boot/vmlinuz"):
        DebianKernel.at(tmp_path)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz-1").touch()
    with pytest.raises(HostError, match="holds no modules for 1"):
        DebianKernel.at(tmp_path)
    (tmp_path / "usr/lib/modules/1").mkdir(parents=True)
    with pytest.raises(HostError, match="holds no busybox"):
        DebianKernel.at(tmp_path)
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/busybox").touch()

    assert DebianKernel.at(tmp_path).module_folder == tmp_path / "usr/lib/modules/1"
