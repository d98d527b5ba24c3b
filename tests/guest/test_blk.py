"""Debian's kernel drives virtio-blk: both transports, split and packed, one and four queues, on a thread or not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from aioemu.api import Machine
from aioemu.config import MachineConfig, OptionGroup, Smp
from aioemu.images import debian_guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

LIMIT_S = 90.0
SIZE = 64 << 20
TRANSPORTS = {"microvm": ("device", "virtio_mmio"), "q35": ("pci", "virtio_pci")}
RC = """
cat /sys/block/vda/size /sys/block/vda/serial; echo; ls -d /sys/block/vda/mq/* | wc -l
md5sum </dev/vda
dd if=/dev/urandom of=/tmp/x bs=1M count=4 2>/dev/null
dd if=/tmp/x of=/dev/vda bs=64k seek=16 oflag=direct 2>/dev/null
for i in 1 2 3 4; do dd if=/dev/vda of=/dev/null bs=4k count=2000 skip=$((i * 1000)) iflag=direct 2>/dev/null & done
wait
sync; md5sum </tmp/x
blkdiscard -o 33554432 -l 1048576 /dev/vda
"""


@pytest.mark.parametrize("board", list(TRANSPORTS))
@pytest.mark.parametrize("ring", ["packed=off", "packed=on", "event_idx=off,indirect_desc=off"])
@pytest.mark.parametrize(("queues", "thread"), [(1, False), (4, True)], ids=["one-reactor", "four-iothread"])
async def test_linux_reads_and_writes(tmp_path: Path, board: str, ring: str, queues: int, thread: bool) -> None:
    """What is on the disk is what Linux reads, and what it writes is on the disk, whichever way the rings are."""
    image = tmp_path / "disk"
    image.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
    before = hashlib.md5(image.read_bytes()).hexdigest()
    transport, module = TRANSPORTS[board]
    guest = debian_guest(modules=[module, "virtio_blk"], rc=RC)
    device = f"virtio-blk-{transport},drive=d,serial=S3RIAL,num-queues={queues},{ring}"
    config = MachineConfig(
        drives=(
            OptionGroup("drive", None, "d", {"file": str(image), "format": "raw", "if": "none", "discard": "unmap"}),
        ),
        objects=(OptionGroup("object", "iothread", "io0", {}),) if thread else (),
        smp=Smp(cpus=queues, sockets=queues, maxcpus=queues),
    )
    async with Machine(
        config,
        machine=board,
        accel="tcg",
        memory="256M",
        kernel=guest.vmlinux,
        initrd=guest.initrd,
        append=guest.append,
        devices=[device + (",iothread=io0" if thread else "")],
    ) as vm:
        await asyncio.wait_for(vm.wait(), LIMIT_S)
        text = vm.console.text
    lines = text.split()
    assert lines[lines.index("S3RIAL") - 1 :][:3] == [str(SIZE // 512), "S3RIAL", str(queues)]
    assert before in text
    after = image.read_bytes()
    assert hashlib.md5(after[1 << 20 : 5 << 20]).hexdigest() in text
    assert after[32 << 20 : 33 << 20] == bytes(1 << 20)
