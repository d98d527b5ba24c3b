"""C files keep the rules that the compiler does not know."""

from __future__ import annotations

import re
from pathlib import Path

from tests.style.sources import texts

COMMENT_OR_STRING = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", re.S)
FORBIDDEN = re.compile(
    r"(?<![\w.>])(printf|fprintf|vprintf|puts|perror|exit|abort|assert|system|strcpy|sprintf|gets)\s*\("
)
# a variable, not a function: the declarator is followed by = ; or [ before any parenthesis
STATE = re.compile(r"^[ \t]*static\s+(?![^=;(]*\b(?:const|_Thread_local|__thread)\b)(?!inline)[^=;({]*[=;\[]", re.M)

PROCESS_WIDE = ("aioemu/core/guard.c",)  # a signal has one handler in a process


def code(text: str) -> str:
    """The text without comments and strings, line numbers kept."""
    return COMMENT_OR_STRING.sub(lambda match: "\n" * match.group().count("\n"), text)


def found(pattern: re.Pattern[str]) -> list[str]:
    """Where the pattern occurs in the core's code."""
    wrong = []
    for path, text in texts(".c", ".h"):
        if path.parts[:2] == ("aioemu", "core"):
            stripped = code(text)
            wrong += [
                f"{path}:{stripped.count(chr(10), 0, m.start()) + 1} {m.group()}" for m in pattern.finditer(stripped)
            ]
    return wrong


def opens_well(path: Path, text: str) -> bool:
    """Whether a C file opens with a comment that says what it is; in the core it begins with the file's name."""
    return text.startswith(f"/* {path.name}: " if path.parts[:2] == ("aioemu", "core") else "/*")


def test_files_open_by_saying_what_they_are() -> None:
    """A C file's first words are a comment on what it is for."""
    assert not [str(path) for path, text in texts(".c", ".h", ".S") if not opens_well(path, text)]


def test_the_core_never_prints_exits_or_asserts() -> None:
    """The core lives in somebody else's process: it answers 0 or -errno and nothing else."""
    assert not found(FORBIDDEN)


def test_the_core_keeps_no_static_state() -> None:
    """Many machines live in one process: all state hangs off a machine, but for what is the process's."""
    assert not [where for where in found(STATE) if not where.startswith(PROCESS_WIDE)]


def test_the_patterns_catch_what_they_are_for() -> None:
    """The rules above fire on the plain cases and leave tables, functions and comments alone."""
    bad = "static int count;\n    static struct x *first = NULL;\nstatic char buffer[10];\n"
    good = (
        'static int run(int a);\nstatic const int t[] = {1};\nstatic inline int f(void)\n/* static int x; */\n"exit("\n'
    )
    assert len(STATE.findall(bad)) == 3
    assert not STATE.findall(code(good))
    assert FORBIDDEN.search("    abort();")
    assert not FORBIDDEN.search(code('v->exit(v); pthread_exit(0); "abort()"'))
