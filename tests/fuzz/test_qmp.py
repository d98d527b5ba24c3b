"""Any arguments to any command of a machine with devices: it answers in a class of QEMU's and lives; nothing internal.

Left out is what ends the machine or lets its guest run, which has no program.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.schema import Alternate, Array, Builtin, Enumeration, Integer, Object, Type

LIMIT_S = 30.0
LEFT_OUT = frozenset("quit qmp_capabilities set-action cont system_reset system_powerdown system_wakeup".split())
SERVED = [each for each in COMMANDS if each.name not in LEFT_OUT]
CLASSES = frozenset("GenericError CommandNotFound DeviceNotFound DeviceNotActive KVMMissingCap".split())
WORDS = (
    "d0 n0 nic0 u0 io0 r0 rp0 compat_monitor0 /machine . .. x 0 -1 on auto type file raw qcow2 null-co tap user"
    " pcie.0 virtio-blk-pci file:x fd:x %s%n é \U0001f600"
).split(" ")
NUMBERS = (0, 1, -1, 512, 4096, 1 << 20, 1 << 31, 1 << 32, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
BOARD = (
    "-M q35 -accel tcg -m 64M -S -display none -nodefaults -qmp stdio -object iothread,id=io0"
    " -blockdev null-co,node-name=n0,size=1048576 -device pcie-root-port,id=rp0 -device virtio-blk-pci,drive=n0,id=d0"
    " -netdev user,id=u0 -device virtio-net-pci,netdev=u0,id=nic0 -device virtio-balloon-pci -chardev ringbuf,id=r0"
    " -device virtio-serial-pci"
).split()


class Arguments:
    """Makes values of a type, wrong ones among them."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def anything(self, depth: int = 0) -> Any:
        pick = self.random.randrange(6 if depth > 2 else 8)
        if pick < 6:
            return (None, True, 1.5, "", self.random.choice(NUMBERS), self.random.choice(WORDS))[pick]
        inner = [self.anything(depth + 1) for _ in range(self.random.randrange(3))]
        return inner if pick == 6 else {self.random.choice(WORDS): each for each in inner}

    def value(self, kind: Type, depth: int = 0) -> Any:
        if self.random.random() < 0.06:
            return self.anything()
        if isinstance(kind, Builtin):
            one = {"str": self.random.choice(WORDS), "bool": self.random.random() < 0.5, "number": 1.5, "null": None}
            return one[kind.name] if kind.name in one else self.anything()
        if isinstance(kind, Integer):
            return self.random.choice((*NUMBERS, kind.range.low, kind.range.high + 1))
        if isinstance(kind, Enumeration):
            return self.random.choice(kind.values)
        if isinstance(kind, Array):
            return [self.value(kind.element, depth + 1) for _ in range(self.random.randrange(3))]
        if isinstance(kind, Alternate):
            return self.value(self.random.choice(kind.choices), depth + 1)
        assert isinstance(kind, Object)
        return self.members(kind, depth + 1)

    def members(self, kind: Object, depth: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for member in kind.members:
            likely = (0.3 if depth < 5 else 0) if member.optional else 0.97
            if self.random.random() < likely:
                found[member.name] = self.value(member.type, depth)
        if kind.tag is not None:
            case = kind.cases.get(str(found.get(kind.tag)))
            found |= self.members(case, depth) if case is not None else {}
        if kind.record.takes_any or self.random.random() < 0.03:
            found[self.random.choice((*WORDS, "id", "driver"))] = self.anything()
        return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A machine in a folder of its own, as the commands write files."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    words = [sys.executable, "-m", "aioemu", *BOARD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=folder, **pipes) as process:  # type: ignore[call-overload]
        ask(process, {"execute": "qmp_capabilities", "id": 0})
        yield process
        process.stdin.write(b'{"execute":"quit"}')
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


def ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any]:
    """The answer; events before it are passed over."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.flush()
    while line := process.stdout.readline():
        answer: dict[str, Any] = json.loads(line)
        if answer.get("id", -1) == request["id"]:
            return answer
    raise AssertionError(f"the machine died of {request}")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), command=st.sampled_from(SERVED))
def test_any_arguments(machine: subprocess.Popen[bytes], seed: int, command: Any) -> None:
    """Every command, with values of its types and with others, is answered; errors are of a known class and ours."""
    arguments = Arguments(random.Random(seed)).members(command.arguments)
    answer = ask(machine, {"execute": command.name, "arguments": arguments, "id": seed})

    if "error" in answer:
        assert answer["error"]["class"] in CLASSES
        assert "internal error" not in answer["error"]["desc"]
    assert ask(machine, {"execute": "query-status", "id": "after"})["return"]["running"] is False
