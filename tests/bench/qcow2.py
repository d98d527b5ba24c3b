"""qcow2 disks: the time of a request beside QEMU's, on an image whose clusters are there, and on one that gets them.

The same payload, loads and settings as for raw disks (`block`), interleaved; an allocating run begins with a new image.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import block
from tests.bench.block import LOADS, LOOP, MEMORY, QEMU_SETTINGS, THREAD, Sample, compare, run
from tests.bench.harness import Figure, Options, need
from tests.bench.payload import need_kvm

QCOW2 = "driver=qcow2,node-name=d,file.driver=file,file.filename={file}"
NEW_BYTES = 8 << 30  # more than a run can write
ALLOCATING = {
    "128 KiB sequential write, allocating, qd 8": "qd=8 size=131072 seq=1 write=1",
    "4 KiB random write, allocating, qd 1": "qd=1 write=1",
    "4 KiB random write, allocating, qd 32": "qd=32 write=1",
}


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A place in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="aioemu-bench-") as name:
        yield Path(name)


def new_image(path: Path) -> None:
    path.unlink(missing_ok=True)
    words = ["create", "-q", "-f", "qcow2", str(path), str(NEW_BYTES)]
    subprocess.run([need("qemu-img"), *words], check=True, timeout=60)


def takers(path: Path, place: str, append: str, new: bool) -> dict[str, Callable[[], Sample]]:
    """Ours and QEMU's, each on the image as it is or on a new one."""

    def once(words: list[str]) -> Sample:
        if new:
            new_image(path)
        return block.take(words)

    def words(program: list[str], aio: str) -> list[str]:
        raw, qcow2 = block.RAW.format(file=path), QCOW2.format(file=path)
        return [word.replace(raw, qcow2) for word in block.command(program, path, aio, place, append)]

    found: dict[str, Callable[[], Sample]] = {"aioemu": partial(once, words(block.aioemu(), ""))}
    for setting, aio in QEMU_SETTINGS.items():
        found[setting] = partial(once, words(block.qemu(), aio))
    return found


def bench_allocated(options: Options) -> Iterator[Figure]:
    """Every cluster is there: the request engine needs no Python once it knows where."""
    need_kvm()
    with folder() as place_of, block.image() as raw:
        path = place_of / "disk.qcow2"
        convert = ["convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
        subprocess.run([need("qemu-img"), *convert], check=True, timeout=60)
        for name, load in LOADS.items():
            for place in (THREAD, LOOP):
                append = f"blk {load} ms={options.pick(500, 150)}"
                taken = run(takers(path, place, append, False), options.pick(7, 2))
                yield from compare(name, place, taken)


def bench_allocating(options: Options) -> Iterator[Figure]:
    """Nothing is there: each write finds or makes its cluster."""
    need_kvm()
    with folder() as place_of:
        path = place_of / "disk.qcow2"
        for name, load in ALLOCATING.items():
            append = f"blk {load} ms={options.pick(300, 150)}"
            taken = run(takers(path, THREAD, append, True), options.pick(7, 2))
            yield from compare(name, THREAD, taken, limit=1.0)


BENCHES: dict[str, Any] = {"qcow2": bench_allocated, "qcow2-allocating": bench_allocating}
