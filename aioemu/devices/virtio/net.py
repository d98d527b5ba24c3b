"""virtio-net (Virtio 1.2, 5.1): pairs of queues to a port, with offloads, several queues and a control queue.

Frames pass natively (`core/netq*.c`), in the reactor's io context or an iothread's; here are features, configuration
and the control queue, which a driver uses a few times in its life. Left out: RSS, hash reports and coalescing. The
driver is not trusted: a command that cannot be is refused, a frame that cannot be is lost and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from aioemu._core import ffi, lib
from aioemu.bus.state import Bytes, Field, Flag, Int
from aioemu.bus.virtqueue import Chain, Queue
from aioemu.devices.properties import Live
from aioemu.devices.virtio.device import RingProperties, VirtioDevice
from aioemu.devices.virtio.net_control import ControlQueue
from aioemu.errors import ConfigError

F_CSUM, F_GUEST_CSUM, F_GUEST_OFFLOADS, F_MTU, F_MAC = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN, F_GUEST_UFO = 1 << 7, 1 << 8, 1 << 9, 1 << 10
F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN, F_HOST_UFO = 1 << 11, 1 << 12, 1 << 13, 1 << 14
F_MRG_RXBUF, F_STATUS, F_CTRL_VQ, F_CTRL_RX, F_CTRL_VLAN = 1 << 15, 1 << 16, 1 << 17, 1 << 18, 1 << 19
F_CTRL_RX_EXTRA, F_GUEST_ANNOUNCE, F_MQ, F_CTRL_MAC = 1 << 20, 1 << 21, 1 << 22, 1 << 23
F_GUEST_USO4, F_GUEST_USO6, F_HOST_USO, F_SPEED_DUPLEX = 1 << 54, 1 << 55, 1 << 56, 1 << 63
GUEST_OFFLOADS = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_GUEST_UFO | F_GUEST_USO4 | F_GUEST_USO6
MAX_PAIRS = 256
CONTROL_QUEUE_SIZE = 64
MTU_LEAST, MTU_MOST = 68, 65535  # of IPv4 and of the field
TABLE_BYTES = 6 * 64  # of addresses: 64 as in QEMU; a driver with more gets everything


class VirtioNet(VirtioDevice):
    """A network card with `pairs` pairs of queues; `port` is its native end of the wire."""

    device_id = 1
    pci_class = 0x020000
    state: ClassVar[Mapping[str, Field]] = {
        "mac": Bytes(6, 6),
        "modes": Int(0, 0x3F),
        "unicast": Bytes(TABLE_BYTES),
        "multicast": Bytes(TABLE_BYTES),
        "unicast_overflow": Flag(),
        "multicast_overflow": Flag(),
        "vlans": Bytes(512, 512),
        "pairs": Int(1, MAX_PAIRS),
        "offloads": Int(0, (1 << 64) - 1),
    }

    def __init__(
        self,
        mac: bytes,
        *,
        features: int,
        pairs: int = 1,
        queue_sizes: tuple[int, int] = (256, 256),
        mtu: int = 0,
        speed: int = -1,
        duplex: str = "unknown",
        ring: RingProperties | None = None,
    ) -> None:
        if not 1 <= pairs <= MAX_PAIRS:
            raise ConfigError(f"virtio-net: {pairs} queue pairs; there can be 1 to {MAX_PAIRS}")
        self.power_on_mac = mac
        self.max_pairs = pairs
        config = _config(mac, pairs, mtu, speed, duplex)
        sizes = list(queue_sizes) * pairs + [CONTROL_QUEUE_SIZE] * bool(features & F_CTRL_VQ)
        super().__init__(sizes, features=features, config=config, ring=ring)
        made = lib.core_net_new(self.chip, pairs)
        if made == ffi.NULL:
            raise ConfigError("virtio-net: out of memory or descriptors")
        chip = self.chip  # must outlive what works on its queues

        def free(net: Any) -> None:
            lib.core_port_free(lib.core_net_port(net))
            assert chip is not None

        self.net = ffi.gc(made, free)
        self.io: Callable[[], Any] = lambda: ffi.NULL  # the context that serves its queues; the machine's
        self.on_filter: Callable[[], None] = lambda: None
        self._control = ControlQueue(self)
        self._restored = False  # what the driver set came with a saved state
        self._power_on()

    def live(self) -> Mapping[str, Live]:
        """The address that it was given, whoever chose it."""
        return {"mac": Live("str", lambda: self.power_on_mac.hex(":"))}

    @property
    def port(self) -> Any:
        """The native port, which lives as long as this device."""
        return lib.core_net_port(self.net)

    def shut(self) -> None:
        """Let go of its descriptors, for good: the machine is gone."""
        lib.core_net_shut(self.net)

    @property
    def link_up(self) -> bool:
        """What the driver sees of its link."""
        return bool(lib.core_net_link(self.net))

    @property
    def filters_vlans(self) -> bool:
        """Only frames with tags that the driver named pass, besides those without."""
        return bool(self.features & F_CTRL_VLAN)

    def announce(self) -> bool:
        """Ask the driver to announce its addresses; False when it does not know how."""
        if self.running and self.features & F_GUEST_ANNOUNCE and self.features & F_CTRL_VQ:
            lib.core_net_announce(self.net, True)
            return True
        return False

    def refresh_link(self) -> None:
        """The port was plugged in or out: the driver learns of it."""
        lib.core_net_refresh(self.net)

    def hold(self, on: bool) -> None:
        """The machine stands still, or goes on: nothing is taken from queues or put into them meanwhile."""
        lib.core_net_hold(self.net, on)

    # ---- what the driver set -----------------------------------------------------------------------------------------

    def _power_on(self) -> None:
        self.mac = self.power_on_mac
        self.modes = 1  # promiscuous, until the driver says otherwise
        self.unicast = self.multicast = b""
        self.unicast_overflow = self.multicast_overflow = False
        self.vlans = bytes(512)
        self.pairs = 1
        self.offloads = 0

    def apply(self) -> None:
        """Put into force what the driver set."""
        rules: Any = ffi.new("core_net_filter *")
        names = ("promiscuous", "all_multicast", "all_unicast", "no_multicast", "no_unicast", "no_broadcast")
        for bit, name in enumerate(names):
            setattr(rules, name, self.modes >> bit & 1)
        rules.all_unicast |= self.unicast_overflow
        rules.all_multicast |= self.multicast_overflow
        rules.vlan_filter = self.filters_vlans
        for name in ("mac", "unicast", "multicast", "vlans"):
            data = getattr(self, name)
            ffi.memmove(getattr(rules, name), data, len(data))
        rules.unicast_count, rules.multicast_count = len(self.unicast) // 6, len(self.multicast) // 6
        lib.core_net_set_filter(self.net, rules)
        lib.core_net_set_pairs(self.net, self.pairs)
        lib.core_net_set_features(self.net, self.offloads)

    # ---- the device's side -------------------------------------------------------------------------------------------

    @property
    def control_index(self) -> int:
        """The control queue follows the pairs that there can be: one, unless the driver knows of more (5.1.2)."""
        return 2 * self.max_pairs if self.features & F_MQ else 2

    def bell(self, index: int) -> int:
        return -1 if index >= self.control_index else int(lib.core_net_bell(self.net, index))

    def started(self) -> None:
        if not self._restored:
            self.offloads = self.features & GUEST_OFFLOADS
        self._restored = False
        self.pairs = min(self.pairs, self.max_pairs)
        self.offloads &= self.features
        self.apply()
        io = self.io()
        if io != ffi.NULL and lib.core_net_start(self.net, io) < 0:
            self.fail()

    def stopped(self) -> None:
        lib.core_net_stop(self.net)

    def loaded(self) -> None:
        self._restored = True

    def reset(self) -> None:
        super().reset()
        lib.core_net_announce(self.net, False)
        self._restored = False
        self._power_on()
        lib.core_net_set_features(self.net, 0)
        lib.core_net_refresh(self.net)

    def kicked(self, queue: Queue) -> None:
        if queue.index == self.control_index and self.features & F_CTRL_VQ:
            while (chain := queue.pop()) is not None:
                self._answer(chain)

    def _answer(self, chain: Chain) -> None:
        chain.write(b"\0" if self._control.handle(chain.read(self._control.MOST_BYTES)) else b"\1")
        chain.complete()


def _config(mac: bytes, pairs: int, mtu: int, speed: int, duplex: str) -> bytes:
    """The configuration as it is at power-on (5.1.4); the link's state is put in by the native part."""
    halves = {"half": 0, "full": 1, "unknown": 0xFF}
    fields = ((0, 2), (pairs, 2), (mtu, 2), (speed & 0xFFFFFFFF, 4), (halves[duplex], 1), (0, 7))
    return mac + b"".join(value.to_bytes(size, "little") for value, size in fields)
