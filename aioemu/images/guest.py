"""The standard Debian guest: a stock kernel, busybox, a shell prompt on the serial console without a login.

What the host may rely on: the first line that /init prints is `aioemu-init UPTIME` (seconds since the kernel
started); then the listed modules are loaded; then /etc/rc runs, if there is one; then either `aioemu# ` prompts or the
guest powers off. The ACPI power button powers it off, and so does the end of the prompt's shell (`exit`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aioemu.images.debian import DebianKernel, cache_folder, debian_kernel
from aioemu.images.initramfs import Initramfs

PROMPT = "aioemu# "  # the shell may ask the terminal for its cursor right behind it (ESC [6n)
FIRST_LINE = "aioemu-init "
APPEND = "console=ttyS0 panic=-1 quiet"
INITRDS_KEPT = 100  # of a few MiB each; more variants than any test suite has in use at once
BUTTON_MODULES = ("button", "evdev")
PROGRAMS = Path(__file__).parent / "programs"

# process 1: says when it began before it does anything else
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
read -r up idle </proc/uptime; echo "aioemu-init $up"
export PATH=/bin HOME=/root TERM=vt102 PS1='aioemu# '
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "$module" || echo "aioemu-init: $module failed"; done </etc/modules.load
[ ! -e /dev/input ] || acpid -l /dev/null
[ ! -e /etc/rc ] || sh /etc/rc
[ -e /etc/no-shell ] || { cd /root; setsid cttyhack sh; }
poweroff -f
"""

# busybox acpid runs the program /etc/acpi/EVENT/NUMBER when the button's input device reports a press
POWER_BUTTON = "etc/acpi/PWRF/00000080"
POWER_OFF = "#!/bin/sh\npoweroff -f\n"


@dataclass(frozen=True)
class GuestImage:
    """What a machine needs to boot this guest: give it (kernel) or (vmlinux), (initrd) and (append)."""

    kernel: Path
    vmlinux: Path
    initrd: Path
    append: str


def debian_guest(
    modules: Sequence[str] = (),
    rc: str | None = None,
    *,
    shell: bool | None = None,
    files: Mapping[str, bytes | str | Path] | None = None,
    programs: Mapping[str, str | bytes | Path] | None = None,
    init: str = INIT,
    append: str = APPEND,
    compress: bool = False,
    kernel: DebianKernel | None = None,
) -> GuestImage:
    """The guest with these modules loaded and the shell commands (rc) run; blocks while it fetches and builds.

    With (rc) the guest powers off when they are through, unless (shell) asks for the prompt after them. (programs) are
    static binaries or C sources for /bin. An image with the same content is built once and kept in the cache.
    """
    kernel = kernel or debian_kernel()
    image = Initramfs(kernel).add_modules([*BUTTON_MODULES, *modules]).init(init)
    image.add_file(POWER_BUTTON, POWER_OFF, 0o755)
    if rc is not None:
        image.add_file("etc/rc", rc, 0o755)
    if not (rc is None if shell is None else shell):
        image.add_file("etc/no-shell", b"")
    for name, source in (programs or {}).items():
        image.add_program(name, source)
    for path, data in (files or {}).items():
        image.add_file(path, data)
    target = cache_folder() / "initrd" / f"{fingerprint(image, compress)}.cpio{'.gz' if compress else ''}"
    if target.exists():
        os.utime(target)
    else:
        image.write(target, compress=compress)
        _prune(target.parent)
    return GuestImage(kernel.vmlinuz, kernel.vmlinux, target, append)


def _prune(folder: Path) -> None:
    """Drop the images that were not used for longest, so that the cache does not grow for ever."""
    with contextlib.suppress(FileNotFoundError):  # a parallel run drops the same ones
        images = sorted(folder.glob("*.cpio*"), key=lambda path: path.stat().st_mtime_ns)
        for path in images[:-INITRDS_KEPT]:
            path.unlink()


def fingerprint(image: Initramfs, compress: bool) -> str:
    """A name for the image's content; host files count by path, size and time of change."""
    digest = hashlib.sha256(f"{image.kernel.release} {compress} {image.load_order}".encode())
    for name, entry in sorted(image.entries.items()):
        data: bytes | str = b""
        if isinstance(entry.data, Path):
            status = entry.data.stat()
            data = f"{entry.data} {status.st_size} {status.st_mtime_ns}"
        elif entry.data:
            data = entry.data
        digest.update(f"\0{name}\0{entry.mode}\0{entry.target}\0{entry.device}\0".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(data.encode() if isinstance(data, str) else data).digest())
    return digest.hexdigest()[:32]


def bench_program() -> Path:
    """The C source of the guest's micro-benchmarks: for `programs={"bench": bench_program()}`, run as `bench NAME`."""
    return PROGRAMS / "bench.c"
