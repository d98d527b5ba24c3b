"""Core files of the guest: what is in them, where they can go, and that debuggers open them."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.accel.tcg import find_engine
from aioemu.api import Machine
from aioemu.errors import MonitorError
from tests.guests.build import payload

PT_LOAD = 1


@pytest.fixture
async def vm() -> AsyncIterator[Machine]:
    """8 MiB of memory with a few bytes in it; no processor runs."""
    async with Machine(machine="none", accel="qtest", memory=8 << 20) as machine:
        machine.write_memory(0x1000, b"here I am")
        machine.write_memory((8 << 20) - 4, b"last")
        yield machine


def segments(core: bytes) -> list[tuple[int, int, int, int]]:
    """Type, offset, physical address and size of each."""
    count = struct.unpack_from("<H", core, 56)[0]
    rows = (struct.unpack_from("<IIQQQQQQ", core, 64 + 56 * n) for n in range(count))
    return [(kind, offset, paddr, size) for kind, _, offset, _, paddr, size, _, _ in rows]


async def test_memory_is_where_the_headers_say(vm: Machine, tmp_path: Path) -> None:
    """Physical addresses lead to the bytes; what was never written is a hole in the file."""
    await vm.qmp("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/core")
    core = (tmp_path / "core").read_bytes()
    [load] = [each for each in segments(core) if each[0] == PT_LOAD]
    assert load[2:] == (0, 8 << 20)
    assert core[load[1] + 0x1000 :].startswith(b"here I am")
    assert core.endswith(b"last")
    assert (tmp_path / "core").stat().st_blocks * 512 < 4 << 20

    result = {"status": "completed", "completed": 8 << 20, "total": 8 << 20}
    assert await vm.qmp("query-dump") == result
    [event] = [each for each in vm.events.history if each.name == "DUMP_COMPLETED"]
    assert event.fields == {"result": result}


async def test_a_part_into_a_pipe(vm: Machine) -> None:
    """begin and length choose, fd:NAME is a descriptor that was passed, and a pipe gets every byte."""
    reader, writer = os.pipe()
    await vm.qmp("query-name")
    assert vm._hub is not None
    vm._hub.fds.keep("pipe", writer)
    done = asyncio.ensure_future(
        vm.qmp("dump-guest-memory", paging=False, protocol="fd:pipe", begin=0x1000, length=0x200000)
    )
    with os.fdopen(reader, "rb") as pipe:
        core = await asyncio.to_thread(pipe.read)
    await done
    [load] = [each for each in segments(core) if each[0] == PT_LOAD]

    assert load[2:] == (0x1000, 0x200000)
    assert core[load[1] :].startswith(b"here I am")
    assert len(core) == load[1] + load[3]


async def test_detached_and_one_at_a_time(vm: Machine, tmp_path: Path) -> None:
    """With detach the answer comes at once; a second dump has to wait; the end is an event."""
    os.mkfifo(tmp_path / "slow")
    reader = os.open(tmp_path / "slow", os.O_RDONLY | os.O_NONBLOCK)
    ended = asyncio.ensure_future(vm.events.wait("DUMP_COMPLETED", 20))
    await vm.qmp("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/slow", detach=True)
    assert (await vm.qmp("query-dump"))["status"] == "active"
    with pytest.raises(MonitorError, match=r"There is a dump in process, please wait\."):
        await vm.qmp("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/other")
    os.close(reader)  # nobody will read it
    event = await ended

    fields: dict[str, Any] = dict(event.fields)
    assert fields["result"]["status"] == "failed"
    assert "Broken pipe" in fields["error"]
    await vm.qmp("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paging": True}, "paging"),
        ({"begin": 0}, "Parameter 'length' is missing"),
        ({"length": 1}, "Parameter 'begin' is missing"),
        ({"begin": 1 << 40, "length": 1}, "no guest memory to dump"),
        ({"begin": 0, "length": -1}, "Invalid parameter 'length'"),
        ({"protocol": "tcp:x"}, "parameter 'protocol' must start with 'file:' or 'fd:'"),
        ({"protocol": "file:/nonexistent/x"}, "Could not create '/nonexistent/x': No such file"),
        ({"protocol": "fd:none"}, "File descriptor named 'none' has not been found"),
        ({"format": "kdump-zlib"}, "Parameter 'format' does not accept value 'kdump-zlib'"),
    ],
)
async def test_what_cannot_be_is_said(vm: Machine, tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    """The error names it, nothing is under way afterwards, no descriptor is left."""
    gc.collect()  # what other tests left goes now, not while this one counts
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MonitorError, match=message):
        await vm.qmp("dump-guest-memory", **{"paging": False, "protocol": f"file:{tmp_path}/core", **arguments})

    assert os.listdir("/proc/self/fd") == before
    assert await vm.qmp("query-dump") == {"status": "none", "completed": 0, "total": 0}


@pytest.mark.skipif(find_engine() is None, reason="needs the CPU engine")
@pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb")
async def test_gdb_opens_it(tmp_path: Path) -> None:
    """gdb finds a thread for each processor, its registers, and memory by physical address; the guest goes on."""
    async with Machine(
        machine="microvm", accel="tcg", memory=64 << 20, kernel=str(payload()), append="echo", smp=2
    ) as vm:
        vm.write_memory(0x10000, b"found")
        await vm.qmp("dump-guest-memory", paging=False, protocol=f"file:{tmp_path}/core")
        names = [each.name for each in vm.events.history]
        assert names[names.index("STOP") :] == ["STOP", "DUMP_COMPLETED", "RESUME"]
        assert vm.state.value == "running"
        await vm.pause()
    script = ["-ex", f"core-file {tmp_path}/core", "-ex", "info threads", "-ex", "p $rip", "-ex", "x/s 0x10000"]
    gdb = await asyncio.create_subprocess_exec("gdb", "-nx", "-batch", *script, stdout=asyncio.subprocess.PIPE)
    output = (await gdb.communicate())[0].decode()

    assert output.count("LWP") >= 2
    assert '"found"' in output
    assert "$1 = (void (*)()) 0x" in output
