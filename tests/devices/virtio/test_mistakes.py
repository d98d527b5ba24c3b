"""What `-device` refuses of disks, ports, balloons and cards is what QEMU refuses, with its reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from aioemu.cli.command_line import read_command_line
from aioemu.errors import ConfigError
from aioemu.machine.machine import Machine

QEMU = shutil.which("qemu-system-x86_64")
DISKS = """num-queues=0 num-queues=1024 queue-size=3 queue-size=2 queue-size=2048 queue-size=1024 queue-size=1
    queue-size=2,seg-max-adjust=off max-discard-sectors=0 max-discard-sectors=4194304 max-write-zeroes-sectors=0
    cyls=100000,heads=16,secs=63 cyls=100,heads=16 cyls=1,heads=300,secs=1 cyls=1,heads=1,secs=1 heads=1
    discard_granularity=100 discard_granularity=4294967295 min_io_size=100 opt_io_size=100 logical_block_size=4096
    logical_block_size=4096,physical_block_size=4096 rerror=enospc
    report-discard-granularity=off,discard_granularity=4096 write-cache=off config-wce=off bootindex=0""".split()
CARDS = """tx=timer tx=bh x-txtimer=1 x-txburst=-1 gso=off rss=off hash=off failover=off guest_rsc_ext=off host_mtu=1400
    mq=on,vectors=6 ctrl_vq=off,mq=on speed=-1 speed=1000,duplex=full tx_queue_size=512 packed=on romfile= bogus=1
    mq=maybe tx_queue_size=x""".split()
DEVICES = [
    "virtio-serial-pci virtserialport,nr=31",
    "virtio-serial-pci virtserialport,nr=1,name=a virtserialport,nr=1,name=b",
    "virtio-serial-pci virtserialport,name=a virtserialport,name=a",
    "virtio-serial-pci virtserialport,name=a virtserialport,name=b virtserialport virtserialport",
    "virtio-serial-pci,max_ports=1 virtserialport",
    "virtio-serial-pci,max_ports=1 virtconsole",
    "virtio-balloon-pci virtio-balloon-pci",
    "virtio-rng-device",
]
CASES = [*(f"virtio-blk-pci,drive=d,{case}" for case in DISKS), *(f"virtio-net-pci,{case}" for case in CARDS), *DEVICES]


@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
@pytest.mark.parametrize("case", CASES)
async def test_devices_are_refused_as_qemu_refuses_them(tmp_path: Path, case: str) -> None:
    """The same are taken; of others the last line says the same."""
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))
    words = ["-M", "q35", "-accel", "tcg", "-nodefaults", "-S", "-drive", f"file={image},format=raw,if=none,id=d"]
    for device in case.split():
        words += ["-device", device]
    assert QEMU is not None
    command = [QEMU, *words, "-display", "none", "-qmp", "stdio"]
    leave = '{"execute":"qmp_capabilities"}{"execute":"quit"}'
    done = subprocess.run(command, input=leave, capture_output=True, text=True, timeout=60, check=False)
    theirs = [line for line in done.stderr.splitlines() if line.startswith("qemu-system")] if done.returncode else []
    ours = ""
    machine = Machine(read_command_line([*words[:2], "-accel", "qtest", *words[4:]])[0])
    try:
        await machine.open()
    except ConfigError as exc:
        ours = str(exc)
    finally:
        machine.close()
    assert bool(ours) == bool(theirs), f"ours: {ours}\nQEMU's: {theirs}"
    if theirs:
        assert theirs[0].partition(": ")[2].partition(": ")[2] in ours
