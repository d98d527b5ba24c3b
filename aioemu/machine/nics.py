"""A machine's network: its back ends by id, its cards, and who is joined to whom.

Back ends are opened before the devices, so that a card finds its own; each card's work and its back end's are done in
one io context. `vm.nic` are the cards in the order they were made. Not here: what back ends do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioemu.config.blame import blaming
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError
from aioemu.log import Log
from aioemu.machine.nic_options import NicPlan, plan_nics

if TYPE_CHECKING:
    from aioemu.chardev import Chardevs
    from aioemu.config import DeviceOptions, MachineConfig, OptionGroup
    from aioemu.devices.virtio.net import VirtioNet
    from aioemu.machine.native import Native
    from aioemu.netdev.port import Port, PortStats
    from aioemu.netdev.registry import Netdev

FindFd = Callable[[str], int]


class BackEnd(Struct):
    """One `-netdev`: its options as given, and who uses it."""

    id: str
    kind: str
    values: Mapping[str, Any]
    netdev: Netdev
    nic: Nic | None = None


class Nic:
    """One card of a machine; `port` is its end of the wire."""

    def __init__(self, name: str, model: str, card: VirtioNet, io: Any) -> None:
        from aioemu.netdev.port import Port

        self.name = name
        self.model = model
        self.card = card
        self.io = io  # the context that its work is done in
        self.port: Port = Port(card.port, card, owned=False)
        self.back_end: BackEnd | None = None
        self.tells_filter = True  # of the next change of what its driver wants to receive

    @property
    def mac(self) -> str:
        """The address that its driver receives by."""
        return ":".join(f"{byte:02x}" for byte in self.card.mac)

    @property
    def queues(self) -> int:
        """Queue pairs that the driver uses."""
        return self.card.pairs

    @property
    def link_up(self) -> bool:
        """What the driver sees of its link."""
        return self.card.link_up

    def set_link(self, up: bool) -> None:
        """Plug the cable in or out: the driver sees it when this returns."""
        self.port.set_up(up)
        self.card.refresh_link()

    @property
    def stats(self) -> PortStats:
        """Frames and bytes both ways, and what was lost, by reason."""
        return self.port.stats


class Nics:
    """The network of one machine."""

    def __init__(self, log: Log, chardevs: Chardevs, find_fd: FindFd) -> None:
        self.back_ends: dict[str, BackEnd] = {}
        self.cards: list[Nic] = []
        self._gone: list[Nic] = []
        self._log = log
        self._chardevs = chardevs
        self._find_fd = find_fd
        self._hubs: dict[int, Any] = {}
        self._plan = NicPlan()
        self._native: Native | None = None

    async def open(self, config: MachineConfig, native: Native) -> None:
        """Open the back ends of a configuration; the cards that it asks for are `devices`."""
        self._native = native
        self._plan = plan_nics(config)
        for group in self._plan.netdevs:
            named = {} if (group.id or "#").startswith("#") else {"id": group.id}
            with blaming("-netdev" if named else "-nic", group.type, {**named, **group.values}):
                await self.add(group)

    def devices(self) -> tuple[DeviceOptions, ...]:
        """The cards that `-nic` and `-net` ask for."""
        return self._plan.devices

    async def add(self, group: OptionGroup) -> BackEnd:
        """Open one more back end. ConfigError or HostError, and nothing is left of it."""
        from aioemu.netdev.registry import NetContext, open_netdev

        name, kind = group.id or "", group.type or ""
        if name in self.back_ends:
            raise ConfigError(f"Duplicate ID '{name}' for netdev", "-netdev")
        from aioemu.machine.net_chardevs import chardev_opener

        open_chardev = chardev_opener(self._chardevs)
        context = NetContext(
            name, self._log.to("net"), self._reactor_io, self._find_fd, open_chardev, self._find_port, self._hubs
        )
        netdev = await open_netdev(kind, group.values, context)
        if name in self.back_ends:
            netdev.close()
            raise ConfigError(f"Duplicate ID '{name}' for netdev", "-netdev")
        self.back_ends[name] = BackEnd(name, kind, group.values, netdev)
        return self.back_ends[name]

    def remove(self, name: str) -> None:
        """Close a back end; a card on it stays, without a link."""
        back_end = self.find(name)
        del self.back_ends[name]
        self._part(back_end)
        back_end.netdev.close()

    def find(self, name: str) -> BackEnd:
        """A back end by its id."""
        if name not in self.back_ends:
            raise ConfigError(f"Device '{name}' not found{did_you_mean(name, self.back_ends)}")
        return self.back_ends[name]

    def queues_of(self, netdev: str | None) -> int:
        """How many pairs of queues a back end has room for."""
        if netdev is None:
            return 1
        if netdev not in self.back_ends:
            raise ConfigError(f"Property 'netdev' can't find value '{netdev}'", "-device")
        return int(getattr(self.back_ends[netdev].netdev, "queues", 1))

    def default_mac(self) -> bytes:
        """The first address of QEMU's range that no card here has."""
        taken = {nic.card.power_on_mac for nic in self.cards}
        macs = (bytes((0x52, 0x54, 0x00, 0x12, 0x34, n)) for n in range(0x56, 0x100))
        mac = next((mac for mac in macs if mac not in taken), None)
        if mac is None:
            raise ConfigError("no default MAC address is left: give mac=", "-device")
        return mac

    def add_card(self, nic: Nic, netdev: str | None) -> None:
        """A card was made; join it to its back end."""
        if netdev is not None:
            back_end = self.back_ends[netdev]
            if back_end.nic is not None or back_end.netdev.port.peer is not None:  # a hub's, maybe
                raise ConfigError(f"Property 'netdev' can't take value '{netdev}', it's in use", "-device")
            back_end.netdev.port.drive(nic.io)
            nic.port.join(back_end.netdev.port)
            nic.back_end, back_end.nic = back_end, nic
        nic.card.on_filter = lambda: self._filter_changed(nic)
        self.cards.append(nic)

    def remove_card(self, nic: Nic) -> None:
        """A card goes; its back end is free again."""
        self.cards.remove(nic)
        if nic.back_end is not None:
            self._part(nic.back_end)
        nic.port.close()
        self._gone.append(nic)

    def let_go(self, nic: Nic) -> None:
        """A card that went is on no bus any more: nobody rings its bells, so they go too."""
        self._gone.remove(nic)
        nic.card.shut()

    def set_link(self, name: str, up: bool) -> None:
        """By the name of a card or of a back end (set_link)."""
        nic = next((nic for nic in self.cards if nic.name == name), None)
        if nic is not None:
            nic.set_link(up)
        elif name in self.back_ends:
            self.back_ends[name].netdev.port.set_up(up)
        else:
            raise ConfigError(f"Device '{name}' not found")

    def hold(self, on: bool) -> None:
        """The machine stands still, or goes on."""
        for nic in self.cards:
            nic.card.hold(on)
        for back_end in self.back_ends.values():
            if (hold := getattr(back_end.netdev, "hold", None)) is not None:
                hold(on)

    def close(self) -> None:
        """Close every back end, the last first, and what cards hold of the host."""
        while self.back_ends:
            self.remove(next(reversed(self.back_ends)))
        for nic in self._gone:
            nic.card.shut()
        self._gone.clear()

    def _part(self, back_end: BackEnd) -> None:
        back_end.netdev.port.part()
        if back_end.nic is not None:
            back_end.nic.back_end, back_end.nic = None, None
            back_end.netdev.port.drive(self._reactor_io())

    def _filter_changed(self, nic: Nic) -> None:
        """Told once, until somebody asks what it is now: a driver may change it as often as it likes."""
        if nic.tells_filter:
            nic.tells_filter = False
            path = f"/machine/peripheral/{nic.name}/virtio-backend"
            self._log.event("NIC_RX_FILTER_CHANGED", name=nic.name, path=path)

    def _find_port(self, name: str) -> Port | None:
        found = self.back_ends.get(name)
        return found.netdev.port if found is not None else None

    def _reactor_io(self) -> Any:
        assert self._native is not None
        return self._native.io.ptr
