"""The project installs: from a checkout, from its source archive and from its wheel."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import aioemu
from tests.package.conftest import ROOT, run

PROGRAM = """
import aioemu, aioemu.protocol, aioemu.netdev, aioemu.blockdev
from aioemu._core import ffi, lib
print(aioemu.__version__, aioemu.__file__, len(dir(lib)) > 0)
for name in ("protocol", "netdev", "blockdev"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} was installed under its bare name")
"""


def use(venv: Path) -> None:
    """Import the package, load its core and ask the command, all from the environment and not from the tree."""
    elsewhere = venv.parent
    version, path, has_core = run(venv / "bin" / "python", "-c", PROGRAM, cwd=elsewhere).split()
    assert version == aioemu.__version__
    assert Path(path).is_relative_to(venv)
    assert has_core == "True"
    for command in ("aioemu", "aioemu-system-x86_64"):
        assert aioemu.__version__ in run(venv / "bin" / command, "--version", cwd=elsewhere)


def install(venv: Path, what: Path) -> None:
    """Install into the environment without asking any index."""
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "-q")
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", what)


def test_a_checkout_installs_into_an_empty_environment(checkout: Path, empty_venv: Path) -> None:
    """`pip install .` is all it takes."""
    install(empty_venv, checkout)
    use(empty_venv)


def test_a_wheel_from_the_source_archive_installs(wheel: Path, empty_venv: Path) -> None:
    """The archive holds all that the build needs, and the wheel all that running needs."""
    install(empty_venv, wheel)
    use(empty_venv)


def test_the_wheel_fits_every_later_python(wheel: Path) -> None:
    """The core uses the stable interface: one wheel serves Python 3.11 and later."""
    assert wheel.name.startswith(f"aioemu-{aioemu.__version__}-cp311-abi3-linux")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module of the three linked folders is inside aioemu/; no tests and no bare general names are installed."""
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.parts[0] for name in names} == {"aioemu", f"aioemu-{aioemu.__version__}.dist-info"}
    for name in ("protocol", "netdev", "blockdev"):
        modules = {"aioemu" / path.relative_to(ROOT) for path in (ROOT / name).rglob("*.py")}
        assert modules <= names
    data = ("py.typed", "_core.abi3.so", "_core.pyi", "protocol/schema.jsonl")
    assert {Path("aioemu", name) for name in data} <= names


def test_the_archive_holds_the_licence_and_the_sources(archive: Path) -> None:
    """What the GPL asks for travels with the archive: licence text and every source of the compiled part."""
    with tarfile.open(archive) as tar:
        names = {Path(*Path(name).parts[1:]) for name in tar.getnames()}
    sources = {path.relative_to(ROOT) for path in (ROOT / "aioemu" / "core").glob("*.[ch]")}
    assert sources | {Path("LICENSE"), Path("CHANGELOG.md"), Path("README.md"), Path("setup.py")} <= names
    assert not [name for name in names if name.suffix in (".so", ".o")]


@pytest.mark.parametrize("name", ["protocol", "netdev", "blockdev"])
def test_a_general_name_says_how_to_import_it(name: str) -> None:
    """Whoever imports the folder under its bare name, in the checkout, is told the right one."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\ntry:\n import {name}\nexcept ImportError as e: print(e)"
    assert run(sys.executable, "-c", program).startswith(f"import aioemu.{name}, not {name}:")
