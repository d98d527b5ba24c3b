"""The same few hundred commands, good and bad, to QEMU's empty board and to ours: outcomes, classes and words agree.

Each command comes without arguments, with one too many, with each member missing, of a wrong type, null, and out of its
enumeration. Any QEMU will do; what a version does not have is left out. Left out too is what ends or changes the host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.schema import Array, Builtin, Enumeration, Integer, Object, Type

QEMU = os.environ.get("AIOEMU_QEMU") or shutil.which("qemu-system-x86_64")
pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")

BOARD = "-machine none -display none -nodefaults -S -qmp stdio".split()
LIMIT_S = 100
LEFT_OUT = frozenset(
    "quit qmp_capabilities human-monitor-command dump-guest-memory pmemsave memsave screendump system_reset"
    " system_powerdown add-fd device_add object-add netdev_add blockdev-add blockdev-create blockdev-reopen"
    " chardev-add chardev-change input-send-event send-key".split()
)
MEANT = {  # differs, and why
    "inject-nmi": "the empty board has no processor that could mind",
    "watchdog-set-action": "listed where there is a watchdog",
    "query-machines": "compat-props came with QEMU 9.1",
    "query-hotpluggable-cpus": "told in other words since QEMU 8",
}


def wrong(kind: Type) -> Any:
    """A value of another JSON type, or None."""
    if isinstance(kind, Builtin):
        return {"str": 5, "bool": "x", "number": "x"}.get(kind.name)
    return "x" if isinstance(kind, Integer | Array) else 5


def right(kind: Type) -> Any:
    """A value of the type that names nothing there is."""
    if isinstance(kind, Builtin):
        return {"str": "nope", "bool": False, "number": 1.5, "any": 1}.get(kind.name)
    if isinstance(kind, Enumeration):
        return kind.values[0]
    return 1 if isinstance(kind, Integer) else [] if isinstance(kind, Array) else {}


def cases() -> list[tuple[str, dict[str, Any] | None]]:
    """Commands with their arguments."""
    found: list[tuple[str, dict[str, Any] | None]] = []
    for each in COMMANDS:
        if each.name in LEFT_OUT or each.name.startswith("aioemu-"):
            continue
        members = each.arguments.members
        needed = {member.name: right(member.type) for member in members if not member.optional}
        found += [(each.name, None), (each.name, {"zzz": 1}), (each.name, needed)]
        for member in members:
            found.append((each.name, {name: value for name, value in needed.items() if name != member.name}))
            values = [wrong(member.type), None, *(["zzz"] if isinstance(member.type, Enumeration) else [])]
            kinds = isinstance(member.type, Builtin) and member.type.name in ("any", "null")
            found += [(each.name, {**needed, member.name: value}) for value in values if not kinds]
            if isinstance(member.type, Object):
                found.append((each.name, {**needed, member.name: {"zzz": 1}}))
    return found


def ask(program: list[str], given: list[tuple[str, dict[str, Any] | None]]) -> dict[int, dict[str, Any]]:
    """The answers by number."""
    requests: list[dict[str, Any]] = [{"execute": "qmp_capabilities"}]
    for number, (name, arguments) in enumerate(given):
        requests.append({"execute": name, "id": number, **({} if arguments is None else {"arguments": arguments})})
    text = "\n".join(map(json.dumps, [*requests, {"execute": "quit"}])).encode()
    done = subprocess.run([*program, *BOARD], input=text, capture_output=True, timeout=LIMIT_S, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["id"]: each for each in answers if "id" in each}


def describe(answer: dict[str, Any]) -> tuple[str, str]:
    """What has to agree: the type of what is returned, or class and words of the error."""
    if "error" in answer:
        return answer["error"]["class"], answer["error"]["desc"]
    return "return", type(answer["return"]).__name__


def test_answers_agree() -> None:
    """Over 300 commands: whatever a client did wrong, it is told in the words that it knows from QEMU."""
    given = cases()
    assert QEMU is not None
    ours, theirs = ask([sys.executable, "-m", "aioemu"], given), ask([QEMU], given)
    assert ours.keys() == theirs.keys() == set(range(len(given)))
    unknown = {given[n][0] for n, answer in theirs.items() if describe(answer)[0] == "CommandNotFound"}
    compared = [n for n in theirs if given[n][0] not in unknown and given[n][0] not in MEANT]
    different = [(given[n], describe(ours[n]), describe(theirs[n])) for n in compared]

    assert len(compared) > 300
    assert [each for each in different if each[1] != each[2]] == []
