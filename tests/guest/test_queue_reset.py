"""Debian's kernel gives its network card's rings other sizes while they are in use: it resets each queue by itself."""

from __future__ import annotations

import pytest

from aioemu.api import Machine
from aioemu.cli.command_line import read_command_line
from aioemu.images import PROMPT, debian_guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]
LIMIT_S = 90.0
RING = r"""
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    struct ethtool_ringparam ring = {.cmd = ETHTOOL_SRINGPARAM};
    struct ifreq request = {.ifr_data = (void *)&ring};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc != 3 || fd < 0) {
        return 2;
    }
    strcpy(request.ifr_name, argv[1]);
    ring.rx_pending = ring.tx_pending = (unsigned)atoi(argv[2]);
    if (ioctl(fd, SIOCETHTOOL, &request) < 0) {
        perror("set");
        return 1;
    }
    ring.cmd = ETHTOOL_GRINGPARAM;
    ioctl(fd, SIOCETHTOOL, &request);
    printf("ring-%u-%u\n", ring.rx_pending, ring.tx_pending);
    return 0;
}
"""
RC = """ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ping -c 2 -W 2 10.0.2.2 >/dev/null;
(ping -A -c 200 10.0.2.2 >/dev/null) & for i in 64 128 32 256 64; do ring eth0 $i; done; wait;
ping -c 5 -i 0.1 -W 2 -s 1000 10.0.2.2 | grep -o ' 0% packet loss'; echo ended""".replace("\n", " ")


@pytest.mark.parametrize("packed", ["off", "on"])
@pytest.mark.parametrize("thread", ["", ",iothread=io0"], ids=["reactor", "iothread"])
async def test_rings_change_their_size_in_use(packed: str, thread: str) -> None:
    """ethtool -G with packets under way: the rings have the new size, and packets come and go."""
    guest = debian_guest(modules=["virtio_pci", "virtio_net"], programs={"ring": RING})
    config = read_command_line(["-netdev", "user,id=n0", "-object", "iothread,id=io0"])[0]
    async with Machine(
        config,
        machine="q35",
        accel="tcg",
        memory="256M",
        kernel=guest.vmlinux,
        initrd=guest.initrd,
        append=guest.append,
        devices=[f"virtio-net-pci,netdev=n0,packed={packed}{thread}"],
    ) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        await vm.console.send(RC + "\n")
        await vm.console.expect("^ended", LIMIT_S)
        text = vm.console.text
    assert [size for size in (64, 128, 32, 256) if f"ring-{size}-{size}\r\n" in text] == [64, 128, 32, 256]
    assert "\n 0% packet loss" in text
