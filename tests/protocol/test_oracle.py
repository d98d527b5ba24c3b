"""QEMU itself as the oracle: the same types, and the same answer to the same bytes.

Runs where AIOEMU_QEMU names a qemu-system-x86_64 of version 10 (a wrapper script will do). What differs on purpose is
listed here with its reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioemu.config import MachineConfig, MemoryOptions
from tests.protocol.rig import TIMEOUT_S, Rig

QEMU = os.environ.get("AIOEMU_QEMU", "")
pytestmark = pytest.mark.skipif(not QEMU, reason="AIOEMU_QEMU does not name QEMU 10")


class Oracle:
    """A QEMU without a machine, past its negotiation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, raw: bytes, answers: int = 1) -> list[Any]:
        """What comes back for (raw)."""
        self.writer.write(raw)
        return [json.loads(await asyncio.wait_for(self.reader.readline(), TIMEOUT_S)) for _ in range(answers)]


@pytest.fixture
async def oracle() -> AsyncIterator[Oracle]:
    ours, theirs = socket.socketpair()
    arguments = ["-M", "none", "-display", "none", "-nodefaults", "-name", "fake", "-S"]
    arguments += ["-chardev", f"socket,id=mon,fd={theirs.fileno()}", "-mon", "chardev=mon,mode=control"]
    process = await asyncio.create_subprocess_exec(*shlex.split(QEMU), *arguments, pass_fds=[theirs.fileno()])
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
    made = Oracle(reader, writer)
    await asyncio.wait_for(reader.readline(), 30)
    await made.ask(b'{"execute":"qmp_capabilities"}')
    yield made
    writer.write(b'{"execute":"quit"}')
    await asyncio.wait_for(process.wait(), TIMEOUT_S)
    writer.close()


class Schema:
    """An introspection answer, to be asked what a name stands for."""

    def __init__(self, entities: list[dict[str, Any]]) -> None:
        self.of = {each["name"]: each for each in entities}
        self.commands = {each["name"] for each in entities if each["meta-type"] == "command"}
        self.events = {each["name"] for each in entities if each["meta-type"] == "event"}


# (our command or event).member: why it is not QEMU's
KNOWN_TYPE_DIFFERENCES = {
    "object-add.qom-type": "types come from the machine at run time, so this is a string and takes any member",
}


def differences(ours: Schema, theirs: Schema, a: str, b: str, where: str, seen: set[tuple[str, str]]) -> list[str]:
    """How type (a) of ours is no subset of type (b) of QEMU's."""
    if where in KNOWN_TYPE_DIFFERENCES or (a, b) in seen:
        return []
    seen.add((a, b))
    one, other = ours.of[a], theirs.of[b]
    if one["meta-type"] != other["meta-type"]:
        return [f"{where}: {one['meta-type']}, not {other['meta-type']}"]
    if one["meta-type"] == "builtin":
        return [] if one["json-type"] == other["json-type"] else [f"{where}: {one['json-type']}"]
    if one["meta-type"] == "enum":
        return [f"{where}: value {value}" for value in one["values"] if value not in other["values"]]
    if one["meta-type"] == "array":
        return differences(ours, theirs, one["element-type"], other["element-type"], where, seen)
    return object_differences(ours, theirs, one, other, where, seen)


def object_differences(ours: Schema, theirs: Schema, one: Any, other: Any, where: str, seen: Any) -> list[str]:
    found = []
    known = {member["name"]: member for member in other["members"]}
    mine = {member["name"] for member in one["members"]}
    for member in one["members"]:
        at = f"{where}.{member['name']}"
        if member["name"] not in known:
            found.append(f"{at}: unknown to QEMU")
            continue
        theirs_member = known[member["name"]]
        if ("default" in member) != ("default" in theirs_member):
            found.append(f"{at}: optional on one side only")
        found += differences(ours, theirs, member["type"], theirs_member["type"], at, seen)
    found += [f"{where}.{name}: missing" for name in known if name not in mine and "default" not in known[name]]
    cases = {case["case"]: case["type"] for case in other.get("variants", ())}
    for case in one.get("variants", ()):
        if case["case"] not in cases:
            found.append(f"{where}: case {case['case']}")
            continue
        found += differences(ours, theirs, case["type"], cases[case["case"]], f"{where}<{case['case']}>", seen)
    return found


async def test_types_are_those_of_qemu(rig: Rig, oracle: Oracle) -> None:
    """Every command and event is QEMU's: members, types, what is optional; nothing of ours is unknown to it."""
    ours = Schema(await rig.hub.execute("query-qmp-schema"))
    [reply] = await oracle.ask(b'{"execute":"query-qmp-schema"}')
    theirs = Schema(reply["return"])

    found = [f"{name}: unknown" for name in (ours.commands - theirs.commands) | (ours.events - theirs.events)]
    for name in sorted(ours.commands & theirs.commands):
        for kind in ("arg-type", "ret-type"):
            a, b = ours.of[name][kind], theirs.of[name][kind]
            found += differences(ours, theirs, a, b, name, set())
    for name in sorted(ours.events & theirs.events):
        found += differences(ours, theirs, ours.of[name]["arg-type"], theirs.of[name]["arg-type"], name, set())

    assert found == []


REQUESTS = [
    *[json.dumps({"execute": name}) for name in ("query-status", "query-name", "query-uuid", "query-target", "stop")],
    *[json.dumps({"execute": name}) for name in ("query-memory-devices", "query-fdsets", "qmp_capabilities", "nope")],
    *[json.dumps({"execute": name, "arguments": {"x": 1}}) for name in ("query-status", "stop", "nope")],
    '{"execute":"query-status","id":{"a":[null,1.5,"é"]}}',
    '{"execute":"query-status","foo":1,"id":3}',
    '{"execute":1,"id":3}',
    '{"id":3}',
    "{}",
    "[]",
    '"str"',
    "{]",
    '{"a":1,"a":2}',
    '{"execute":"query-status","arguments":[],"id":4}',
    '{"execute":"query-status","arguments":null}',
    '{"execute":"query-status","exec-oob":"x"}',
    '{"execute":"query-status" "id"}',
    '{"execute":foo}',
    '{"execute":"\\q"}',
    '{"execute":"\\ud800"}',
    "{'execute':'query-status','id':'it\\'s'}",
    '{"execute":"getfd"}',
    '{"execute":"getfd","arguments":{"fdname":1}}',
    '{"execute":"getfd","arguments":{"fdname":"a"}}',
    '{"execute":"closefd","arguments":{"fdname":"a"}}',
    '{"execute":"add-fd","arguments":{"fdset-id":"1"}}',
    '{"execute":"add-fd","arguments":{"fdset-id":1}}',
    '{"execute":"remove-fd","arguments":{"fdset-id":1}}',
    '{"execute":"remove-fd","arguments":{"fdset-id":1,"fd":3}}',
    '{"execute":"remove-fd","arguments":{"fdset-id":1.5}}',
    '{"execute":"remove-fd","arguments":{"fdset-id":9223372036854775808}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":1}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"nope"}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"null"}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"null","data":{"foo":1}}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"ringbuf","data":{"size":"1"}}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"ringbuf","data":{"size":100}}}}',
    '{"execute":"chardev-add","arguments":{"id":"s","backend":{"type":"socket","data":{"addr":{"type":"inet",'
    '"data":{"host":"x","port":"5","to":70000}}}}}}',
    '{"execute":"chardev-add","arguments":{"id":"s","backend":{"type":"socket","data":{"addr":{"type":"inet",'
    '"data":{"host":"x","port":5}}}}}}',
    '{"execute":"chardev-add","arguments":{"id":"s","backend":{"type":"socket","data":{"addr":{"type":"unix",'
    '"data":{}}}}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"ringbuf","data":{"size":128}}}}',
    '{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"ringbuf","data":{"size":128}}}}',
    '{"execute":"ringbuf-write","arguments":{"device":"x","data":"héllo"}}',
    '{"execute":"ringbuf-read","arguments":{"device":"x","size":100}}',
    '{"execute":"ringbuf-write","arguments":{"device":"x","data":"!!","format":"base64"}}',
    '{"execute":"ringbuf-write","arguments":{"device":"x","data":"aGk=","format":"base64"}}',
    '{"execute":"ringbuf-read","arguments":{"device":"x","size":100,"format":"base64"}}',
    '{"execute":"ringbuf-read","arguments":{"device":"x","size":100,"format":"hex"}}',
    '{"execute":"ringbuf-read","arguments":{"device":"x","size":0}}',
    '{"execute":"ringbuf-read","arguments":{"device":"y","size":1}}',
    '{"execute":"chardev-send-break","arguments":{"id":"q"}}',
    '{"execute":"chardev-remove","arguments":{"id":"nope"}}',
    '{"execute":"chardev-remove","arguments":{"id":"x"}}',
    '{"execute":"set-action","arguments":{"reboot":"bad"}}',
    '{"execute":"set-action","arguments":{"reboot":"shutdown","foo":1}}',
    '{"execute":"set-action","arguments":{"reboot":"shutdown"}}',
    '{"execute":"object-add","arguments":{"qom-type":"iothread","id":"1o"}}',
    '{"execute":"object-add","arguments":{"qom-type":"nope","id":"io"}}',
    '{"execute":"object-add","arguments":{"qom-type":"iothread"}}',
    '{"execute":"object-add","arguments":{"qom-type":"iothread","id":"io0"}}',
    '{"execute":"object-add","arguments":{"qom-type":"iothread","id":"io0"}}',
    '{"execute":"object-del","arguments":{"id":"io0"}}',
    '{"execute":"object-del","arguments":{"id":"io0"}}',
    '{"execute":"qom-list","arguments":{"path":"/nope"}}',
    '{"execute":"qom-get","arguments":{"path":"/machine","property":"nope"}}',
    '{"execute":"qom-get","arguments":{"path":"/machine","property":"type"}}',
    '{"execute":"qom-get","arguments":{"path":"/","property":"machine"}}',
    '{"execute":"qom-set","arguments":{"path":"/machine","property":"type","value":1}}',
    '{"execute":"qom-set","arguments":{"path":"/machine","property":"nope","value":1}}',
    '{"execute":"qom-set","arguments":{"path":"/machine","property":"nope"}}',
    '{"execute":"device-list-properties","arguments":{"typename":"nope"}}',
    '{"execute":"device-list-properties","arguments":{"typename":"pci-device"}}',
    '{"execute":"qom-list-properties","arguments":{"typename":"nope"}}',
    '{"execute":"yank","arguments":{"instances":[{"type":"chardev","id":"x"}]}}',
    '{"execute":"yank","arguments":{"instances":[{"type":"chardev"}]}}',
    '{"execute":"yank","arguments":{"instances":[{"type":"x"}]}}',
    '{"execute":"yank","arguments":{"instances":[{"type":"migration","id":"x"}]}}',
    '{"execute":"yank","arguments":{"instances":[1]}}',
    '{"execute":"yank","arguments":{"instances":{}}}',
    '{"execute":"yank","arguments":{"instances":[]}}',
    '{"execute":"pmemsave","arguments":{"val":0,"size":16,"filename":"/nodir/x"}}',
    *[
        json.dumps({"execute": "human-monitor-command", "arguments": {"command-line": line}})
        for line in (
            "info status",
            "nope",
            "",
            "   ",
            "info nope",
            "info name",
            "info uuid",
            "info kvm",
            "stop foo",
            "info status x",
            "help stop",
            "help info status",
            "help nope",
            "p 1+2*3",
            "p (1+2)*-3",
            "p /x 255",
            "p 010",
            "p /d 255-256",
            "p /u -1",
            "p /o 8",
            "p 7/0",
            "p",
            "chardev-remove x",
            "chardev-remove",
            "object_del zz",
            "qom-get / machine",
        )
    ],
    '{"execute":"human-monitor-command","arguments":{"command-line":"info status","cpu-index":5}}',
    '{"execute":"human-monitor-command","arguments":{"command-line":1}}',
]


@pytest.fixture
async def twin(tmp_path: Any) -> AsyncIterator[Rig]:
    config = MachineConfig(name="fake", memory=MemoryOptions(0))
    from aioemu.config import MachineOptions

    made = Rig(tmp_path, MachineConfig(name=config.name, memory=config.memory, machine=MachineOptions("none")))
    await made.serve()
    yield made
    await made.close()


async def test_answers_are_those_of_qemu(twin: Rig, oracle: Oracle) -> None:
    """The same requests, good and bad, have the same answers, word for word."""
    client = await twin.negotiated()
    different = []
    for request in REQUESTS:
        [theirs] = await oracle.ask(request.encode())
        ours = await client.ask(request.encode())
        if normal(ours) != normal(theirs):
            different.append(f"{request}\n  ours   {ours}\n  theirs {theirs}")

    assert not different, "\n".join(different)


def normal(reply: Any) -> Any:
    """A reply without what cannot be the same."""
    return json.loads(re.sub(r"/\S*\.sock", "PATH", json.dumps(reply)))
