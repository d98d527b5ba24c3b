"""Stock Debian guests for the rig's cases: boot to the prompt, ask the shell, look for the kernel's complaints."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from aioemu.api import ExitStatus, Machine
from aioemu.config import MachineConfig
from aioemu.images import FIRST_LINE, PROMPT
from aioemu.machine.runstate import Cause

BOOT_S = 150.0  # a boot takes 5 s on an idle host's rig
ANSWER_S = 60.0
MEMORY = "256M"
TROUBLE = re.compile(r"WARNING:|BUG:|Oops|cut here|stall|lockup|hung task|nobody cared|ACPI.*Error|mce:.*error", re.I)
# The rig's software CPU reads XCR0 for the guest without asking KVM; QEMU's guests print the same there.
RIGS_OWN = re.compile(
    r"XSAVE consistency problem|arch/x86/kernel/fpu/xstate\.c:\d+ (fpu__init_system_xstate|get_xsave_compacted_size)"
)


@dataclass(frozen=True)
class Files:
    """The guest image's files, built outside."""

    kernel: str
    vmlinux: str
    initrd: str
    append: str
    virtio_initrd: str  # with the modules of virtio devices

    def machine(
        self,
        board: str,
        *,
        config: MachineConfig | None = None,
        image: str = "vmlinux",
        quiet: bool = True,
        virtio: bool = False,
        **keywords: Any,
    ) -> Machine:
        """A machine that will boot this guest on hardware KVM."""
        return Machine(
            config,
            machine=board,
            accel="kvm",
            memory=MEMORY,
            kernel=self.vmlinux if image == "vmlinux" else self.kernel,
            initrd=self.virtio_initrd if virtio else self.initrd,
            append=self.append if quiet else self.append.replace("quiet", ""),
            **keywords,
        )


async def booted(vm: Machine) -> None:
    """Wait for the next boot's prompt."""
    await vm.console.expect(f"(?s){FIRST_LINE}.*?{PROMPT}", BOOT_S)


async def ask(vm: Machine, command: str) -> str:
    """What a shell command in the guest printed; fails when the command did."""
    await vm.console.send(f'{command}; echo "=$?"=\n')
    said = await vm.console.expect(rf"(?s)\"=\r?\n(.*?)=(\d+)=\r?\n.*?{PROMPT}", ANSWER_S)
    assert said[2] == "0", f"{command}: status {said[2]}: {said[1]}"
    return said[1].replace("\r", "").strip()


async def uptime(vm: Machine) -> float:
    """The guest's uptime in seconds."""
    return float((await ask(vm, "cat /proc/uptime")).split()[0])


async def complaints(vm: Machine) -> list[str]:
    """What the guest's kernel complained of, without what is the rig's own."""
    lines = (await ask(vm, "dmesg")).splitlines()
    found = [line for line in lines if TROUBLE.search(line) and not RIGS_OWN.search(line)]
    expected = sum("XSAVE consistency problem" in line for line in lines)
    cut = [line for line in found if "cut here" in line]
    return [line for line in found if "cut here" not in line] + cut[expected:]


async def ends(vm: Machine) -> ExitStatus:
    """Wait until the guest has ended the machine."""
    return await asyncio.wait_for(vm.wait(), ANSWER_S)


async def power_off(vm: Machine) -> None:
    """Check that the kernel is content, then have it power the machine off."""
    assert await complaints(vm) == []
    await vm.console.send("poweroff -f\n")
    assert (await ends(vm)).cause is Cause.GUEST_SHUTDOWN
