"""The builder of the native core: what is compiled again, and what stays when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aioemu.core import build

HEADER = '#pragma once\n#include "cdef.h"\nint twice(int value);\n'


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """A small core: one function of the interface, one behind it, one that includes no header of the core."""
    folder = tmp_path / "core"
    folder.mkdir()
    (folder / "cdef.h").write_text("int core_answer(void);\n")
    (folder / "core.h").write_text(HEADER)
    (folder / "answer.c").write_text('#include "core.h"\nint core_answer(void) { return twice(21); }\n')
    (folder / "twice.c").write_text('#include "core.h"\nint twice(int value) { return 2 * value; }\n')
    (folder / "alone.c").write_text("int alone(void) { return 0; }\n")
    return folder


def make(core: Path) -> tuple[bool, Path]:
    """Build the small core beside its sources."""
    output = core.parent / "out" / "_core.abi3.so"
    return build.build(output, core, core.parent / "cache"), output


def ask(output: Path) -> str:
    """What a fresh process gets from the module."""
    program = "import _core; print(_core.lib.core_answer())"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=output.parent, check=True, capture_output=True, text=True).stdout.strip()


def objects(core: Path) -> dict[str, int]:
    """When each object was made."""
    return {path.stem: path.stat().st_mtime_ns for path in (core.parent / "cache").glob("*.o")}


def test_the_second_build_does_nothing(core: Path) -> None:
    """A build brings a working module; with nothing changed the next one touches no file."""
    made, output = make(core)
    before = objects(core)
    assert (made, ask(output)) == (True, "42")
    assert make(core) == (False, output)
    assert objects(core) == before


def test_only_what_changed_is_compiled(core: Path) -> None:
    """An edit to one source recompiles that source; touching a file without changing it recompiles nothing."""
    make(core)
    before = objects(core)
    (core / "twice.c").write_text((core / "twice.c").read_text().replace("2 * value", "3 * value"))
    (core / "answer.c").touch()
    _, output = make(core)
    assert ask(output) == "63"
    assert {name for name, when in objects(core).items() if when != before[name]} == {"twice"}


def test_a_header_recompiles_those_that_include_it(core: Path) -> None:
    """Dependencies are the compiler's own list: files that do not read the header stay as they are."""
    make(core)
    before = objects(core)
    (core / "core.h").write_text(HEADER + "enum { EXTRA = 1 };\n")
    make(core)
    changed = {name for name, when in objects(core).items() if when != before[name]}
    assert changed == {"_core", "answer", "twice"}


def test_a_deleted_source_leaves_the_module(core: Path) -> None:
    """A file that is gone is not linked from its old object."""
    make(core)
    (core / "alone.c").unlink()
    made, output = make(core)
    assert made
    assert "alone" not in subprocess.run(["nm", output], check=True, capture_output=True, text=True).stdout


def test_a_failed_build_keeps_the_last_good_module(core: Path) -> None:
    """A syntax error is the compiler's to report; what was built before still works, and the fix builds."""
    _, output = make(core)
    good = (core / "twice.c").read_text()
    (core / "twice.c").write_text("int twice(int value) { return }\n")
    with pytest.raises(subprocess.CalledProcessError):
        make(core)
    assert ask(output) == "42"
    (core / "twice.c").write_text(good)
    assert not make(core)[0]


def test_only_the_entry_point_is_exported(core: Path) -> None:
    """Symbols of the core are hidden: they cannot clash with another library's in the same process."""
    _, output = make(core)
    listing = subprocess.run(["nm", "-D", "--defined-only", output], check=True, capture_output=True, text=True).stdout
    assert [line.split()[2] for line in listing.splitlines()] == ["PyInit__core"]


def test_the_check_names_every_file_it_refuses(core: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings and what the analyser finds are errors in the check, though not in a build."""
    (core / "twice.c").write_text("#include <stdlib.h>\nvoid twice(char *p) { free(p); free(p); }\n")
    (core / "alone.c").write_text("int alone(void) { int unused; return 0; }\n")
    refused = build.check(core, core.parent / "check")
    assert [path.name for path in refused] == ["alone.c", "twice.c"]
    assert "double-free" in capfd.readouterr().err
