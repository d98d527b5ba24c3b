"""`python -m aioemu.images --out DIR`: put a bootable Debian guest into a folder, print its paths as JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from aioemu.errors import EmuError
from aioemu.images.debian import debian_kernel
from aioemu.images.guest import APPEND, GuestImage, bench_program, debian_guest


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m aioemu.images", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for vmlinuz, vmlinux and initrd (default: leave in the cache)")
    parser.add_argument("--modules", nargs="*", default=[], help="kernel modules to load, with what they need")
    parser.add_argument("--rc", type=Path, help="file with shell commands to run; the guest powers off after them")
    parser.add_argument("--shell", action="store_true", default=None, help="a prompt after --rc, instead of power off")
    parser.add_argument("--bench", action="store_true", help="add the program /bin/bench")
    parser.add_argument("--append", default=APPEND, help="kernel command line (default: %(default)s)")
    parser.add_argument("--gzip", action="store_true", help="compress the initrd")
    parser.add_argument("--refresh", action="store_true", help="fetch the archive's present kernel")
    return parser.parse_args(arguments)


def place(image: GuestImage, folder: Path) -> GuestImage:
    """Copies of the image's files under fixed names in (folder)."""
    folder.mkdir(parents=True, exist_ok=True)
    kernel, vmlinux = folder / "vmlinuz", folder / "vmlinux"
    initrd = folder / f"initrd{''.join(image.initrd.suffixes)}"
    for source, target in ((image.kernel, kernel), (image.vmlinux, vmlinux), (image.initrd, initrd)):
        shutil.copyfile(source, target)
    return GuestImage(kernel, vmlinux, initrd, image.append)


def main(arguments: list[str]) -> int:
    """Build, place, print. The exit status."""
    args = parse(arguments)
    try:
        image = debian_guest(
            args.modules,
            args.rc.read_text() if args.rc else None,
            shell=args.shell,
            programs={"bench": bench_program()} if args.bench else None,
            append=args.append,
            compress=args.gzip,
            kernel=debian_kernel(refresh=args.refresh),
        )
        if args.out:
            image = place(image, args.out)
    except (EmuError, OSError) as exc:
        sys.stderr.write(f"aioemu.images: {exc}\n")
        return 1
    paths = {"kernel": image.kernel, "vmlinux": image.vmlinux, "initrd": image.initrd, "append": image.append}
    sys.stdout.write(json.dumps({key: str(value) for key, value in paths.items()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
