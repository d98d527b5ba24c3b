"""Builds the fuzz programs: one C file of this folder, the guest of guest.c, and files of the core, with sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "aioemu" / "core"
ENGINE = "vring vring_data vring_split vring_packed virtio virtio_regs virtio_state ram chip msix window".split()
IO = "vring_batch io io_later iothread clock".split()
FLAGS = "-std=gnu11 -D_GNU_SOURCE= -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -pthread".split()


def build(name: str, files: Iterable[str], folder: Path) -> Path:
    """NAME.c and NAME_*.c of this folder with these files of the core, as a program in a folder."""
    program = folder / name
    own = [HERE / f"{name}.c", *HERE.glob(f"{name}_*.c"), HERE / "guest.c"]
    sources = [*own, *(CORE / f"{each}.c" for each in sorted(set(files)))]
    command = ["gcc", *FLAGS, f"-I{CORE}", f"-I{HERE}", "-o", str(program), *map(str, sources), "-lm"]
    subprocess.run(command, check=True)
    return program


def live(program: Path, lives: int, seed: int, *words: str) -> None:
    """Play so many lives; AssertionError with what it printed when something was found."""
    done = subprocess.run(
        [program, str(lives), str(seed), *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
