"""What a machine shows of itself: processors, devices, the bus, as the monitor and a test ask for it.

Nothing here changes the machine but what is said to: a key, an NMI, a device that comes or goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from aioemu.machine import inspect, trees
from aioemu.machine.hotplug import HotPlug

if TYPE_CHECKING:
    from aioemu.config import MachineConfig
    from aioemu.devices.rtc import Rtc
    from aioemu.devices.virtio.balloon import VirtioBalloon
    from aioemu.log import Log
    from aioemu.machine.dump import Dumper
    from aioemu.machine.keys import Typist
    from aioemu.machine.kit import Kit
    from aioemu.machine.machine import Machine
    from aioemu.machine.native import Native
    from aioemu.machine.nics import Nics
    from aioemu.machine.onboard import OnBoard
    from aioemu.machine.paging import Walk
    from aioemu.machine.site import Site
    from aioemu.memory.guest import GuestMemory
    from aioemu.netdev.user import UserNetdev


class Views:
    """The part of a machine that looks; the machine itself has the attributes."""

    config: MachineConfig
    native: Native
    memory: GuestMemory
    kit: Kit
    site: Site
    log: Log
    nics: Nics
    _dumper: Dumper | None = None

    @property
    def vcpus(self) -> list[inspect.Vcpu]:
        return inspect.list_vcpus(self.native, self.config.smp)

    @property
    def virtual(self) -> inspect.VirtualMemory:
        return inspect.VirtualMemory(self.native, self.memory)

    @property
    def keyboard(self) -> Typist | None:
        """Who presses the keys, where there is a keyboard."""
        found: Typist | None = self.kit.chips.get("i8042-keys")
        return found

    @property
    def rtc(self) -> Rtc | None:
        """The clock chip, where there is one."""
        found: Rtc | None = self.kit.chips.get("rtc")
        return found

    def onboard(self) -> list[OnBoard]:
        """What the board has without being asked."""
        from aioemu.machine.onboard import list_parts  # few ask

        return list_parts(self.site, self.native.vcpu_count)

    def watch_rtc(self) -> None:
        """Tell when the guest sets its clock."""

        def tell(offset_s: int) -> None:
            from aioemu.machine.onboard import rtc_path

            path = rtc_path(self.site, self.native.vcpu_count)
            self.log.event("RTC_CHANGE", offset=offset_s, qom_path=path)

        if self.rtc is not None:
            self.rtc.on_change = tell

    @property
    def devices(self) -> HotPlug:
        """What adds and removes devices while the guest runs."""
        return HotPlug(self.site, self.log.event)

    @property
    def dumper(self) -> Dumper:
        """What writes core files of the guest."""
        if self._dumper is None:
            from aioemu.machine.dump import Dumper  # few are ever asked for

            self._dumper = Dumper(cast("Machine", self))
        return self._dumper

    @property
    def user_networks(self) -> dict[str, UserNetdev]:
        """The networks behind a NAT, by the ids of their back ends."""
        found = self.nics.back_ends.values()
        return {each.id: cast("UserNetdev", each.netdev) for each in found if each.kind == "user"}

    def find_balloon(self) -> VirtioBalloon | None:
        """The first balloon device."""
        found = (device for device in self.site.devices.values() if hasattr(device, "actual_bytes"))
        return next(found, None)

    def registers(self, vcpu: int) -> str:
        """A vCPU's registers as text; while it stands still."""
        return inspect.registers_text(self.native, vcpu)

    def page_walk(self, vcpu: int) -> Walk:
        """What a vCPU's page tables map; while it stands still."""
        from aioemu.machine.paging import Walk  # few ask

        return Walk(self.memory.read, self.native.registers(vcpu))

    def qtree(self) -> str:
        """Every device, by the bus it is on, as text."""
        return trees.device_text(self.site)

    def pci_report(self) -> str:
        """Every PCI function as the guest has set it up, as text."""
        return trees.pci_text(self.site)

    def pci_places(self) -> list[trees.PciPlace]:
        """Every PCI function as the guest has set it up."""
        return trees.pci_places(self.site)

    def mtree(self) -> str:
        """What is where on the bus, as text."""
        return inspect.bus_text(self.native.router.regions, self.memory)

    def qtest_lines(self, path: str, outputs: bool) -> Callable[[], list[bool]] | None:
        """What reads the inputs of the controller at `path` for a test; None where there is nothing to watch."""
        if outputs or path.rpartition("/")[2] != "ioapic":
            return None
        return lambda: inspect.line_levels(self.kit.sources)

    def inject_nmi(self) -> None:
        """A non-maskable interrupt for every processor."""
        inspect.inject_nmi(self.native)
