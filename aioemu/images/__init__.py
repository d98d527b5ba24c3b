"""Guest images: a stock Debian kernel with an initramfs made to measure, for demos, tests and benchmarks.

`debian_guest()` is the ready one; `Initramfs` builds others. Everything here blocks (fetching, compiling, writing) and
runs no guest.
"""

from __future__ import annotations

from aioemu.images.debian import DebianKernel, cache_folder, debian_kernel
from aioemu.images.guest import FIRST_LINE, PROMPT, GuestImage, bench_program, debian_guest
from aioemu.images.initramfs import Initramfs
from aioemu.images.newc import NewcWriter
from aioemu.images.vmlinux import extract_vmlinux

__all__ = [
    "FIRST_LINE",
    "PROMPT",
    "DebianKernel",
    "GuestImage",
    "Initramfs",
    "NewcWriter",
    "bench_program",
    "cache_folder",
    "debian_guest",
    "debian_kernel",
    "extract_vmlinux",
]
