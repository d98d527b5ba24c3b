"""The root of PCI: ports 0xcf8..0xcff and ECAM, served in C (`core/pcihost.c`), and the tree of buses behind them.

Only registers with hooks come here (command, BARs, bus numbers, MSI control). The port 0xcf9 in the middle of the
address register belongs to the reset control, which is asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer
from aioemu.bus.registers import RegisterBlock, access
from aioemu.bus.state import Bytes, State, parse_fields
from aioemu.bus.wires import IrqLine, MsiSink, NotConnected
from aioemu.devices.native import load_chip, save_chip
from aioemu.devices.pci.bars import BarMapper
from aioemu.devices.pci.bridge import Bridge
from aioemu.devices.pci.bus import PciBus
from aioemu.devices.pci.function import PciFunction
from aioemu.errors import EmuError, StateError

CONFIG_PORTS, PORTS = 0xCF8, 8
BUS_BYTES = 1 << 20  # of ECAM
MAX_BUSES = 256
RESET_OFFSET = 1  # of port 0xcf9
NOT_A_FUNCTION = (1 << 32) - 1


class Ecam:
    """Configuration space in memory, a mebibyte a bus: place it at the address that MCFG names."""

    def __init__(self, host: PciHost, buses: int) -> None:
        self.host = host
        self.size = buses * BUS_BYTES
        self.chip = ffi.gc(lib.core_pci_ecam_new(host.chip), lib.core_chip_free)
        if self.chip == ffi.NULL:
            raise EmuError("PCI: out of memory")

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        return self.host.configure(reg, offset, size, is_write, value)


class PciHost:
    """The host bridge's inside: place it at port 0xcf8, and `ecam` in memory. `root` is bus 0.

    `intx(n)` gives a new source of the root's interrupt line n (0..3): device d's pin p (0 is INTA#) is (d + p) % 4.
    """

    size = PORTS

    def __init__(
        self,
        mapper: BarMapper,
        msi: MsiSink | None = None,
        intx: Callable[[int], IrqLine] | None = None,
        reset_control: RegisterBlock | None = None,
        buses: int = MAX_BUSES,
    ) -> None:
        self.mapper = mapper
        self.msi: MsiSink = msi or NotConnected()
        self._intx = intx
        self.reset_control = reset_control
        self.chip = ffi.gc(lib.core_pci_new(), lib.core_chip_free)
        if self.chip == ffi.NULL:
            raise EmuError("PCI: out of memory")
        self.buses = buses
        self.ecam = Ecam(self, buses)
        self._routes: dict[int, PciFunction] = {}
        self._retrying = False
        self.root = PciBus(self)

    # ---- the bus's side ----------------------------------------------------------------------------------------------

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        if reg != NOT_A_FUNCTION:
            return self.configure(reg, offset, size, is_write, value)
        if offset != RESET_OFFSET or self.reset_control is None:
            return ALL_ONES
        return access(self.reset_control, 0, 1, is_write, value & 0xFF)

    def configure(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        """Pass on what a function's window handed over: `reg` is its number and that of the register."""
        function = self._routes.get(reg >> 16)
        register = function.register_at(reg & 0xFFFF) if function is not None else None
        if function is None or register is None:
            return ALL_ONES  # unplugged while the access was on its way
        start, width = register
        lane = (offset - start) & (width - 1)  # the port's offset says only this much
        return function.handle(reg & 0xFFFF, start + lane, min(size, width - lane), is_write, value)

    def intx(self, index: int) -> IrqLine:
        """A new source of one of the root's four lines."""
        return self._intx(index) if self._intx is not None else NotConnected()

    # ---- the tree ----------------------------------------------------------------------------------------------------

    def functions(self) -> Iterator[tuple[PciBus, int, PciFunction]]:
        """Every function with its bus and number, bridges before what is behind them."""
        yield from _walk(self.root)

    def function(self, bdf: int) -> PciFunction | None:
        """Who answers at bus << 8 | device << 3 | function now."""
        return self._routes.get(bdf)

    def renumber(self) -> None:
        """Find out anew who answers where: a bus number changed, or something was plugged in or out."""
        routes: dict[int, PciFunction] = {}
        self._number(self.root, 0, self.buses - 1, routes)
        for bdf in self._routes.keys() | routes.keys():
            function = routes.get(bdf)
            if self._routes.get(bdf) is not function:
                lib.core_pci_set(self.chip, bdf, function.chip if function is not None else ffi.NULL)
        self._routes = routes

    def _number(self, bus: PciBus, number: int, last: int, routes: dict[int, PciFunction]) -> None:
        """A bus behind a bridge is found only inside its parent's range; the first of two with one number wins."""
        for devfn, function in bus.functions.items():
            routes.setdefault(number << 8 | devfn, function)
            if isinstance(function, Bridge) and function.behind is not None:
                secondary, subordinate = function.secondary_bus, min(function.subordinate_bus, last)
                if number < secondary <= subordinate:
                    self._number(function.behind, secondary, subordinate, routes)

    def retry_bars(self) -> None:
        """A place on the bus became free: BARs that were refused may have it."""
        if self._retrying:
            return
        self._retrying = True
        try:
            for _, _, function in self.functions():
                function.retry_bars()
        finally:
            self._retrying = False

    # ---- state -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Power-on state of everything on the buses."""
        lib.core_chip_reset(self.chip)
        self.root.reset()
        if self.reset_control is not None:
            self.reset_control.reset()

    def save(self) -> State:
        """The address register, and every function by its place in the tree."""
        functions = {f"{bus.name}:{number:02x}": function.save() for bus, number, function in self.functions()}
        control = self.reset_control.save() if self.reset_control is not None else None
        return {"address": save_chip(self.chip).hex(), "functions": functions, "reset_control": control}

    def load(self, state: Any) -> None:
        """Take over a saved state. StateError and nothing changed for what is not one of this tree."""
        if not isinstance(state, dict) or state.keys() != {"address", "functions", "reset_control"}:
            raise StateError("PCI: not a state of a host bridge")
        fields = parse_fields({"address": Bytes(4, 4)}, {"address": state["address"]}, "PCI")
        mine = {f"{bus.name}:{number:02x}": function for bus, number, function in self.functions()}
        blocks: dict[str, RegisterBlock] = {**mine}
        states = state["functions"]
        if not isinstance(states, dict) or states.keys() != mine.keys():
            raise StateError("PCI: other functions than this machine has")
        if self.reset_control is not None:
            blocks["reset"], states = self.reset_control, {**states, "reset": state["reset_control"]}
        for name, block in blocks.items():
            block.check_state(states[name])
        load_chip(self.chip, fields["address"], "PCI")
        for name, block in blocks.items():
            block.load(states[name])


def _walk(bus: PciBus) -> Iterator[tuple[PciBus, int, PciFunction]]:
    for number, function in tuple(bus.functions.items()):
        yield bus, number, function
        if isinstance(function, Bridge) and function.behind is not None:
            yield from _walk(function.behind)
