"""A machine with hardware KVM on any host: QEMU's software CPU emulates AMD's SVM, Debian's generic kernel runs in it.

One processor only: with several, QEMU 7.2 changes interrupt requests of one without regard for the others, and after
some minutes of guests the kernel inside hangs or breaks.

The host's root file system is below, read-only, with an overlay in memory: what runs inside sees this checkout and
every tool, and changes nothing. The program inside has the console as its output and a second serial port
($RIG_RESULTS) that brings lines to the host. Times inside mean nothing by themselves; ratios do.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from aioemu.images.debian import GENERIC, debian_kernel
from aioemu.images.initramfs import Initramfs

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "kvm-amd", "tun", "bridge", "veth")
SIGN_OF_LIFE_S = 90.0  # to process 1: 8 s on an idle host
TRIES = 3  # the software CPU's guest sometimes hangs in its clock's calibration
BEAT_S = 0.1
LINE_LIMIT = 1 << 22  # of one result
UP, STATUS = "rig-up", "rig-status"
APPEND = "console=ttyS0 panic=-1 quiet loglevel=3 mitigations=off tsc=reliable"
INIT = Path(__file__).with_name("init.sh")


class RigError(Exception):
    """The machine around the tests failed, not what is tested."""


def host_khz() -> int:
    """The host's clock rate: told to the kernel inside, which cannot calibrate a shared software CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return int(float(line.partition(":")[2]) * 1000)
    return 1_000_000


class Rig:
    """`with Rig(command) as rig: for line in rig.results(): ...`; `exit_status` is the command's, once it has ended."""

    def __init__(self, command: Sequence[str], *, memory_mib: int = 2048, limit_s: float = 900) -> None:
        self.command = list(command)
        self.memory_mib = memory_mib
        self.limit_s = limit_s
        self.exit_status: int | None = None
        self.console = bytearray()
        self._folder = tempfile.TemporaryDirectory(prefix="aioemu-rig-")
        self._process: subprocess.Popen[bytes] | None = None
        self._results: socket.socket | None = None
        self._stopped = threading.Event()
        self._lines: TextIO | None = None

    def __enter__(self) -> Self:
        initrd = self._initrd(Path(self._folder.name) / "initrd")
        try:
            for _ in range(TRIES):
                if self._start(initrd):
                    return self
                self._stop()
            raise RigError(f"no sign of life in {TRIES} tries; its console:\n{self.tail()}")
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the machine, whatever runs in it."""
        self._stop()
        self._folder.cleanup()

    def kill(self) -> None:
        """End the machine from another thread than the one that reads its results, which gets a RigError."""
        if self._process is not None:
            self._process.kill()

    def results(self) -> Iterator[str]:
        """Lines that the command wrote to $RIG_RESULTS until it ends; RigError when none comes in time."""
        assert self._lines is not None
        while True:
            try:
                line = self._lines.readline(LINE_LIMIT)
            except TimeoutError:
                raise RigError(f"nothing for {self.limit_s} s; its console:\n{self.tail()}") from None
            if not line:
                raise RigError(f"the machine ended by itself; its console:\n{self.tail()}")
            word, _, rest = line.strip().partition(" ")
            if word == STATUS:
                self.exit_status = int(rest)
                return
            yield line.strip()

    def tail(self, size: int = 4000) -> str:
        """The end of the machine's console: kernel and command."""
        return self.console[-size:].decode(errors="replace")

    def _initrd(self, path: Path) -> Path:
        image = Initramfs(debian_kernel(GENERIC)).add_modules(MODULES).init(INIT.read_text())
        environment = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "TERM": "dumb", "AIOEMU_RIG": "1"}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        image.add_file(
            "rig/go", "\n".join([*exports, f"cd {shlex.quote(str(Path.cwd()))}", shlex.join(self.command), ""])
        )
        return image.write(path)

    def _start(self, initrd: Path) -> bool:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*self._qemu(initrd), "-chardev", f"socket,id=results,fd={theirs.fileno()}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
            )
        self.console.clear()
        self._stopped = threading.Event()
        self._results = ours
        threading.Thread(target=self._read_console, args=(self._process,), daemon=True).start()
        ours.settimeout(SIGN_OF_LIFE_S)
        self._lines = ours.makefile("r", encoding="utf-8", errors="replace", newline="\n")
        try:
            is_up = self._lines.readline(LINE_LIMIT).strip() == UP
        except TimeoutError:
            return False
        ours.settimeout(self.limit_s)
        threading.Thread(target=self._beat, args=(ours,), daemon=True).start()
        return is_up

    def _qemu(self, initrd: Path) -> list[str]:
        kernel = debian_kernel(GENERIC)
        return [
            "qemu-system-x86_64",
            *("-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1"),
            *("-m", str(self.memory_mib), "-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(kernel.vmlinuz), "-initrd", str(initrd)),
            *("-append", f"{APPEND} tsc_early_khz={host_khz()}"),
            *("-serial", "stdio", "-serial", "chardev:results"),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        ]

    def _beat(self, results: socket.socket) -> None:
        """Interrupt the processor inside now and then: QEMU 7.2 may forget that its timer's interrupt is pending."""
        while not self._stopped.wait(BEAT_S):
            try:
                results.send(b".")
            except OSError:
                return

    def _read_console(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as console:
            while data := os.read(console.fileno(), 65536):
                self.console += data

    def _stop(self) -> None:
        self._stopped.set()
        for end in (self._lines, self._results):
            if end is not None:
                end.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def run_inside(command: Sequence[str], **options: Any) -> list[dict[str, Any]]:
    """Run a command in a machine of its own; the JSON lines it gave. RigError when it failed."""
    with Rig(command, **options) as rig:
        lines = [json.loads(line) for line in rig.results()]
        if rig.exit_status:
            raise RigError(f"{shlex.join(command)}: exit status {rig.exit_status}; its console:\n{rig.tail()}")
    return lines
