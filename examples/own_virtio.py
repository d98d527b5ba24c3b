"""A virtio device of your own: an entropy source whose dice are loaded, to see what a guest does with bad luck.

    python examples/own_virtio.py

Linux's own driver finds it. The device is a coroutine: it takes requests from its queue, fills them, gives them back.
"""

from __future__ import annotations

import asyncio

import aioemu
from aioemu.images import PROMPT, debian_guest


class LoadedDice(aioemu.VirtioDevice):
    """virtio-rng that gives the same byte for ever."""

    device_id = 4

    def __init__(self, byte: int) -> None:
        super().__init__(queue_sizes=[8])
        self.byte = byte

    async def run(self) -> None:
        """From when the device is plugged in until the machine is closed."""
        async for chain in self.queues[0]:
            chain.write(bytes([self.byte]) * min(chain.room, 4096))
            chain.complete()


async def main() -> None:
    """Boot Debian's kernel and read the bytes there."""
    guest = debian_guest(modules=["virtio_mmio", "virtio-rng"])
    keywords = {"kernel": guest.vmlinux, "initrd": guest.initrd, "append": guest.append}
    vm = aioemu.Machine(machine="microvm", accel="tcg", memory="256M", **keywords)
    vm.plug(LoadedDice(0x2A))
    async with vm:
        await vm.console.expect(PROMPT, 60)
        await vm.console.send('head -c 4 /dev/hwrng | hexdump -e \'"rolled" 4/1 " %02x" "\\n"\'\n')
        print((await vm.console.expect(r"^rolled( \w\w){4}", 10)).group())


if __name__ == "__main__":
    asyncio.run(main())
