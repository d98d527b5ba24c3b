"""The same commands about disks to QEMU 10 and to us: the same errors, and answers of the same shape.

Runs where AIOEMU_QEMU names a qemu-system-x86_64 of version 10 that sees the same files (a wrapper script will do).
What differs on purpose is listed here with its reason.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from aioemu.protocol.framing import encode
from tests.protocol.test_block import Desk, desk, image  # noqa: F401 - fixtures

QEMU = os.environ.get("AIOEMU_QEMU", "")
pytestmark = pytest.mark.skipif(not QEMU, reason="AIOEMU_QEMU does not name QEMU 10")

NONE = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
NODE = {"driver": "null-co", "node-name": "n"}
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("query-block", {}),
    ("blockdev-add", {}),
    ("blockdev-add", {"driver": "nope"}),
    ("blockdev-add", {"driver": 5}),
    ("blockdev-add", {"driver": "null-co"}),
    ("blockdev-add", {**NODE, "foo": 1}),
    ("blockdev-add", {**NODE, "size": "1M"}),
    ("blockdev-add", {**NODE, "read-only": "on"}),
    ("blockdev-add", {**NODE, "cache": {"direct": 1}}),
    ("blockdev-add", {**NODE, "cache": True}),
    ("blockdev-add", {**NODE, "cache": {"foo": True}}),
    ("blockdev-add", {**NODE, "discard": "maybe"}),
    ("blockdev-add", {**NODE, "detect-zeroes": "maybe"}),
    ("blockdev-add", {**NODE, "node-name": "n" * 32}),
    ("blockdev-add", {**NODE, "node-name": "1n"}),
    ("blockdev-add", {**NODE, "node-name": ""}),
    ("blockdev-add", {**NODE, "node-name": "d"}),
    ("blockdev-add", {**NODE, "latency-ns": -5}),
    ("blockdev-add", {**NODE, "force-share": True}),
    ("blockdev-add", {**NODE, "detect-zeroes": "unmap"}),
    ("blockdev-add", {**NODE, "size": 1 << 20}),
    ("blockdev-add", NODE),
    ("blockdev-add", {"driver": "raw", "node-name": "r"}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": None}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": 5}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "zz"}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": {}}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": {"driver": "zz"}}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": 5}}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "/none"}}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "", "foo": 1}}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "x", "aio": "no"}}),
    ("blockdev-add", {"driver": "file", "node-name": "r", "filename": "PATH", "aio": "native"}),
    ("blockdev-add", {"driver": "file", "node-name": "r", "filename": "PATH", "locking": "maybe"}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n", "size": 5}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n", "size": 1 << 30}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n", "offset": 1 << 30}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n", "offset": 512, "size": 1 << 20}),
    ("blockdev-add", {"driver": "raw", "node-name": "r", "file": "n", "offset": 512}),
    ("blockdev-add", {"driver": "qcow2", "node-name": "q", "file": "n"}),
    ("blockdev-add", {"driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "g"}),
    ("object-add", {"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 5, "iops-read": 1}}),
    ("object-add", {"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 5}}),
    ("blockdev-add", {"driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "g"}),
    ("qom-get", {"path": "/objects/g", "property": "limits"}),
    ("qom-get", {"path": "/objects/g", "property": "x-iops-total"}),
    ("qom-set", {"path": "/objects/g", "property": "limits", "value": {"bps-read": 100}}),
    ("qom-set", {"path": "/objects/g", "property": "limits", "value": {"bps-read-max": 100, "bps-read": 500}}),
    ("qom-get", {"path": "/objects/g", "property": "limits"}),
    ("blockdev-add", {"driver": "copy-on-read", "node-name": "c", "file": "n"}),
    ("query-named-block-nodes", {}),
    ("query-named-block-nodes", {"flat": True}),
    ("query-named-block-nodes", {"flat": 1}),
    ("query-blockstats", {}),
    ("query-blockstats", {"query-nodes": True}),
    ("blockdev-del", {}),
    ("blockdev-del", {"node-name": "zz"}),
    ("blockdev-del", {"node-name": "n"}),
    ("blockdev-del", {"node-name": "c"}),
    ("blockdev-del", {"node-name": "t"}),
    ("blockdev-del", {"node-name": "r"}),
    ("blockdev-reopen", {"options": [{"driver": "null-co"}]}),
    ("blockdev-reopen", {"options": [{"driver": "null-co", "node-name": "zz"}]}),
    ("blockdev-reopen", {"options": [{"driver": "raw", "node-name": "r", "file": "n", "offset": 1024}]}),
    ("blockdev-del", {"node-name": "n"}),
    ("block_resize", {"node-name": "zz", "size": 512}),
    ("block_resize", {"device": "e", "size": 512}),
    ("block_resize", {"device": "d", "node-name": "f", "size": 512}),
    ("block_resize", {"size": 512}),
    ("block_resize", {"device": "d"}),
    ("block_resize", {"device": "d", "size": -1}),
    ("block_resize", {"device": "d", "size": 2 << 20}),
    ("block_set_io_throttle", {"device": "d"}),
    ("block_set_io_throttle", {**NONE}),
    ("block_set_io_throttle", {**NONE, "device": "zz"}),
    ("block_set_io_throttle", {**NONE, "id": "zz"}),
    ("block_set_io_throttle", {**NONE, "device": "e"}),
    ("block_set_io_throttle", {**NONE, "device": "d", "bps": 1, "bps_rd": 1}),
    ("block_set_io_throttle", {**NONE, "device": "d", "bps_max": 1}),
    ("block_set_io_throttle", {**NONE, "device": "d", "bps": -1}),
    ("block_set_io_throttle", {**NONE, "device": "d", "iops_size": 1}),
    ("block_set_io_throttle", {**NONE, "device": "d", "iops": 5, "iops_max": 9, "iops_max_length": 3, "iops_size": 9}),
    ("query-block", {}),
    ("block_set_io_throttle", {**NONE, "device": "d"}),
    ("query-block", {}),
    ("query-jobs", {}),
    ("job-dismiss", {"id": "zz"}),
    ("job-cancel", {"id": "zz"}),
    ("blockdev-create", {"job-id": "j", "options": {"driver": "file", "filename": "/none/x"}}),
    ("blockdev-create", {"job-id": "j", "options": {"driver": "null-co"}}),
    ("blockdev-create", {"job-id": "1j", "options": {"driver": "file", "filename": "/none/x", "size": 1}}),
    ("object-del", {"id": "g"}),
]


class Qemu:
    """QEMU with the disks of the desk."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        import json

        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(encode({"execute": name, "arguments": arguments}))
        while True:
            answer: dict[str, Any] = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 30))
            if "event" not in answer and "QMP" not in answer:
                return answer


def shape(value: Any) -> Any:
    """Members and types of an answer, whatever the values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def differences(ours: Any, theirs: Any, path: str) -> list[str]:
    """Where two answers part."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted(ours.keys() | theirs.keys())
        return [each for n in names for each in differences(ours.get(n), theirs.get(n), f"{path}.{n}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            each for n, pair in enumerate(zip(ours, theirs, strict=True)) for each in differences(*pair, f"{path}[{n}]")
        ]
    return [] if ours == theirs else [f"{path}: ours {ours}, QEMU's {theirs}"]


def plain(text: str) -> str:
    """An error without what we add to help."""
    return re.sub(r"; did you mean .*\?$", "", text)


async def test_errors_and_shapes(desk: Desk, image: Path) -> None:  # noqa: F811
    """Command by command, on machines that went through the same ones before."""
    words = ["-machine", "none", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio"]
    words += ["-blockdev", f"file,node-name=f,filename={image}"]
    words += ["-drive", f"file={image},if=none,id=d,format=raw,file.locking=off,cache=unsafe", "-drive", "if=none,id=e"]
    process = await asyncio.create_subprocess_exec(
        *shlex.split(QEMU), *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    qemu = Qemu(process)
    await qemu.ask("qmp_capabilities", {})
    found = []
    for name, arguments in COMMANDS:
        given = {key: str(image) if value == "PATH" else value for key, value in arguments.items()}
        theirs = await qemu.ask(name, given)
        ours = await ask(desk, name, given)
        found += [f"{name} {given}: {each}" for each in differences(said(ours), said(theirs), "")]
    await qemu.ask("quit", {})
    await process.wait()
    assert not found, "\n".join(found)


async def ask(desk: Desk, name: str, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: F811
    """As over a socket."""
    from aioemu.errors import EmuError, MonitorError

    try:
        return {"return": await desk.hub.execute(name, arguments)}
    except EmuError as exc:
        kind = exc.error_class if isinstance(exc, MonitorError) else "GenericError"
        return {"error": {"class": kind, "desc": str(exc)}}


def said(answer: dict[str, Any]) -> Any:
    """What is compared."""
    if "error" in answer:
        return answer["error"]["class"], plain(answer["error"]["desc"])
    return shape(answer["return"])
