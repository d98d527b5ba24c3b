"""Disks that fail, grow, come and go while Debian uses them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.blockdev.qcow2.create import create_image
from aioemu.config import MachineConfig, OptionGroup
from aioemu.images import PROMPT, debian_guest
from aioemu.log import Event

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

LIMIT_S = 90.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(16 << 20))
    return path


def machine(node: dict[str, Any], devices: list[str], modules: tuple[str, ...] = ()) -> Machine:
    """A q35 with a node and these devices, at a shell."""
    guest = debian_guest(modules=["virtio_pci", "virtio_blk", *modules])
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


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for three MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3M", "aioemu-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user cannot mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


FILL = """mke2fs /dev/vda >/dev/null && mkdir -p /m && mount -t ext4 /dev/vda /m &&
for i in 1 2 3 4 5; do head -c 2000000 /dev/urandom >/m/$i || exit; done; md5sum /m/? >/sums && umount /m &&
echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 /dev/vda /m && md5sum -c -s /sums && umount /m &&
! dmesg | grep -i "i/o error" && echo all-there"""


@pytest.mark.parametrize(("form", "iothread"), [("raw", ""), ("qcow2", ",iothread=io0")])
async def test_a_host_without_room_loses_nothing(small: Path, form: str, iothread: str) -> None:
    """A guest fills a disk on a host that is full again and again: each time it stands still, and goes on when there is
    room; it never hears of an error, and every byte is there."""
    image = small / "disk"
    if form == "raw":
        image.touch()
        os.truncate(image, 64 << 20)
    else:
        await create_image(str(image), 64 << 20)
    node = {"driver": form, "file": {"driver": "file", "filename": str(image)}}
    async with machine(node, [f"virtio-blk-pci,drive=n,werror=enospc{iothread}"], modules=("ext4",)) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        told: asyncio.Queue[Event] = asyncio.Queue()
        vm.events.subscribe(lambda event: told.put_nowait(event) if event.name == "STOP" else None)
        await vm.console.send(FILL.replace("\n", " ").replace("all-there", "all-$((1))-there") + "\n")
        done = asyncio.ensure_future(vm.console.expect("all-1-there", LIMIT_S))
        stops = 0
        while not done.done():
            stopped = asyncio.ensure_future(told.get())
            await asyncio.wait([done, stopped], return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                stops += 1
                assert (await vm.qmp("query-status"))["status"] == "io-error"
                assert (await vm.qmp("query-block"))[0]["io-status"] == "nospace"
                size = f"remount,size={3 + 5 * stops}M"
                subprocess.run(["mount", "-o", size, str(small)], check=True)
                await vm.qmp("cont")
            else:
                stopped.cancel()
        await done
        assert stops >= 2


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
