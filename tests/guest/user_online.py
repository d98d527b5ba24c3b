"""A guest behind user networking, in the mount and network namespaces of this process: prints what it saw as JSON.

Run by tests/guest/test_user.py under `unshare`: the only network is the loopback, and the name server is here.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
from pathlib import Path

from aioemu.api import Machine
from aioemu.config import OptionGroup
from aioemu.images import PROMPT, debian_guest

LIMIT_S = 60.0
LEASE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "nameserver $dns" >/etc/resolv.conf
echo "leased $ip/$mask via $router dns $dns host $hostname"
"""
ANSWER = "192.0.2.77"
UPLOAD_BYTES = 3_000_000


class NameServer(asyncio.DatagramProtocol):
    """Every name is at ANSWER (RFC 1035, 4.1); other questions have no answer."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        is_a = data[end - 4 : end - 2] == b"\0\1"
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(ANSWER)
        self.transport.sendto(head + data[12:end] + (record if is_a else b""), addr)


async def ask(vm: Machine, command: str) -> str:
    """What a command at the guest's prompt prints."""
    await vm.console.send(f"{command}; echo through-$((40+2))\n")
    found = await vm.console.expect(r"(?P<answer>(?s:.*?))through-42\r\n", LIMIT_S)
    return re.sub(r".*\$\(\(40\+2\)\)\s*", "", found["answer"], flags=re.DOTALL)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take so much, and say so."""
    sent = await reader.readexactly(UPLOAD_BYTES)
    writer.write(f"{len(sent)} bytes of {sent[0]}\n".encode())
    writer.close()


async def main(folder: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 53))
    server = await asyncio.start_server(serve, "127.0.0.1", 8000)
    image = debian_guest(
        ["virtio_mmio", "virtio_net"], rc="ip link set eth0 up", shell=True, files={"root/lease": LEASE}
    )
    async with Machine(
        machine="microvm",
        accel="tcg",
        memory="256M",
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.append,
        netdevs=["user,id=n0,hostname=box,hostfwd=tcp:127.0.0.1:8022-:22"],
        objects=(OptionGroup("object", "filter-dump", "d0", {"netdev": "n0", "file": f"{folder}/guest.pcap"}),),
        devices=["virtio-net-device,netdev=n0"],
    ) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        seen = {"lease": await ask(vm, "chmod +x lease; udhcpc -q -n -i eth0 -s ./lease 2>&1 | grep leased")}
        seen["name"] = await ask(vm, "nslookup any.example 2>&1")
        seen["upload"] = await ask(vm, f"head -c {UPLOAD_BYTES} /dev/zero | nc 10.0.2.2 8000")
        seen["ping"] = await ask(vm, "ping -c 2 -s 3000 10.0.2.2 | grep received")
        await vm.console.send("echo 'SSH-2.0-guest' | nc -l -p 22 & sleep 0.2; echo ready\n")
        await vm.console.expect(r"\nready", LIMIT_S)
        reader, writer = await asyncio.open_connection("127.0.0.1", 8022)
        seen["forwarded"] = (await asyncio.wait_for(reader.readline(), LIMIT_S)).decode()
        writer.close()
        seen["usernet"] = await vm.qmp("human-monitor-command", command_line="info usernet")
        seen["removed"] = await vm.qmp("human-monitor-command", command_line="hostfwd_remove tcp:127.0.0.1:8022")
    server.close()
    Path(folder, "seen").write_text(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
