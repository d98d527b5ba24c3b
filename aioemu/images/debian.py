"""Debian's cloud kernel and static busybox, fetched once from its archive and unpacked into a cache; never installed.

`apt-get download` checks signatures as for any package; `dpkg -x` unpacks. The cache appears complete or not at all,
and parallel runs wait for each other. Calls block: from an event loop use `asyncio.to_thread`. Needs a Debian host;
on others give `DebianKernel.at` a folder with the unpacked packages.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aioemu.errors import HostError
from aioemu.images.modules import ModuleTree
from aioemu.images.vmlinux import extract_vmlinux

CLOUD, GENERIC = "cloud-amd64", "amd64"  # flavours: small and for virtual machines, or with every driver
BUSYBOX_PACKAGE = "busybox-static"
CURRENT = {CLOUD: "debian", GENERIC: "debian-generic"}  # the complete tree's name in the cache
COMMAND_LIMIT_S = 600  # a slow mirror, not a dead one


def cache_folder() -> Path:
    """Where images stay: $XDG_CACHE_HOME/aioemu/images, or below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aioemu" / "images"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the cache's lock: one run fetches or builds, the others find what it made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class DebianKernel:
    """A stock kernel with its modules, and the busybox to go with it."""

    release: str
    vmlinuz: Path
    vmlinux: Path
    module_folder: Path
    busybox: Path

    @property
    def modules(self) -> ModuleTree:
        """Its loadable modules."""
        return ModuleTree(self.module_folder)

    @classmethod
    def at(cls, root: Path) -> DebianKernel:
        """The kernel in a folder of unpacked packages (`boot/vmlinuz-*`, `lib/modules/*`, `bin/busybox`)."""
        images = sorted((root / "boot").glob("vmlinuz-*"))
        if not images:
            raise HostError(f"{root}: holds no boot/vmlinuz-*")
        release = images[-1].name.removeprefix("vmlinuz-")
        usr = root / "usr"
        modules = next((p for p in (root / "lib/modules" / release, usr / "lib/modules" / release) if p.is_dir()), None)
        busybox = next((p for p in (root / "bin/busybox", usr / "bin/busybox") if p.is_file()), None)
        if modules is None or busybox is None:
            raise HostError(f"{root}: holds no {'busybox' if modules else f'modules for {release}'}")
        return cls(release, images[-1], root / "boot" / f"vmlinux-{release}", modules, busybox)


def debian_kernel(flavour: str = CLOUD, *, refresh: bool = False) -> DebianKernel:
    """The cached kernel, fetched when there is none; `refresh` fetches what the archive has now."""
    folder = cache_folder()
    current = folder / CURRENT[flavour]
    if current.is_dir() and not refresh:
        return DebianKernel.at(current)
    with locked(folder):
        if refresh or not current.is_dir():
            _fetch(folder, current, flavour)
    return DebianKernel.at(current)


def _fetch(folder: Path, current: Path, flavour: str) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="fetch-", dir=folder))
    try:
        root = scratch / "root"
        root.mkdir(mode=0o755)
        _run(scratch, "apt-get", "-q", "download", kernel_package(flavour), BUSYBOX_PACKAGE)
        for package in sorted(scratch.glob("*.deb")):
            _run(scratch, "dpkg", "-x", str(package), str(root))
        kernel = DebianKernel.at(root)
        kernel.vmlinux.write_bytes(extract_vmlinux(kernel.vmlinuz.read_bytes()))
        if current.exists():
            current.rename(scratch / "old")
        root.rename(current)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def kernel_package(flavour: str = CLOUD) -> str:
    """The package that the archive's newest kernel of (flavour) is in; updates missing package lists first."""
    meta = f"linux-image-{flavour}"
    found = _search_package(meta)
    if found is None:
        _run(None, "apt-get", "-q", "update")
        found = _search_package(meta)
    if found is None:
        raise HostError(f"apt-cache depends {meta}: names no kernel package (is this Debian amd64?)")
    return found


def _search_package(meta: str) -> str | None:
    listing = _run(None, "apt-cache", "depends", meta, check=False)
    match = re.search(r"^ *Depends: (linux-image-[0-9][a-z0-9.+-]*)$", listing, re.MULTILINE)
    return match[1] if match else None


def _run(cwd: Path | None, *command: str, check: bool = True) -> str:
    text = " ".join(command[:3])
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as exc:
        raise HostError(f"{text}: no end after {COMMAND_LIMIT_S} s") from exc
    except OSError as exc:
        raise HostError(text, exc.errno) from exc
    if check and done.returncode:
        raise HostError(f"{text}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
