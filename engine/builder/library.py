"""Build the engine's library: fetch the pinned source archive, patch it, compile it, keep the result.

The result is kept under the hash of everything it is made from, so a second build is a copy. The archive comes from
the ordinary package client and is checked against sources.txt. Not here: installing (backend.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ENGINE = Path(__file__).resolve().parent.parent
PATCHES = ENGINE / "patches"
SOURCES = ENGINE / "src"
HEADER = ENGINE / "include" / "aioemu_engine.h"
PINS = ENGINE / "sources.txt"
EXPORTS = ENGINE / "builder" / "exports.map"
LIBRARY = "libunicorn.so"
ARCHITECTURES = "x86;aarch64"
# The renamed functions are in src/catch.c.
RENAMED = "-Dabort=aioemu_abort -D__assert_fail=aioemu_assert_fail -Dfprintf=aioemu_fprintf"
CFLAGS = f"-O2 -g0 -fno-semantic-interposition {RENAMED}"
MAX_JOBS = 2  # leaves the rest of the host alone


class BuildError(Exception):
    """A step of the build failed; the message names it."""


def cache_dir() -> Path:
    """Where archives and built libraries are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aioemu" / "engine"


def version() -> str:
    """The version the library reports, read without importing the package."""
    names: dict[str, object] = {}
    exec((ENGINE / "aioemu_engine" / "_version.py").read_text(), names)
    return f"{names['UNICORN_VERSION']}+aioemu.{names['PATCH_LEVEL']}"


def inputs() -> list[Path]:
    """Every file of ours that decides what is built."""
    return [PINS, EXPORTS, HEADER, *sorted(PATCHES.glob("*.patch")), *sorted(SOURCES.glob("*.[ch]"))]


def compiler() -> str:
    """The C compiler, as cmake would choose it."""
    return os.environ.get("CC", "cc")


def key() -> str:
    """A name for the result: the hash of all that goes into it."""
    about = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256()
    for part in (version(), CFLAGS, ARCHITECTURES, platform.machine(), about.splitlines()[0]):
        digest.update(part.encode() + b"\0")
    for path in inputs():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def run(step: str, command: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Run one step; its output appears only if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stderr.buffer.write(done.stdout[-8000:])
        raise BuildError(f"{step} failed (status {done.returncode})")


def fetch(into: Path) -> Path:
    """The pinned source archive, from the cache or the package client."""
    kept = cache_dir() / "archives"
    pin = PINS.read_text().split("sha256:")[1].strip()
    archive = kept / f"{pin}.tar.gz"
    if not archive.exists():
        download(into)
        (found,) = into.glob("*.tar.gz")
        kept.mkdir(parents=True, exist_ok=True)
        replace(found, archive)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != pin:
        archive.unlink()
        raise BuildError(f"{archive} is not what {PINS.name} pins; it was removed, try again")
    return archive


def download(into: Path) -> None:
    """Have pip fetch what sources.txt pins, by hash."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps"]
    command += ["--require-hashes", "-r", str(PINS), "-d", str(into)]
    if importlib.util.find_spec("setuptools") and importlib.util.find_spec("wheel"):
        try:  # pip asks the archive for its metadata; the modules for that are here already
            return run("fetch", [*command, "--no-build-isolation"])
        except BuildError:
            pass
    run("fetch", command)


def replace(source: Path, target: Path) -> None:
    """Move into place so that no one ever sees half a file."""
    part = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, part)
    os.replace(part, target)


def unpack(archive: Path, into: Path) -> Path:
    """The C source tree of the archive."""
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (tree,) = into.glob("unicorn-*/src")
    return tree


def prepare(tree: Path) -> None:
    """Apply the series and add our own files."""
    for patch in sorted(PATCHES.glob("*.patch")):
        run(f"patch {patch.name}", ["patch", "-p1", "--fuzz=0", "--batch", "-i", patch], cwd=tree)
    own = tree / "aioemu"
    own.mkdir()
    for path in [*SOURCES.glob("*.[ch]"), HEADER]:
        shutil.copyfile(path, own / path.name)


def options(tree: Path) -> Iterator[str]:
    """cmake's arguments."""
    yield f"-S{tree}"
    yield f"-B{tree.parent / 'build'}"
    if shutil.which("ninja"):
        yield "-GNinja"
    yield f"-DUNICORN_ARCH={ARCHITECTURES}"
    yield "-DBUILD_SHARED_LIBS=ON"
    yield "-DUNICORN_BUILD_TESTS=OFF"
    yield "-DUNICORN_LEGACY_STATIC_ARCHIVE=OFF"
    yield "-DCMAKE_BUILD_TYPE=Release"
    yield "-DCMAKE_C_FLAGS_RELEASE="
    yield f"-DCMAKE_C_FLAGS={CFLAGS} -DAIOEMU_ENGINE_VERSION='\"{version()}\"'"
    yield f"-DCMAKE_SHARED_LINKER_FLAGS=-Wl,-Bsymbolic -Wl,-s -Wl,--version-script={EXPORTS}"


def compile_tree(tree: Path) -> Path:
    """The finished library."""
    run("cmake", ["cmake", *options(tree)])
    jobs = min(MAX_JOBS, os.cpu_count() or 1)
    build = tree.parent / "build"
    run("compile", ["cmake", "--build", build, "--target", "unicorn", "--parallel", str(jobs)])
    return (build / LIBRARY).resolve()


def build() -> Path:
    """A folder with the library and the header; made if no earlier build left it."""
    result = cache_dir() / key()
    if (result / LIBRARY).exists():
        return result
    with tempfile.TemporaryDirectory(prefix="aioemu-engine-") as name:
        scratch = Path(name)
        tree = unpack(fetch(scratch), scratch)
        prepare(tree)
        library = compile_tree(tree)
        result.mkdir(parents=True, exist_ok=True)
        replace(HEADER, result / HEADER.name)
        replace(library, result / LIBRARY)
    return result


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as exc:
        sys.exit(f"engine: {exc}")
