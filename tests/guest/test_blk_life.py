"""Disks that fail, grow, come and go while Debian uses them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.config import MachineConfig, OptionGroup
from aioemu.images import PROMPT, debian_guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

LIMIT_S = 90.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(16 << 20))
    return path


def machine(node: dict[str, Any], devices: list[str]) -> Machine:
    """A q35 with a node and these devices, at a shell."""
    guest = debian_guest(modules=["virtio_pci", "virtio_blk"])
    driver = node.pop("driver")
    return Machine(
        MachineConfig(
            blockdevs=(OptionGroup("blockdev", driver, None, {"node-name": "n", **node}),),
            objects=(OptionGroup("object", "iothread", "io0", {}),),
        ),
        machine="q35",
        accel="tcg",
        memory="256M",
        kernel=guest.vmlinux,
        initrd=guest.initrd,
        append=guest.append,
        devices=devices,
    )


def raw(image: Path) -> dict[str, Any]:
    return {"driver": "raw", "file": {"driver": "file", "filename": str(image)}}


async def test_a_full_disk_stops_the_machine_until_cont(image: Path) -> None:
    """werror=enospc: BLOCK_IO_ERROR, then STOP with io-error; after cont the write is done and the guest never knew."""
    fault = {"iotype": "write", "errno": 28, "times": 1}
    node = {"driver": "blkdebug", "image": {"driver": "file", "filename": str(image)}, "aioemu-faults": [fault]}
    async with machine(node, ["virtio-blk-pci,drive=n,werror=enospc,id=d"]) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        await vm.console.send("printf 'so%.0s' 1 2 3 4 | dd of=/dev/vda conv=fsync 2>&1; echo ended $?\n")
        await vm.events.wait("STOP", LIMIT_S)
        status = await vm.qmp("query-status")
        assert status["status"] == "io-error"
        [error] = [event for event in vm.events.history if event.name == "BLOCK_IO_ERROR"]
        assert (error.fields["action"], error.fields["operation"], error.fields["nospace"]) == ("stop", "write", True)
        await vm.qmp("cont")
        await vm.console.expect("ended 0", LIMIT_S)
    assert image.read_bytes()[:8] == b"sosososo"


async def test_a_disk_grows(image: Path) -> None:
    """block_resize reaches the guest, which may use the new sectors at once."""
    async with machine(raw(image), ["virtio-blk-pci,drive=n,id=d,iothread=io0"]) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        await vm.qmp("block_resize", **{"node-name": "n", "size": 32 << 20})
        await vm.console.send("until grep -q 65536 /sys/block/vda/size; do sleep 0.1; done; echo grown\n")
        await vm.console.expect("^grown", LIMIT_S)
        await vm.console.send("printf end | dd of=/dev/vda bs=1M seek=31 conv=fsync 2>/dev/null; echo written\n")
        await vm.console.expect("^written", LIMIT_S)
    assert image.read_bytes()[31 << 20 :][:3] == b"end"


async def test_a_disk_comes_and_goes_while_it_is_read(image: Path) -> None:
    """device_add, a reader at work, device_del: the guest gets errors, nothing hangs, and the node is free again."""
    async with machine(raw(image), ["pcie-root-port,id=p,slot=1"]) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        for _ in range(2):
            await vm.qmp("device_add", driver="virtio-blk-pci", id="d", bus="p", drive="n", iothread="io0")
            await vm.console.send("until [ -b /dev/vd? ]; do sleep 0.1; done; echo there\n")
            await vm.console.expect("^there", LIMIT_S)
            await vm.console.send(
                "(while dd if=$(ls /dev/vd?) of=/dev/null iflag=direct bs=4k 2>/dev/null; do :; done) &\n"
            )
            await vm.console.expect(PROMPT, LIMIT_S)
            await vm.unplug("d", timeout=120)
            await vm.console.send("until [ ! -b /dev/vd? ]; do sleep 0.1; done; echo gone\n")
            await vm.console.expect("^gone", LIMIT_S)
        assert not vm.machine.drives.unnamed
        await asyncio.sleep(0)
