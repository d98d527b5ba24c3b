"""Builds `aioemu._core`, compiling only what changed since the last build.

`cdef.h` and `cdef_*.h` declare the interface (cffi reads them, `core.h` includes them); each C file here is linked in.
An object is reused when the content of its source, of each header it included and of the flags is the same, so
switching branches or cloning costs nothing. Not handled: cross compiling. Needs only cffi and a C compiler, no aioemu
import.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cffi import FFI
from cffi.recompiler import make_c_source

CORE = Path(__file__).resolve().parent
ROOT = CORE.parent.parent
MODULE = "aioemu._core"
INPLACE = CORE.parent / "_core.abi3.so"
WARNINGS = ("-Wall", "-Wextra")
ANALYSIS = ("-Werror", "-fanalyzer")
CFLAGS = ("-O2", "-g", "-std=gnu11", "-D_GNU_SOURCE=", "-fPIC", "-fvisibility=hidden", "-pthread")
# the guest is hostile: should a check in the core ever be missing, the process ends instead of doing the guest's will
HARDENING = ("-fstack-protector-strong", "-fstack-clash-protection", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2")
LIBRARIES: tuple[str, ...] = ("m",)
GENERATED = "_core.c"


def sources(core: Path = CORE) -> list[Path]:
    """The C files of the core, in a fixed order; empty while there is no interface to build."""
    return sorted(core.glob("*.c")) if (core / "cdef.h").exists() else []


def compiler() -> list[str]:
    """The C compiler's command: $CC, else gcc."""
    return shlex.split(os.environ.get("CC", "gcc"))


def flags() -> list[str]:
    """What every file is compiled with; the user's CFLAGS come last and so win."""
    include = sysconfig.get_path("include")
    return [*WARNINGS, *CFLAGS, *HARDENING, f"-isystem{include}", *shlex.split(os.environ.get("CFLAGS", ""))]


def build(output: Path = INPLACE, core: Path = CORE, cache: Path = ROOT / "build" / "core") -> bool:
    """Bring (output) up to date with the sources in (core); True when something had to be made."""
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / "lock"):
        files = [_generate(core, cache), *sources(core)]
        with ThreadPoolExecutor(max_workers=_jobs()) as pool:
            objects = list(pool.map(lambda path: _compile(path, cache, core), files))
        return _link(objects, output, cache)


def check(core: Path = CORE, cache: Path = ROOT / "build" / "check") -> list[Path]:
    """Compile every file with warnings as errors and the static analyser; the files that failed, all of them tried."""
    cache.mkdir(parents=True, exist_ok=True)

    def fails(path: Path) -> bool:
        try:
            _compile(path, cache, core, ANALYSIS)
        except subprocess.CalledProcessError:
            return True
        return False

    with _lock(cache / "lock"), ThreadPoolExecutor(max_workers=_jobs()) as pool:
        files = sources(core)
        return [path for path, failed in zip(files, pool.map(fails, files), strict=True) if failed]


def _jobs() -> int:
    return min(4, os.cpu_count() or 1)


def _generate(core: Path, cache: Path) -> Path:
    """Write the glue between Python and C that cffi derives from the interface; untouched when it would be the same."""
    ffi = FFI()
    for part in (core / "cdef.h", *sorted(core.glob("cdef_*.h"))):
        ffi.cdef(part.read_text())
    path = cache / GENERATED
    make_c_source(ffi, MODULE, '#include "core.h"\n', str(path))
    return path


def _compile(source: Path, cache: Path, core: Path, extra: tuple[str, ...] = ()) -> Path:
    """Make (source)'s object in the cache unless the one there was made from the same contents."""
    target = cache / f"{source.stem}.o"
    record = target.with_suffix(".json")
    options = [*compiler(), *flags(), f"-I{core}", *extra, *(["-w"] if source.name == GENERATED else [])]
    if target.exists() and _is_current(record, options, source):
        return target
    depfile = target.with_suffix(".d")
    command = [*options, "-MMD", "-MF", str(depfile), "-c", str(source), "-o", str(target)]
    record.unlink(missing_ok=True)
    subprocess.run(command, check=True)
    inputs = [str(source), *_dependencies(depfile)]
    record.write_text(json.dumps({"inputs": inputs, "digest": _digest(options, inputs)}))
    return target


def _is_current(record: Path, options: list[str], source: Path) -> bool:
    try:
        saved = json.loads(record.read_text())
        return bool(saved["inputs"][0] == str(source) and saved["digest"] == _digest(options, saved["inputs"]))
    except (OSError, ValueError, KeyError, IndexError):
        return False


def _dependencies(depfile: Path) -> list[str]:
    """The files that the compiler read, from its make rule (system headers are left out by -MMD)."""
    rule = depfile.read_text().replace("\\\n", " ").partition(":")[2]
    return sorted(set(shlex.split(rule)))


def _digest(options: list[str], inputs: list[str]) -> str:
    digest = hashlib.sha256("\0".join(options).encode())
    for name in inputs:
        digest.update(hashlib.sha256(Path(name).read_bytes()).digest())
    return digest.hexdigest()


def _link(objects: list[Path], output: Path, cache: Path) -> bool:
    """Link into a new file and move it into place, so that a process that has the old one loaded keeps it."""
    libraries = [f"-l{name}" for name in LIBRARIES]
    options = [*compiler(), "-shared", "-pthread", "-Wl,-z,relro,-z,now", *shlex.split(os.environ.get("LDFLAGS", ""))]
    digest = _digest([*options, *libraries, str(output)], [__file__, *map(str, objects)])
    record = cache / f"link-{hashlib.sha256(str(output).encode()).hexdigest()[:12]}"
    if output.exists() and record.exists() and record.read_text() == digest:
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f".{output.name}.{os.getpid()}")
    command = [*options, "-o", str(fresh), *map(str, objects), *libraries]
    try:
        subprocess.run(command, check=True)
        missing = _missing(fresh)
        if missing:
            raise SystemExit(f"core: declared but nowhere defined: {', '.join(missing)}")
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)
    record.write_text(digest)
    return True


def _missing(module: Path) -> list[str]:
    """The functions that are used and nowhere defined: undefined symbols that are neither libc's nor Python's.

    The sanitizers' runtime stands in for parts of libc without saying whose they are: nothing is said of such a build.
    """
    if "-fsanitize" in os.environ.get("LDFLAGS", ""):
        return []
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True
    ).stdout
    names = [line.split()[-1] for line in listing.splitlines() if line.split()[0] == "U"]
    return [name for name in names if "@" not in name and not name.startswith(("Py", "_Py"))]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One build at a time per cache; a second one waits and then finds everything made."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """Build in place, or with --check only analyse; one line says what happened, exit status 1 when it failed."""
    started = time.monotonic()
    if not sources():
        print("core: no sources, nothing to build")
        return 0
    if arguments == ["--check"]:
        failed = check()
        verdict = f"refused {', '.join(path.name for path in failed)}" if failed else "no complaint"
        print(f"core: analyser: {verdict} in {time.monotonic() - started:.1f} s")
        return 1 if failed else 0
    try:
        made = build()
    except subprocess.CalledProcessError as exc:
        print(f"core: {Path(exc.cmd[-3]).name if '-c' in exc.cmd else 'link'} failed", file=sys.stderr)
        return 1
    print(f"core: {'built' if made else 'up to date'} in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
