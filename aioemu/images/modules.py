"""Which kernel modules a module needs, in the order to load them.

Read from the modules themselves: each names its dependencies in its .modinfo section, so no modules.dep is needed (a
kernel package brings none; depmod makes it at installation). What is built in counts as loaded. Modules may be
compressed (.gz, .xz). Soft dependencies that should come before are taken along where they exist.
"""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from aioemu.errors import ConfigError

SUFFIXES = (".ko", ".ko.gz", ".ko.xz")
SECTIONS_MAX = 65536


def canonical(name: str) -> str:
    """A module's name as the kernel shows it: `virtio-blk` and `virtio_blk` are one."""
    return name.replace("-", "_")


def modinfo(image: bytes) -> dict[str, list[str]]:
    """The `key=value` strings in a module's .modinfo section (ELF64, little endian); ConfigError when unreadable."""
    try:
        return _modinfo(image)
    except (struct.error, IndexError, ValueError, OverflowError) as exc:
        raise ConfigError(f"kernel module: not a readable ELF image: {exc}") from exc


def _modinfo(image: bytes) -> dict[str, list[str]]:
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not ELF64 little endian")
    (table,) = struct.unpack_from("<Q", image, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", image, table + i * entry_size) for i in range(min(count, SECTIONS_MAX))]
    names = headers[names_index][4]
    found: dict[str, list[str]] = {}
    for name, _type, _flags, _address, offset, size in headers:
        if image.startswith(b".modinfo\0", names + name):
            for item in image[offset : offset + size].split(b"\0"):
                key, equals, value = item.decode("utf-8", "replace").partition("=")
                if equals:
                    found.setdefault(key, []).append(value)
    return found


class ModuleTree:
    """The modules below `lib/modules/RELEASE`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Every loadable module by name."""
        found = {}
        for path in sorted((self.root / "kernel").rglob("*.ko*")):
            if path.name.endswith(SUFFIXES):
                found[canonical(path.name.partition(".ko")[0])] = path
        return found

    @cached_property
    def builtin(self) -> frozenset[str]:
        """Names of what is compiled into the kernel."""
        listing = self.root / "modules.builtin"
        lines = listing.read_text().splitlines() if listing.exists() else []
        return frozenset(canonical(Path(line).name.removesuffix(".ko")) for line in lines if line)

    def read(self, name: str) -> bytes:
        """The module's ELF image, unpacked."""
        path = self.paths[name]
        data = path.read_bytes()
        if path.suffix == ".gz":
            return gzip.decompress(data)
        return lzma.decompress(data) if path.suffix == ".xz" else data

    def needs(self, name: str) -> list[str]:
        """What must be, and what should be, loaded before the module (name)."""
        info = modinfo(self.read(name))
        hard = [part for line in info.get("depends", []) for part in line.split(",") if part]
        soft = [part for line in info.get("softdep", []) for part in _before(line)]
        wanted = [canonical(part) for part in hard]
        return wanted + [part for part in map(canonical, soft) if part in self.paths and part not in wanted]

    def load_order(self, names: Iterable[str]) -> list[str]:
        """What to load so that all of (names) are there, each after what it needs; ConfigError for an unknown name."""
        order: dict[str, None] = {}
        for name in names:
            self._visit(canonical(name), order, ())
        return list(order)

    def _visit(self, name: str, order: dict[str, None], above: tuple[str, ...]) -> None:
        if name in order or name in self.builtin or name in above:  # `above`: a soft dependency may point back
            return
        if name not in self.paths:
            wanted_by = f", which {above[-1]} needs" if above else ""
            raise ConfigError(f"kernel module {name}{wanted_by}: not in {self.root}", "modules")
        for needed in self.needs(name):
            self._visit(needed, order, (*above, name))
        order[name] = None


def _before(softdep: str) -> Iterator[str]:
    """The names behind `pre:` in a softdep line."""
    is_pre = False
    for word in softdep.split():
        if word.endswith(":"):
            is_pre = word == "pre:"
        elif is_pre:
            yield word
