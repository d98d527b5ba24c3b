"""Two Debian guests on a link that is impaired, captured and cut, and the ways from a guest to a server of the host.

    python examples/demo_network.py         # ends with a summary; as root also through a tap in a namespace of its own

The guests measure: ping before, during (20 ms and some jitter) and after, and what their carrier is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

import aioemu
from aioemu.images import PROMPT, debian_guest

LIMIT_S = 60.0
BOARDS = {"microvm": ("virtio_mmio", "virtio-net-device"), "q35": ("virtio_pci", "virtio-net-pci")}
DELAY_MS, JITTER_MS = 20.0, 2.0
PAGE = b"HTTP/1.0 200 OK\r\n\r\nhello from the host\n"
# the interface with this address, with an address of its own, up
UP = 'for i in /sys/class/net/*; do if grep -qi "$1" $i/address; then ln -sf $i /run/$3; ip addr add $2 dev ${i##*/}\n'
UP += "ip link set ${i##*/} up; echo ready; fi; done\n"
FETCH = r"until printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 $1 $2 2>/dev/null | grep hello; do :; done" + "\n"
NAMESPACE, TAP_HOST, TAP_GUEST = f"aioemu-demo-{os.getpid()}", "10.9.0.1", "10.9.0.2/24"


async def ask(vm: aioemu.Machine, command: str) -> str:
    """Type a command at the prompt; what it answers with."""
    await vm.console.send(f"{command}\n")
    answer = await vm.console.expect(rf"{re.escape(command)}\r\n(?P<answer>(.*\r\n)*?).*{PROMPT}", LIMIT_S)
    return answer["answer"].strip()


async def ping_ms(vm: aioemu.Machine) -> float:
    """The middle of some round trips to the other guest, as this one measures them."""
    answer = await ask(vm, "ping -c 10 -i 0.1 10.0.0.2")
    times = sorted(float(time) for time in re.findall(r"time=([0-9.]+)", answer))
    if len(times) != 10:
        raise SystemExit(f"ping: {answer}")
    return times[len(times) // 2]


async def serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of the host, for one request."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(PAGE)
    await writer.drain()
    writer.close()


@contextmanager
def tap_namespace() -> Iterator[Callable[[], None] | None]:
    """A namespace with a server in it, started by what this gives; None without the right to make one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield None
        return
    inside = ["ip", "netns", "exec", NAMESPACE]
    server: list[subprocess.Popen[bytes]] = []

    def start() -> None:  # once the machine has made the tap
        subprocess.run([*inside, "ip", "addr", "add", f"{TAP_HOST}/24", "dev", "demo0"], check=True)
        command = [*inside, sys.executable, "-m", "http.server", "80", "--bind", TAP_HOST, "--directory", folder]
        server.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "index.html").write_text("hello from the namespace\n")
            yield start
    finally:
        for each in server:
            each.kill()
            each.wait()
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


async def use_link(a: aioemu.Machine, link: aioemu.Link) -> list[str]:
    """Ping before, during and after; then cut it."""
    before = await ping_ms(a)
    await link.impair(delay_ms=DELAY_MS / 2, jitter_ms=JITTER_MS / 2)
    during = await ping_ms(a)
    await link.clear()
    after = await ping_ms(a)
    if not before < DELAY_MS - JITTER_MS < during or not after < during:
        raise SystemExit(f"the guest measured {before}, {during}, {after} ms")
    await link.down()
    down = await ask(a, "cat /run/lab/carrier")
    await link.up()
    up = await ask(a, "until grep 1 /run/lab/carrier; do :; done")
    if (down, up) != ("0", "1"):
        raise SystemExit(f"the guest saw carrier {down} when the link was down, and {up} afterwards")
    return [
        f"ping before, during and after      {before:.1f}, {during:.1f}, {after:.1f} ms",
        f"carrier, link down and up again    {down}, {up}",
    ]


def judge(path: Path) -> str:
    """What tshark, where there is one, finds in the capture."""
    if shutil.which("tshark") is None:
        return f"{path.stat().st_size} bytes of pcapng"
    command = ["tshark", "-n", "-r", path, "-Y", "icmp.type == 8", "-T", "fields", "-e", "frame.comment"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = found.splitlines()
    delayed = sum("delayed" in line for line in lines)
    if (len(lines), delayed) != (30, 10):
        raise SystemExit(f"tshark sees {len(lines)} pings, {delayed} of them delayed")
    return f"tshark sees {len(lines)} pings, {delayed} of them delayed"


async def demo(board: str, accel: str, folder: Path, start_tap: Callable[[], None] | None) -> list[str]:
    """Both guests, their link, and the host."""
    module, card = BOARDS[board]
    files = {"etc/up": UP, "etc/fetch": FETCH}
    guest = debian_guest(modules=[module, "virtio_net"], files=files)
    server = await asyncio.start_server(serve_page, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    common = {"machine": board, "accel": accel, "memory": "256M", "kernel": guest.kernel}
    common |= {"initrd": guest.initrd, "append": guest.append}
    netdevs, devices = ["user,id=u"], [card, f"{card},netdev=u"]
    if start_tap is not None:
        netdevs.append(f"tap,id=t,ifname=demo0,netns={NAMESPACE}")
        devices.append(f"{card},netdev=t")
    lines = []
    async with aioemu.Lab() as lab:
        a = lab.machine("a", ready=PROMPT, devices=devices, netdevs=netdevs, **common)
        b = lab.machine("b", ready=PROMPT, devices=[card], **common)
        link = lab.link(a.nic[0], b.nic[0], "a-b")
        await lab.start()
        async with lab.capture(folder / "link.pcapng", link):
            await ask(a, f"sh /etc/up {a.nic[0].mac} 10.0.0.1/24 lab")
            await ask(b, f"sh /etc/up {b.nic[0].mac} 10.0.0.2/24 lab")
            lines += await use_link(a, link)
        lines.append(f"the capture of the link             {judge(folder / 'link.pcapng')}")
        await ask(a, f"sh /etc/up {a.nic[1].mac} 10.0.2.15/24 user")
        lines.append(f"by user networking                 {await ask(a, f'sh /etc/fetch 10.0.2.2 {port}')}")
        if start_tap is not None:
            await ask(a, f"sh /etc/up {a.nic[2].mac} {TAP_GUEST} tap")
            start_tap()
            lines.append(f"by a tap in a namespace of its own {await ask(a, f'sh /etc/fetch {TAP_HOST} 80')}")
    server.close()
    return lines


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machine", default="microvm", choices=list(BOARDS), help="board")
    parser.add_argument("--accel", default="auto", help="kvm, tcg or auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aioemu-demo-") as folder, tap_namespace() as start_tap:
        lines = uvloop.run(demo(options.machine, options.accel, Path(folder), start_tap))
    print("\nnetwork")
    for line in lines:
        print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
