"""The tree as a whole: sizes, names, links, documents."""

from __future__ import annotations

import re
import tomllib

from tests.style.sources import LINKED, ROOT, files, texts

LINES_MAX = 400
CODE = (".py", ".pyi", ".c", ".h", ".S", ".sh")
VAGUE = {"util", "utils", "common", "misc"}
# where somebody's checkout, home or tool happens to be; put together so that this file does not match itself
MACHINE_PATHS = re.compile("|".join(("/" + "work/", "/" + r"home/(?!user\b)\w", r"\.py" + "env", "/opt/" + "pypi")))
MARKDOWN_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")


def test_a_file_holds_one_idea() -> None:
    """No source file has more than 400 lines."""
    sizes = [(path, text.count("\n")) for path, text in texts(*CODE)]
    assert not [f"{path}: {lines}" for path, lines in sizes if lines > LINES_MAX]


def test_names_say_what_is_inside() -> None:
    """No file or folder is called util, common or misc."""
    words = {
        path: {word for part in path.with_suffix("").parts for word in re.split(r"[_\-.]", part)} for path in files()
    }
    assert not [str(path) for path, found in words.items() if found & VAGUE]


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """Nothing names a path of one particular computer."""
    wrong = []
    for path, text in texts():
        wrong += [f"{path}:{text.count(chr(10), 0, m.start()) + 1} {m.group()}" for m in MACHINE_PATHS.finditer(text)]
    assert not wrong


def test_general_names_are_reached_by_relative_links() -> None:
    """aioemu/protocol and its like are links that survive a move of the tree."""
    for name in LINKED:
        link = ROOT / "aioemu" / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"../{name}"


def test_the_changelog_has_the_current_version() -> None:
    """The newest section is this version's and says something; a bullet is one line of at most 120 columns."""
    version = re.search(r'__version__ = "(.+)"', (ROOT / "aioemu/__init__.py").read_text())
    assert version is not None
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert sections[1].startswith(version.group(1))
    bullets = [line for line in sections[1].splitlines()[1:] if line.strip() and not line.startswith("#")]
    assert bullets
    assert not [line for line in bullets if not line.startswith("- ") or len(line) > 120]


def test_links_between_documents_lead_somewhere() -> None:
    """A relative link in a Markdown file names a file that is there."""
    wrong = []
    for path, text in texts(".md"):
        targets = MARKDOWN_LINK.findall(text)
        wrong += [f"{path}: {target}" for target in targets if not (ROOT / path.parent / target).exists()]
    assert not wrong


def test_every_package_has_its_place_in_the_layers() -> None:
    """The layer contract is exhaustive, so that a new package must say where it stands."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [contract for contract in contracts if contract["type"] == "layers"]
    assert [contract.get("exhaustive") for contract in layers] == [True]


def test_no_line_is_only_trailing_space() -> None:
    """Text files end with one newline and no line ends in a blank (Markdown excepted: it means a break there)."""
    wrong = [
        str(p) for p, text in texts() if p.suffix != ".md" and re.search(r"[ \t]$", text, re.M) and p.suffix != ".patch"
    ]
    unfinished = [str(p) for p, text in texts() if text and not text.endswith("\n")]
    assert not wrong + unfinished


def test_tests_that_the_docs_name_exist() -> None:
    """docs/testing.md maps hostile inputs to tests: each name in it is one."""
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "docs" / "testing.md").read_text()))
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_[a-z0-9_]+)\(", source)}

    assert len(named) > 30
    assert named <= there, sorted(named - there)
