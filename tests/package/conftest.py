"""One build of the distributions for all tests here: the source archive, and the wheel that is built from it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command; its output, or a failed test that shows it."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as somebody else would get it: what git tracks, nothing that was built."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    present = "\0".join(name for name in listed if name and ((ROOT / name).exists() or (ROOT / name).is_symlink()))
    packed = subprocess.run(
        ["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=present.encode(), capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x"], cwd=copy, input=packed, check=True)
    return copy


@pytest.fixture(scope="session")
def archive(checkout: Path) -> Path:
    """The source archive."""
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", ".", cwd=checkout)
    return next((checkout / "dist").glob("aioemu-*.tar.gz"))


@pytest.fixture(scope="session")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the source archive holds."""
    folder = tmp_path_factory.mktemp("unpacked")
    run("tar", "-xzf", archive, cwd=folder)
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def wheel(unpacked: Path) -> Path:
    """The wheel, built from the source archive as an index would."""
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", ".", cwd=unpacked)
    return next((unpacked / "dist").glob("aioemu-*.whl"))


@pytest.fixture
def empty_venv(tmp_path: Path) -> Path:
    """A new environment that knows our dependencies from the tests' own, but not the project."""
    folder = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    theirs = Path(sysconfig.get_path("purelib"))
    for entry in theirs.iterdir():
        if "aioemu" not in entry.name and entry.name != "__pycache__" and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    return folder
