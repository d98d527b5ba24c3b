"""`python -m tests.conformance FOLDER [--suite trixie] [--markdown] [NAME...]`: QEMU's qtest programs against aioemu.

They start the program that QTEST_QEMU_BINARY names, drive its devices over a qtest socket and talk QMP to it. FOLDER is
outside the repository and keeps source and build: the first run downloads 40 MB by apt and compiles for some minutes.
Needs dpkg-dev, ninja-build, pkg-config, libglib2.0-dev, libpixman-1-dev, libfdt-dev, python3-venv, and meson 1.5 or
later in PATH. Exit status 1 when a program fails that is not known to.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = (
    "qmp-test",
    "qmp-cmd-test",
    "machine-none-test",
    "qom-test",
    "device-introspect-test",
    "rtc-test",
    "pvpanic-test",
    "pvpanic-pci-test",
    "test-hmp",
    "readconfig-test",
    "device-plug-test",
    "q35-test",
)
KNOWN = {  # what fails, and why that is meant
    "q35-test": {
        "/q35/smram": "no system management mode: the registers of SMRAM and TSEG are not there",
        "/q35/tseg-size": "the same",
        "/q35/smbase_lock": "the same",
    },
}
LIMIT_S = 300.0
CONFIGURE = "--target-list=x86_64-softmmu --without-default-features --disable-werror --disable-docs --enable-tcg"
SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_CASE = re.compile(r"^(ok|not ok) \d+ (\S+)( # SKIP)?", re.MULTILINE)
_LIST = re.compile(r"^/\S+$", re.MULTILINE)


@dataclass
class Result:
    """What became of one program: its cases by name."""

    name: str
    cases: dict[str, str]  # passed, skipped, failed

    def count(self, verdict: str) -> int:
        return list(self.cases.values()).count(verdict)

    @property
    def surprises(self) -> list[str]:
        """Cases that fail and are not known to."""
        known = KNOWN.get(self.name, {})
        failed = (case for case, verdict in self.cases.items() if verdict == "failed")
        return [case for case in failed if not any(each in case for each in known)]


def run(command: Sequence[str | Path], folder: Path) -> None:
    """One step of the build; what it says is shown when it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def fetch(folder: Path, suite: str) -> Path:
    """The unpacked source package, by an apt of its own that leaves the system's lists alone."""
    found = sorted(folder.glob("qemu-*/configure"))
    if found:
        return found[0].parent
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "parts" / "source.sources").write_text(SOURCES.format(suite=suite))
    apt = ["apt-get", "-qq", "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={folder}/parts"]
    apt += ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    run([*apt, "update"], folder)
    run([*apt, "source", "--download-only", "qemu"], folder)
    run(["dpkg-source", "--no-check", "-x", next(folder.glob("*.dsc"))], folder)
    return next(folder.glob("qemu-*/configure")).parent


def build(source: Path, names: Sequence[str]) -> Path:
    """Compile the programs alone; the build folder."""
    folder = source / "build"
    if not (folder / "build.ninja").exists():
        firmware = source / "pc-bios" / "meson.build"  # of firmware that the package leaves out
        firmware.write_text(firmware.read_text().replace("if unpack_edk2_blobs", "if false"))
        folder.mkdir(exist_ok=True)
        run(["../configure", *CONFIGURE.split(), "--disable-install-blobs"], folder)
    run(["ninja", "-j2", *(f"tests/qtest/{name}" for name in names)], folder)
    return folder


def wrapper(folder: Path) -> Path:
    """aioemu under a name that the programs take the architecture from."""
    path = folder / "qemu-system-x86_64"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m aioemu "$@"\n')
    path.chmod(0o755)
    return path


def take(folder: Path, binary: Path, name: str) -> Result:
    """Run one program, each case by itself: one that fails ends its process."""
    program = folder / "tests" / "qtest" / name
    environment = {**os.environ, "QTEST_QEMU_BINARY": str(binary), "G_TEST_DBUS_DAEMON": "/bin/false"}

    def ask(*words: str) -> str:
        try:
            done = subprocess.run(
                [program, *words],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout

    cases = {}
    for case in _LIST.findall(ask("-l")):
        verdicts = [(verdict, bool(skip)) for verdict, _, skip in _CASE.findall(ask("-p", case))]
        passed = bool(verdicts) and all(verdict == "ok" for verdict, _ in verdicts)
        cases[case] = "skipped" if passed and all(skip for _, skip in verdicts) else "passed" if passed else "failed"
    return Result(name, cases)


def rows(results: Sequence[Result]) -> str:
    """The table of docs/conformance.md."""
    lines = ["| program | passed | skipped | failed |", "|---|---|---|---|"]
    for each in results:
        failed = ", ".join(case for case, verdict in each.cases.items() if verdict == "failed")
        counts = [each.count(verdict) for verdict in ("passed", "skipped", "failed")]
        lines.append(f"| {each.name} | {counts[0]} | {counts[1]} | {counts[2]}{': ' + failed if failed else ''} |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", default=PROGRAMS)
    parser.add_argument("--suite", default="trixie", help="of Debian, whose QEMU it is (trixie: 10.0)")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    built = build(fetch(folder, args.suite), args.names)
    binary = wrapper(folder)
    results = []
    for name in args.names:
        results.append(take(built, binary, name))
        print(f"{name}: {dict(results[-1].cases)}", file=sys.stderr, flush=True)
    print(rows(results))
    return 1 if any(each.surprises for each in results) else 0


if __name__ == "__main__":
    sys.exit(main())
