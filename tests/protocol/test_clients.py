"""Clients as they are in the field: unmodified libraries, many of them, and some that misbehave."""

from __future__ import annotations

import array
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from qemu.qmp import QMPClient
from qemu.qmp.qmp_client import ExecuteError

from aioemu.config import SocketOptions, UnixAddress
from aioemu.protocol import monitor
from tests.protocol.rig import TIMEOUT_S, Rig

LEGACY = """
import sys
from qemu.qmp.legacy import QEMUMonitorProtocol
qmp = QEMUMonitorProtocol(sys.argv[1])
qmp.connect()
print(qmp.cmd("query-status"))
print(qmp.cmd_obj({"execute": "nope"})["error"]["class"])
qmp.cmd("cont")
print([event["event"] for event in qmp.get_events(wait=True)])
qmp.close()
"""


async def test_qmp_client_of_qemu(rig: Rig) -> None:
    """qemu.qmp connects, negotiates, executes, gets errors by class and events."""
    client = QMPClient("test")
    await asyncio.wait_for(client.connect(rig.path), TIMEOUT_S)
    with client.listener("RESUME") as events:
        assert await client.execute("query-status") == {"status": "prelaunch", "running": False}
        assert await client.execute("cont") == {}
        assert (await asyncio.wait_for(events.get(), TIMEOUT_S))["event"] == "RESUME"
    with pytest.raises(ExecuteError) as refused:
        await client.execute("nope")
    assert refused.value.error.error.class_ == "CommandNotFound"
    await client.disconnect()


async def test_qmp_client_passes_a_descriptor(rig: Rig) -> None:
    """qemu.qmp sends a descriptor with a lone space; the next getfd finds it."""
    client = QMPClient("test")
    await client.connect(rig.path)
    read_end, write_end = os.pipe()
    client.send_fd_scm(read_end)
    os.close(read_end)

    assert await client.execute("getfd", {"fdname": "pipe"}) == {}

    mine = rig.hub.fds.take("pipe")
    os.write(write_end, b"x")
    assert os.read(mine, 1) == b"x"
    assert not os.get_inheritable(mine)
    os.close(mine)
    os.close(write_end)
    await client.disconnect()


async def test_legacy_client(rig: Rig) -> None:
    """The synchronous client of QEMU's scripts works as it is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEGACY, rig.path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0, err.decode()
    assert out.decode().splitlines() == [
        "{'running': False, 'status': 'prelaunch'}",
        "CommandNotFound",
        "['RESUME']",
    ]


@pytest.mark.parametrize(
    ("options", "typed", "expected"),
    [([], "query-status", '"running"'), (["-H"], "info status", "VM status: paused (prelaunch)")],
)
async def test_qmp_shell(rig: Rig, options: list[str], typed: str, expected: str) -> None:
    """qmp-shell, plain and -H, reads the command lists it needs and runs what is typed."""
    shell = str(Path(sys.executable).parent / "qmp-shell")
    process = await asyncio.create_subprocess_exec(
        shell, *options, rig.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(f"{typed}\n".encode()), 30)

    assert expected in out.decode()


@pytest.mark.parametrize("lone", [True, False])
async def test_descriptor_with_a_lone_space_or_with_the_command(rig: Rig, lone: bool) -> None:
    """SCM_RIGHTS counts wherever it came; without it the command says so."""
    loop = asyncio.get_running_loop()
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await loop.sock_connect(client, rig.path)
    await loop.sock_sendall(client, b'{"execute":"qmp_capabilities"}')
    command = b'{"execute":"add-fd","arguments":{"fdset-id":7,"opaque":"o"}}'
    null = os.open("/dev/null", os.O_RDONLY)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null]))]
    client.sendmsg([b" " if lone else command], rights)
    os.close(null)
    if lone:
        await loop.sock_sendall(client, command)
    await loop.sock_sendall(client, command)
    text = b""
    while text.count(b"\r\n") < 4:
        text += await asyncio.wait_for(loop.sock_recv(client, 65536), TIMEOUT_S)
    added, refused = [json.loads(line) for line in text.splitlines()[2:]]

    assert added["return"]["fdset-id"] == 7
    assert refused["error"]["desc"] == "No file descriptor supplied via SCM_RIGHTS"
    assert os.fstat(added["return"]["fd"]).st_rdev == os.stat("/dev/null").st_rdev
    client.close()


async def test_descriptors_of_a_client_that_leaves_are_closed(rig: Rig) -> None:
    """What no command asked for does not stay open."""
    read_end, write_end = os.pipe()
    client = socket.socket(socket.AF_UNIX)
    client.connect(rig.path)
    client.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write_end]))])
    os.close(write_end)
    client.close()

    got = await asyncio.wait_for(asyncio.to_thread(os.read, read_end, 1), TIMEOUT_S)  # ends when the last copy is gone
    os.close(read_end)
    assert got == b""


async def test_client_that_never_reads_is_bounded_and_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of a client that does not read its answers stop; others are served, and events cut it off."""
    monkeypatch.setattr(monitor, "BUSY_BYTES", 1 << 16)
    monkeypatch.setattr(monitor, "CUT_LEAST_BYTES", 1 << 17)
    monkeypatch.setattr(monitor, "CUT_TOTAL_BYTES", 1 << 18)
    stuck = await rig.negotiated()
    stuck.reader._transport.pause_reading()  # type: ignore[attr-defined]
    sent = asyncio.create_task(stuck.send(b'{"execute":"query-qmp-schema"}' * 20000))
    good = await rig.negotiated()
    for _ in range(200):
        assert "return" in await good.command("query-status")
    held = max(len(session._output) for session in rig.hub.sessions)
    assert held < (1 << 16) + 2 * len(rig.hub.registry.schema)

    for _ in range(3000):
        rig.machine.powerdown()
        assert (await good.message())["event"] == "POWERDOWN"
    await asyncio.sleep(0)
    assert len(rig.hub.sessions) == 1
    sent.cancel()


async def test_a_thousand_clients_that_come_stall_and_die(rig: Rig) -> None:
    """Clients that connect, send half a command and vanish leave nothing behind."""
    good = await rig.negotiated()
    gc.collect()  # what other tests left goes now, not while this one counts
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        sockets = []
        for number in range(100):
            each = socket.socket(socket.AF_UNIX)
            each.connect(rig.path)
            each.send((b'{"execute":"qmp_capabilities"}{"execute":"query-st', b'{"x', b"\xff", b"")[number % 4])
            sockets.append(each)
        while len(rig.hub.sessions) < 101:
            await asyncio.sleep(0)
        assert "return" in await good.command("query-status")
        for each in sockets:
            each.close()
        while len(rig.hub.sessions) > 1:
            await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_command_outlives_its_client(rig: Rig) -> None:
    """A command that runs when its client is killed runs to its end."""
    rig.machine.gate = asyncio.Event()
    client, other = await rig.negotiated(), await rig.negotiated()
    assert (await client.command("cont"))["event"] == "RESUME"
    await client.message()
    assert (await other.message())["event"] == "RESUME"
    await client.send(b'{"execute":"stop"}')
    assert "return" in await other.command("query-status")
    client.writer.transport.abort()
    rig.machine.gate.set()

    assert (await other.message())["event"] == "STOP"


async def test_large_request(rig: Rig) -> None:
    """A request of 4 MiB arrives whole."""
    client = await rig.negotiated()
    body = "x" * (4 << 20)

    reply = await client.ask(json.dumps({"execute": "query-status", "arguments": {"a": body}}).encode())

    assert reply["error"]["desc"] == "Parameter 'a' is unexpected"


async def test_quit_answers_before_the_end(rig: Rig) -> None:
    """SHUTDOWN, the answer, then the end of the stream."""
    client = await rig.negotiated()
    await client.send(b'{"execute":"quit"}')
    await rig.machine.ended
    rig.machine.chardevs.close()

    assert (await client.message())["event"] == "SHUTDOWN"
    assert await client.message() == {"return": {}}
    assert await client.at_end()


@pytest.mark.parametrize("mode", ["control", "readline"])
async def test_what_was_said_before_the_end_is_done(rig: Rig, mode: str) -> None:
    """A client that sends its commands and closes its sending side, as a pipe does, still gets every answer."""
    client = await rig.client(await rig.serve("pipe", mode))
    rig.machine.gate = asyncio.Event()
    if mode == "control":
        await client.send(b'{"execute":"qmp_capabilities"}{"execute":"stop"}' + b'{"execute":"query-status"}' * 200)
    else:
        await client.send(b"stop\n" + b"info status\n" * 200)
    client.writer.write_eof()
    await asyncio.sleep(0)
    rig.machine.gate.set()
    text = await asyncio.wait_for(client.reader.read(), TIMEOUT_S)

    assert text.count(b'"status": "prelaunch"' if mode == "control" else b"VM status: paused (prelaunch)") == 200


async def test_tool_that_listens_and_takes_one_connection(rig: Rig) -> None:
    """`-qmp unix:PATH` where a tool listens, as qmp-shell-wrap does: the first connection is the monitor's."""
    path = str(rig.folder / "tool")
    tool = QMPClient("tool")
    await tool.start_server(path)
    chardev = rig.machine.chardevs.add(SocketOptions(id="m", address=UnixAddress(path), listen_if_free=True))
    await chardev.open()
    rig.hub.attach(rig.machine.chardevs.claim("m"))

    await asyncio.wait_for(tool.accept(), TIMEOUT_S)
    assert await tool.execute("query-name") == {"name": "fake"}
    await tool.disconnect()
