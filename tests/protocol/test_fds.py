"""Descriptors that clients or a launcher pass are what /dev/fdset/N and fd= open."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.config import AccelOptions, MachineConfig, MachineOptions, OptionGroup
from aioemu.core.fds import FdTable
from aioemu.errors import MonitorError
from aioemu.protocol.monitor import Caller


@pytest.fixture
async def vm() -> AsyncIterator[Machine]:
    config = MachineConfig(machine=MachineOptions("none"), accel=(AccelOptions("qtest"),))
    async with Machine.from_config(config) as machine:
        yield machine


class Passing:
    """A caller that passed one descriptor along."""

    def __init__(self, hub: Any, fd: int) -> None:
        self.hub, self.fd = hub, fd

    def take_fd(self) -> int:
        return self.fd

    def negotiate(self, enable: Any) -> None:
        raise NotImplementedError


async def call(vm: Machine, name: str, fd: int, **arguments: Any) -> Any:
    await vm.qmp("query-name")  # there is a hub now
    hub = vm._hub
    assert hub is not None
    caller: Caller = Passing(hub, fd)
    return hub.registry.commands[name].call(vm.machine, caller, arguments)


async def test_a_file_chardev_writes_to_a_set(vm: Machine, tmp_path: Path) -> None:
    """chardev-add of /dev/fdset/N takes the descriptor for writing, not the one for reading, and a copy of it."""
    path = tmp_path / "log"
    path.write_text("before\n")
    await call(vm, "add-fd", os.open(path, os.O_RDONLY), **{"fdset-id": 4})
    await call(vm, "add-fd", os.open(path, os.O_WRONLY), **{"fdset-id": 4, "opaque": "log"})
    backend = {"type": "file", "data": {"out": "/dev/fdset/4", "append": True}}
    await vm.qmp("chardev-add", id="c", backend=backend)
    await vm.qmp("remove-fd", fdset_id=4)
    vm.machine.chardevs.get("c").write(b"after\n")

    assert path.read_text() == "before\nafter\n"
    assert await vm.qmp("query-fdsets") == []


async def test_a_logfile_in_a_set(vm: Machine, tmp_path: Path) -> None:
    """logfile= takes a descriptor that was passed: who manages the machine owns the file, as libvirt's log daemon."""
    path = tmp_path / "log"
    path.write_text("before ")
    await call(vm, "add-fd", os.open(path, os.O_WRONLY | os.O_APPEND), **{"fdset-id": 1})
    data = {"logfile": "/dev/fdset/1", "logappend": True}
    await vm.qmp("chardev-add", id="c", backend={"type": "null", "data": data})
    chardev = vm.machine.chardevs.claim("c")
    chardev.write(b"and after")

    assert path.read_text() == "before and after"
    vm.machine.chardevs.release(chardev)
    await vm.qmp("chardev-remove", id="c")


async def test_what_is_in_no_set_is_refused(vm: Machine, tmp_path: Path) -> None:
    """No such set, and a set without a descriptor for that kind of access, are errors as of a file."""
    await call(vm, "add-fd", os.open(tmp_path, os.O_RDONLY), **{"fdset-id": 0})
    for number, why in ((0, "Permission denied"), (1, "No such file"), ("x", "No such file")):
        backend = {"type": "file", "data": {"out": f"/dev/fdset/{number}"}}
        with pytest.raises(MonitorError, match=why):
            await vm.qmp("chardev-add", id="c", backend=backend)


async def test_a_socket_chardev_takes_a_named_descriptor(vm: Machine) -> None:
    """getfd keeps a socket under a name, chardev-add with fd=NAME takes it: it is gone from the table then."""
    ours, theirs = socket.socketpair()
    await call(vm, "getfd", theirs.detach(), fdname="mon")
    backend = {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "mon"}}, "server": False}}
    await vm.qmp("chardev-add", id="c", backend=backend)
    vm.machine.chardevs.get("c").write(b"hello")
    assert ours.recv(10) == b"hello"
    ours.close()

    with pytest.raises(MonitorError, match="File descriptor named 'mon' not found"):
        await vm.qmp("closefd", fdname="mon")


async def test_descriptors_of_the_command_line(tmp_path: Path) -> None:
    """-add-fd puts a copy into a set: query-fdsets shows it, and closing the machine leaves ours open."""
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    group = OptionGroup("add-fd", None, None, {"fd": fd, "set": 2, "opaque": "o"})
    config = MachineConfig(machine=MachineOptions("none"), accel=(AccelOptions("qtest"),), groups=(group,))
    async with Machine.from_config(config) as vm:
        [found] = await vm.qmp("query-fdsets")
        assert found["fdset-id"] == 2
        assert [each["opaque"] for each in found["fds"]] == ["o"]

    os.write(fd, b"still open")
    os.close(fd)


def test_flags_are_taken_on(tmp_path: Path) -> None:
    """A copy appends and truncates as it is asked to."""
    table = FdTable()
    path = tmp_path / "x"
    path.write_text("12345")
    table.add(os.open(path, os.O_RDWR), 0, None)
    appending = table.open("/dev/fdset/0", os.O_RDWR | os.O_APPEND)
    os.write(appending, b"6")
    assert path.read_text() == "123456"
    os.close(table.open("/dev/fdset/0", os.O_RDWR | os.O_TRUNC))
    assert path.read_text() == ""
    os.close(appending)
    table.close()
