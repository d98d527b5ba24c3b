"""The standard guest boots where another machine runs it (QEMU's software CPU), to the prompt and to power off.

The clock is given on the command line because QEMU's microvm has nothing to calibrate against.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aioemu.images import FIRST_LINE, PROMPT, GuestImage, bench_program, debian_guest

QEMU = "qemu-system-x86_64"
BOOT_LIMIT_S = 60.0
CLOCK = " tsc=reliable tsc_early_khz=2000000"
OPTIONS = "-accel tcg -cpu max -m 256 -nodefaults -no-reboot -display none -serial stdio".split()

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason="needs qemu-system-x86 as the other machine"),
]


class Console:
    """The guest's serial console: all that it printed, and what is typed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.input, self.output = process, process.stdin, process.stdout
        self.text = ""
        self.seen = 0

    async def expect(self, pattern: str) -> re.Match[str]:
        """Wait for (pattern) behind the last match."""
        while (match := re.compile(pattern).search(self.text, self.seen)) is None:
            try:
                data = await asyncio.wait_for(self.output.read(4096), BOOT_LIMIT_S)
            except TimeoutError:
                data = b""
            assert data, f"no {pattern!r}: {self.text[-2000:]}"
            self.text += data.decode(errors="replace").replace("\r", "")
        self.seen = match.end()
        return match

    async def rest(self) -> str:
        """Wait for the machine's end; everything it printed."""
        self.text += (
            (await asyncio.wait_for(self.output.read(), BOOT_LIMIT_S)).decode(errors="replace").replace("\r", "")
        )
        assert await self.process.wait() == 0
        return self.text


@asynccontextmanager
async def booted(image: GuestImage, machine: str, *options: str, bzimage: bool = False) -> AsyncIterator[Console]:
    kernel = image.kernel if bzimage else image.vmlinux
    boot = ["-kernel", str(kernel), "-initrd", str(image.initrd), "-append", image.append + CLOCK]
    command = [QEMU, "-M", machine, *OPTIONS, *boot, *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        yield Console(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture(scope="session")
def build() -> Callable[..., GuestImage]:
    """debian_guest, on the user's own cache: the packages are fetched once, not for each session."""
    return debian_guest


@pytest.mark.parametrize("machine", ["microvm", "q35"])
@pytest.mark.parametrize("bzimage", [False, True], ids=["vmlinux", "bzImage"])
async def test_the_prompt_works(build: Callable[..., GuestImage], machine: str, bzimage: bool) -> None:
    """First line, prompt, a command's output, and `exit` ends in power off, from both forms of the kernel."""
    async with booted(build(), machine, bzimage=bzimage) as console:
        first = await console.expect(rf"{FIRST_LINE}(\d+\.\d+)\n")
        await console.expect(PROMPT)
        console.input.write(b"echo $((6 * 7)) $0\n")
        await console.expect(r"\n42 sh\n")
        console.input.write(b"exit\n")
        text = await console.rest()

    assert float(first[1]) > 0
    assert "failed" not in text
    assert "Kernel panic" not in text


async def test_modules_are_loaded_before_the_commands(build: Callable[..., GuestImage]) -> None:
    """Listed modules and what they need are there when /etc/rc runs; then the guest powers off."""
    image = build(
        ["virtio_net", "virtio_blk"], "lsmod\ncat /root/note\necho rc-done\n", files={"root/note": "a note\n"}
    )
    async with booted(image, "microvm") as console:
        text = await console.rest()
    loaded = {line.split()[0] for line in text.splitlines() if line[:1].isalpha()}

    assert {"virtio_net", "virtio_blk", "virtio_ring", "virtio", "net_failover", "button"} <= loaded
    assert "a note\nrc-done\n" in text
    assert PROMPT not in text


@pytest.mark.parametrize("machine", ["microvm", "q35"])
async def test_the_power_button_powers_off(build: Callable[..., GuestImage], machine: str, tmp_path: Path) -> None:
    """The host's system_powerdown reaches acpid through the button's input device."""
    socket = tmp_path / "qmp"
    async with booted(build(), machine, "-qmp", f"unix:{socket},server=on,wait=off") as console:
        await console.expect(PROMPT)
        _, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b'{"execute": "qmp_capabilities"} {"execute": "system_powerdown"}\n')
        text = await console.rest()
        writer.close()

    assert "Power down" in text


async def test_the_bench_program_runs(build: Callable[..., GuestImage]) -> None:
    """Each bench prints its line; the digest is that of the bytes it names, and no call is stale."""
    image = build((), "bench all\n", programs={"bench": bench_program()})
    async with booted(image, "microvm") as console:
        text = await console.rest()
    results = {record["bench"]: record for record in map(json.loads, re.findall(r"^{.*}$", text, re.MULTILINE))}

    assert set(results) == {"getppid", "fault", "fork", "pipe", "memcpy", "sha256", "usleep", "jit", "jit-alias"}
    assert all(record["ns_per_op"] > 0 for record in results.values())
    assert results["sha256"]["digest"] == hashlib.sha256(bytes(results["sha256"]["ops"])).hexdigest()
    assert results["jit"]["stale"] == results["jit-alias"]["stale"] == 0
