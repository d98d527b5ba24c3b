"""The host's own processor through /dev/kvm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from aioemu._core import ffi, lib
from aioemu.accel.base import ChipNeeds
from aioemu.accel.cpuid import Leaf
from aioemu.errors import AccelError

DEVICE = "/dev/kvm"
MAX_LEAVES = 256  # KVM_MAX_CPUID_ENTRIES
NATIVE_RATE = 50_000_000  # instructions/s: an interpreter does 2 M, a nested machine under emulation 170 M and more


class Kvm:
    """An open /dev/kvm. AccelError says what keeps this process from it."""

    name = "kvm"

    def __init__(self, device: str = DEVICE) -> None:
        self.device = device
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as exc:
            raise AccelError(f"{device} does not exist: the kvm modules are not loaded, or the host has none") from exc
        except OSError as exc:
            raise AccelError(f"{device}: {exc.strerror}: join the group that may use it (often `kvm`)") from exc

    def attach(self, machine: Any, needs: ChipNeeds) -> None:
        flags = int(lib.CORE_KVM_IRQCHIP) | (int(lib.CORE_KVM_PIT) if needs.pit else 0)
        rc = lib.core_kvm_attach(machine, self._fd, flags)
        if rc < 0:
            raise AccelError(f"{self.device}: no virtual machine: {os.strerror(-rc)}")

    def supported(self) -> Sequence[Leaf]:
        entries = ffi.new("core_cpuid[]", MAX_LEAVES)
        count = lib.core_kvm_supported_cpuid(self._fd, entries, MAX_LEAVES)
        if count < 0:
            raise AccelError(f"{self.device}: KVM_GET_SUPPORTED_CPUID: {os.strerror(-count)}")
        return [Leaf(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx) for e in entries[0:count]]

    def ring0_rate(self) -> int:
        """Guest kernel instructions per second, measured; 0 when the measuring machine does not run."""
        return max(0, int(lib.core_kvm_ring0_rate(self._fd)))

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION: 0 = this host does not have it."""
        return max(0, int(lib.core_kvm_check(self._fd, capability)))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
