"""Build the freestanding guest payload with gcc, once per content of its sources.

The result is an ELF image with a PVH note; `payload/main.c` says how a test is chosen and how it ends. Run as a script,
this prints the path of the image.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "payload"
FLAGS = (
    "-std=c11 -O2 -ffreestanding -nostdlib -static -no-pie -fno-pic -fno-stack-protector"
    " -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -mno-red-zone -mgeneral-regs-only"
    " -Wall -Wextra -Werror -Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack,--no-warn-rwx-segments"
).split()


def cache_folder() -> Path:
    """Where built payloads stay; shared by all runs of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aioemu" / "guests"


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def payload() -> Path:
    """The built payload.elf. Safe for parallel runs: it appears under its name complete or not at all."""
    files = sorted(path for path in SOURCES.iterdir() if path.suffix in {".c", ".h", ".S", ".ld"})
    target = cache_folder() / f"payload-{_digest(files)}.elf"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    units = [str(path) for path in files if path.suffix in {".c", ".S"}]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        image = Path(scratch) / "payload.elf"
        command = ["gcc", *FLAGS, "-T", str(SOURCES / "payload.ld"), "-o", str(image), *units]
        subprocess.run(command, check=True)
        image.replace(target)
    return target


if __name__ == "__main__":
    print(payload())
