"""Build an initramfs: busybox, kernel modules with what they need, small programs, files, and an init script.

The same content gives the same bytes. Not compressed unless asked: a machine on a software CPU unpacks slower than
it reads. Programs given as C source are compiled by gcc, once for each source.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self, cast

from aioemu.errors import ConfigError, HostError
from aioemu.images.debian import DebianKernel, cache_folder, locked
from aioemu.images.newc import NewcWriter, check_name

LOAD_LIST = "etc/modules.load"  # paths in load order, for the init script
CC = ("gcc", "-std=c11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE")
COMPILE_LIMIT_S = 120


@dataclass(frozen=True)
class _Entry:
    """What one path of the archive is."""

    mode: int
    data: bytes | Path = b""
    target: str = ""
    device: tuple[int, int] = (0, 0)


class Initramfs:
    """Add what the guest shall find, then `write`. Every path is added once; parents come by themselves."""

    def __init__(self, kernel: DebianKernel) -> None:
        self.kernel = kernel
        self.entries: dict[str, _Entry] = {}
        self.load_order: list[str] = []
        self.add_file("bin/busybox", kernel.busybox, 0o755)
        for applet in applets(kernel.busybox):
            self.add_symlink(f"bin/{applet}", "busybox")
        for folder in ("proc", "sys", "dev", "tmp", "run", "mnt", "root", "var/log"):
            self.add_directory(folder)
        self.add_symlink("sbin", "bin")
        self.add_symlink("var/run", "../run")
        # the kernel opens this one for init, before anything can be mounted
        self._add("dev/console", _Entry(stat.S_IFCHR | 0o600, device=(5, 1)))

    def add_directory(self, path: str, mode: int = 0o755) -> Self:
        """A directory, and those above it."""
        self._parents(path)
        if path not in self.entries:
            self.entries[check_name(path)] = _Entry(stat.S_IFDIR | mode)
        return self

    def add_file(self, path: str, data: bytes | str | Path, mode: int = 0o644) -> Self:
        """A file with these bytes, this text, or the content that a host file has when the archive is written."""
        return self._add(path, _Entry(stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data))

    def add_symlink(self, path: str, target: str) -> Self:
        """A symbolic link."""
        return self._add(path, _Entry(stat.S_IFLNK | 0o777, target=target))

    def add_modules(self, names: Iterable[str]) -> Self:
        """Kernel modules with all they need; `load_order` and the guest's /etc/modules.load list them in order."""
        tree = self.kernel.modules
        for name in tree.load_order(names):
            if name not in self.load_order:
                path = f"lib/modules/{self.kernel.release}/kernel/{name}.ko"
                self.add_file(path, tree.read(name))
                self.load_order.append(name)
        return self

    def add_program(self, name: str, source: str | bytes | Path) -> Self:
        """A program at /bin/NAME: C source as text or in a .c file, else a static binary as bytes or in a file."""
        if isinstance(source, Path) and source.suffix == ".c":
            source = source.read_text()
        return self.add_file(f"bin/{name}", compile_c(source) if isinstance(source, str) else source, 0o755)

    def init(self, script: str) -> Self:
        """The script that the kernel starts as process 1."""
        return self.add_file("init", script, 0o755)

    def write(self, path: Path, *, compress: bool = False) -> Path:
        """Write the archive; (path) appears complete or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as scratch:
            try:
                self._write_to(cast(BinaryIO, scratch), compress)
                scratch.flush()
                Path(scratch.name).chmod(0o644)
                Path(scratch.name).replace(path)
            except BaseException:
                Path(scratch.name).unlink(missing_ok=True)
                raise
        return path

    def _write_to(self, out: BinaryIO, compress: bool) -> None:
        if compress:
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=0) as packed:
                self._write_entries(cast(BinaryIO, packed))
        else:
            self._write_entries(out)

    def _write_entries(self, out: BinaryIO) -> None:
        writer = NewcWriter(out)
        modules = [f"/lib/modules/{self.kernel.release}/kernel/{name}.ko\n" for name in self.load_order]
        entries = self.entries | {LOAD_LIST: _Entry(stat.S_IFREG | 0o644, "".join(modules).encode())}
        if "etc" not in entries:
            entries["etc"] = _Entry(stat.S_IFDIR | 0o755)
        for name in sorted(entries, key=lambda name: name.split("/")):
            _write_entry(writer, name, entries[name])
        writer.close()

    def _add(self, path: str, entry: _Entry) -> Self:
        check_name(path)
        if path in self.entries or path == LOAD_LIST:
            raise ConfigError(f"initramfs entry {path}: given twice")
        self._parents(path)
        self.entries[path] = entry
        return self

    def _parents(self, path: str) -> None:
        for parent in list(PurePosixPath(path).parents)[-2::-1]:
            entry = self.entries.setdefault(check_name(str(parent)), _Entry(stat.S_IFDIR | 0o755))
            if not stat.S_ISDIR(entry.mode):
                raise ConfigError(f"initramfs entry {path}: {parent} is not a directory")


def _write_entry(writer: NewcWriter, name: str, entry: _Entry) -> None:
    if stat.S_ISDIR(entry.mode):
        writer.directory(name, entry.mode)
    elif stat.S_ISLNK(entry.mode):
        writer.symlink(name, entry.target)
    elif stat.S_ISCHR(entry.mode):
        writer.node(name, stat.S_IFCHR, *entry.device, mode=entry.mode)
    elif isinstance(entry.data, Path):
        try:
            with entry.data.open("rb") as source:
                writer.stream(name, source, entry.data.stat().st_size, entry.mode)
        except OSError as exc:
            raise HostError(f"initramfs file {entry.data}", exc.errno) from exc
    else:
        writer.file(name, entry.data, entry.mode)


def applets(busybox: Path) -> list[str]:
    """The names that this busybox answers to. It is run for that: the host's CPU is the guest's."""
    try:
        done = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        raise HostError(f"{busybox} --list: {exc}") from exc
    return sorted(name for name in done.stdout.split() if name != "busybox" and "/" not in name)


def compile_c(source: str) -> bytes:
    """A static binary from C source, from the cache when this source was compiled before."""
    digest = hashlib.sha256("\0".join([*CC, source]).encode()).hexdigest()[:32]
    binary = cache_folder() / "programs" / digest
    if not binary.exists():
        with locked(cache_folder()):
            if not binary.exists():
                _compile(source, binary)
    return binary.read_bytes()


def _compile(source: str, binary: Path) -> None:
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        out = Path(scratch) / "program"
        try:
            done = subprocess.run(
                [*CC, "-o", str(out), "-x", "c", "-"],
                input=source,
                capture_output=True,
                text=True,
                timeout=COMPILE_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise HostError(f"gcc, which compiles the guest's programs: {exc}") from exc
        if done.returncode:
            raise ConfigError(f"guest program: gcc: {done.stderr.strip()[:1000]}")
        shutil.move(out, binary)
