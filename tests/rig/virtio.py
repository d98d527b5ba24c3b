"""Virtio devices under stock Linux on hardware KVM: doorbells by eventfd, interrupts by the kernel's own controllers.

Each case is a coroutine over one machine, on both boards (virtio-pci and virtio-mmio), with split and packed rings.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from aioemu.config import ConsoleOptions, MachineConfig, OptionGroup
from tests.rig.guests import ANSWER_S, Files, ask, booted, power_off

Case = Callable[[Files], Awaitable[None]]

MODULES = ("virtio_pci virtio_mmio virtio_blk virtio_net virtio-rng virtio_console virtio_balloon ext4").split()
TRANSPORTS = {"q35": "pci", "microvm": "device"}
RINGS = {"split": "packed=off", "packed": "packed=on"}
SIZE = 64 << 20
NUMBERS = itertools.count(1)
MKFS = "mke2fs {0} >/dev/null && mkdir -p /m && mount -t ext4 {0} /m"
FILL = "for i in 1 2 3 4; do head -c 3000000 /dev/urandom >/m/$i & done; wait; md5sum /m/? >/sums"
AGAIN = "umount /m && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 {} /m && md5sum -c -s /sums && umount /m"
LOAD = (
    "(while dd if={0} of=/dev/null bs=4k iflag=direct 2>/dev/null; do :; done) & "
    "(while dd if=/dev/zero of={0} bs=64k count=100 oflag=direct 2>/dev/null; do :; done) & sleep 1"
)


def drive(path: Path, form: str) -> OptionGroup:
    return OptionGroup("drive", None, "d", {"file": str(path), "format": form, "if": "none", "discard": "unmap"})


IOTHREAD = OptionGroup("object", "iothread", "io0", {})


async def image(folder: str, form: str) -> Path:
    """An empty disk."""
    path = Path(folder) / f"disk.{form}"
    if form == "qcow2":
        from aioemu.blockdev.qcow2.create import create_image

        await create_image(str(path), SIZE)
    else:
        path.touch()
        os.truncate(path, SIZE)
    return path


async def virtio_disk(files: Files, board: str, ring: str, queues: int, form: str) -> None:
    """A file system is made, filled by four writers, and whole after its caches are gone; discards reach the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = await image(folder, form)
        device = f"virtio-blk-{TRANSPORTS[board]},drive=d,num-queues={queues},{RINGS[ring]}"
        config = MachineConfig(drives=(drive(path, form),), objects=(IOTHREAD,))
        devices = [device + (",iothread=io0" if queues > 1 else "")]
        async with files.machine(board, config=config, virtio=True, smp=queues, devices=devices) as vm:
            await booted(vm)
            assert await ask(vm, "ls /sys/block/vda/mq | wc -l") == str(queues)
            for command in (MKFS.format("/dev/vda"), FILL, AGAIN.format("/dev/vda")):
                await ask(vm, command)
            await ask(vm, "head -c 1000000 /dev/urandom >/x; dd if=/x of=/dev/vda bs=1M conv=fsync")
            digest = (await ask(vm, "md5sum </x")).split()[0]
            if form == "raw":
                assert hashlib.md5(path.read_bytes()[:1000000]).hexdigest() == digest
            await ask(vm, "blkdiscard /dev/vda; sync")
            assert (await ask(vm, "head -c 1000000 /dev/vda | tr -d '\\0' | wc -c")) == "0"
            await power_off(vm)
        assert path.stat().st_blocks * 512 < SIZE // 16


async def virtio_disk_reset(files: Files, board: str, ring: str, thread: bool) -> None:
    """A machine that resets while its disk is read and written comes up again and finds the disk whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = await image(folder, "raw")
        devices = [f"virtio-blk-{TRANSPORTS[board]},drive=d,{RINGS[ring]}" + (",iothread=io0" if thread else "")]
        config = MachineConfig(drives=(drive(path, "raw"),), objects=(IOTHREAD,))
        async with files.machine(board, config=config, virtio=True, devices=devices) as vm:
            await booted(vm)
            for _ in range(2):
                await ask(vm, LOAD.format("/dev/vda"))
                await vm.console.send("echo b >/proc/sysrq-trigger\n")
                await booted(vm)
            await ask(vm, MKFS.format("/dev/vda"))
            await power_off(vm)


async def virtio_disk_unplug(files: Files, ring: str) -> None:
    """A disk that is read and written goes when it is told to, twice, and the machine goes on."""
    with tempfile.TemporaryDirectory() as folder:
        path = await image(folder, "raw")
        node = OptionGroup(
            "blockdev", "raw", None, {"node-name": "n", "file": {"driver": "file", "filename": str(path)}}
        )
        config = MachineConfig(blockdevs=(node,), objects=(IOTHREAD,))
        async with files.machine("q35", config=config, virtio=True, devices=["pcie-root-port,id=p,slot=1"]) as vm:
            await booted(vm)
            for extra in ({"iothread": "io0"}, {}):
                packed = "on" if ring == "packed" else "off"
                await vm.qmp("device_add", driver="virtio-blk-pci", id="d", bus="p", drive="n", packed=packed, **extra)
                await ask(vm, "until [ -b /dev/vd? ]; do sleep 0.1; done")
                await ask(vm, LOAD.format("$(ls /dev/vd?)"))
                await vm.unplug("d", timeout=ANSWER_S)
                await ask(vm, "until [ ! -b /dev/vd? ]; do sleep 0.1; done; wait")
            await vm.console.send("poweroff -f\n")
            await vm.wait()


async def virtio_small(files: Files, board: str, ring: str) -> None:
    """Entropy, two ports of a console and a balloon work at once."""
    transport = TRANSPORTS[board]
    names = ("console", "c0", "c1")
    config = MachineConfig(chardevs=tuple(ConsoleOptions(id=name) for name in names), serials=("console",))
    devices = [
        f"virtio-rng-{transport},{RINGS[ring]}",
        f"virtio-serial-{transport},{RINGS[ring]}",
        "virtconsole,chardev=c0",
        "virtserialport,chardev=c1,name=org.test",
        f"virtio-balloon-{transport},id=b,free-page-reporting=on,{RINGS[ring]}",
    ]
    async with files.machine(board, config=config, virtio=True, devices=devices) as vm:
        await booted(vm)
        assert await ask(vm, "dd if=/dev/hwrng bs=4096 count=16 2>/dev/null | wc -c") == "65536"
        console, port = (vm.machine.chardevs.get(name).console for name in ("c0", "c1"))  # type: ignore[attr-defined]
        await ask(vm, "until [ -c /dev/vport?p1 ]; do sleep 0.1; done")
        await ask(vm, "exec 3<>$(ls /dev/vport?p1); echo hello >&3; echo on-hvc >/dev/hvc0")
        await port.expect("hello", ANSWER_S)
        await console.expect("on-hvc", ANSWER_S)
        await port.send("from the host\n")
        assert await ask(vm, "read x <&3; echo $x") == "from the host"
        await ask(vm, "head -c 300000 /dev/zero | tr '\\0' z >&3")
        await port.expect("z{300000}", ANSWER_S)
        for target in (128 << 20, 256 << 20):
            vm.machine.site.devices["b"].set_target(target)
            while vm.machine.site.devices["b"].actual_bytes != target:
                await vm.events.wait("BALLOON_CHANGE", ANSWER_S)
        await power_off(vm)


async def virtio_net_user(files: Files, board: str, ring: str) -> None:
    """An address by DHCP, and pings to the gateway."""
    devices = [f"virtio-net-{TRANSPORTS[board]},netdev=n0,{RINGS[ring]}"]
    async with files.machine(board, virtio=True, netdevs=["user,id=n0"], devices=devices) as vm:
        await booted(vm)
        await ask(vm, "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0")
        assert "5 packets received" in await ask(vm, "ping -c 5 -i 0.2 10.0.2.2")
        await power_off(vm)


async def virtio_net_tap(files: Files, board: str, ring: str, queues: int, thread: bool) -> None:
    """Small and fragmented packets pass over a TAP device of the host."""
    number = next(NUMBERS)
    tap, host, guest = f"rig{number}", f"10.9.{number}.1", f"10.9.{number}.2"
    mq = ",mq=on" if queues > 1 else ""
    devices = [f"virtio-net-{TRANSPORTS[board]},netdev=n0,{RINGS[ring]}{mq}" + (",iothread=io0" if thread else "")]
    netdev = f"tap,id=n0,ifname={tap},script=no,downscript=no,queues={queues}"
    config = MachineConfig(objects=(IOTHREAD,))
    async with files.machine(board, config=config, virtio=True, smp=queues, netdevs=[netdev], devices=devices) as vm:
        await booted(vm)
        for command in (f"ip addr add {host}/24 dev {tap}", f"ip link set {tap} up"):
            subprocess.run(command.split(), check=True)
        await ask(vm, f"ip link set eth0 up; ip addr add {guest}/24 dev eth0")
        assert "5 packets received" in await ask(vm, f"ping -c 5 -i 0.2 {host}")
        assert "3 packets received" in await ask(vm, f"ping -c 3 -s 20000 -i 0.2 {host}")
        assert vm.nic[0].queues == queues
        await power_off(vm)


def table() -> dict[str, Case]:
    """Every case by its name."""
    cases: dict[str, Case] = {}
    for board, ring, (queues, form) in itertools.product(TRANSPORTS, RINGS, ((1, "raw"), (4, "qcow2"))):
        name = f"virtio_disk-{board}-{ring}-{form}-{queues}"
        cases[name] = partial(virtio_disk, board=board, ring=ring, queues=queues, form=form)
    for board, (ring, thread) in itertools.product(TRANSPORTS, (("split", True), ("packed", False))):
        where = "iothread" if thread else "reactor"
        name = f"virtio_disk_reset-{board}-{ring}-{where}"
        cases[name] = partial(virtio_disk_reset, board=board, ring=ring, thread=thread)
        for queues in (1, 4):
            name = f"virtio_net_tap-{board}-{ring}-{queues}-{where}"
            cases[name] = partial(virtio_net_tap, board=board, ring=ring, queues=queues, thread=thread)
    for board, ring in itertools.product(TRANSPORTS, RINGS):
        cases[f"virtio_small-{board}-{ring}"] = partial(virtio_small, board=board, ring=ring)
        cases[f"virtio_net_user-{board}-{ring}"] = partial(virtio_net_user, board=board, ring=ring)
    return cases | {f"virtio_disk_unplug-{ring}": partial(virtio_disk_unplug, ring=ring) for ring in RINGS}
