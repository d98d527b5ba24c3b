"""What every virtio device is, whatever carries it: features, queues, configuration, and hooks for the rest.

A device subclasses this, says its id, queues and features, and either answers in `kicked` or iterates over its queues
in `run`. Registers, rings and interrupts are native (`core/virtio.c`). Not here: addresses and buses. The driver is not
trusted: what it does out of order is ignored, and a broken ring stops the device until it is reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aioemu._core import ffi, lib
from aioemu.bus.state import Bytes, Field, State, dump_fields, parse_fields
from aioemu.bus.virtqueue import IN_FLIGHT, SEGMENTS, Queue
from aioemu.devices.native import load_chip, save_chip
from aioemu.devices.properties import prop
from aioemu.errors import ConfigError, GuestError, StateError

INDIRECT_DESC, EVENT_IDX, VERSION_1, RING_PACKED, RING_RESET = 1 << 28, 1 << 29, 1 << 32, 1 << 34, 1 << 40
DRIVER_OK, NEEDS_RESET = 0x04, 0x40  # of the device status
CHIP_STATE_BYTES = 1 << 16  # of the largest device: 1024 queues
WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class RingProperties:
    """What may be set on any virtio device."""

    packed: bool = prop(False, "bool", "offer packed rings")
    event_idx: bool = prop(True, "bool", "offer EVENT_IDX")
    indirect_desc: bool = prop(True, "bool", "offer indirect descriptors")
    queue_reset: bool = prop(True, "bool", "let the driver reset queues by themselves")
    ioeventfd: bool = prop(True, "bool", "let the accelerator's kernel part take the driver's notifications")


def ring_features(given: RingProperties) -> int:
    """The transport's feature bits that these properties ask for."""
    bits = VERSION_1
    for wanted, feature in (
        (given.packed, RING_PACKED),
        (given.event_idx, EVENT_IDX),
        (given.indirect_desc, INDIRECT_DESC),
        (given.queue_reset, RING_RESET),
    ):
        bits |= feature if wanted else 0
    return bits


class VirtioDevice:
    """One device. `ring` are the properties of its rings; `features` the bits 0..23 of its own that it offers."""

    device_id: ClassVar[int]
    pci_class: ClassVar[int] = 0x00FF00
    state: ClassVar[Mapping[str, Field]] = {}

    def __init__(
        self, queue_sizes: Sequence[int], *, features: int = 0, config: bytes = b"", ring: RingProperties | None = None
    ) -> None:
        self.ring = ring or RingProperties()
        self.power_on_config = config
        self.running = False  # the driver drives it
        self.closed = False
        self.on_running: Callable[[bool], None] = lambda running: None  # the transport's
        self.on_broken: Callable[[str], None] = lambda why: None  # the machine's
        self.on_driven: Callable[[], None] = lambda: None  # the machine's: a driver begins
        offered = features | ring_features(self.ring)
        sizes = ffi.new("uint16_t[]", list(queue_sizes) or [0])
        made = lib.core_virtio_new(self.device_id, offered, sizes, len(queue_sizes), len(config))
        if made == ffi.NULL:
            raise ConfigError(f"{type(self).__name__}: rings have a power of two of places, at most {IN_FLIGHT}")
        self.chip = ffi.gc(made, lib.core_chip_free)
        self.queues = tuple(Queue(self.chip, index) for index in range(len(queue_sizes)))
        self._set_config(0, config, False)

    # ---- for the device ----------------------------------------------------------------------------------------------

    def started(self) -> None:
        """The driver is ready: queues may be used."""

    def stopped(self) -> None:
        """The driver let go, or the machine was reset: forget every chain."""

    def kicked(self, queue: Queue) -> None:
        """The driver put something into a queue."""

    def queue_lost(self, queue: Queue) -> None:
        """The driver took a queue back, and may enable it again: forget the chains of it."""

    def config_written(self, offset: int, data: bytes) -> None:
        """The driver wrote into the configuration; nothing was stored."""

    def bell(self, index: int) -> int:
        """The eventfd of a queue that a native part serves: notifications go there; -1: they come to `kicked`."""
        return -1

    async def run(self) -> None:
        """The device's own task, from when it is plugged in until the machine is closed."""

    @property
    def features(self) -> int:
        """What the driver accepted."""
        return int(lib.core_virtio_features(self.chip))

    @property
    def status(self) -> int:
        return int(lib.core_virtio_status(self.chip))

    @property
    def config(self) -> bytes:
        """The configuration as the driver reads it."""
        size = len(self.power_on_config)
        buffer = ffi.new("uint8_t[]", size or 1)
        lib.core_virtio_get_config(self.chip, 0, buffer, size)
        return bytes(ffi.buffer(buffer, size))

    def set_config(self, offset: int, data: bytes, *, tell: bool = True) -> None:
        """Change the configuration, with an interrupt for the driver."""
        self._set_config(offset, data, tell and not self.closed)

    def fail(self) -> None:
        """Stop until the driver resets the device (NEEDS_RESET)."""
        if not self.closed:
            lib.core_virtio_break(self.chip)

    def failed(self, exc: Exception) -> None:
        """The device's own code made a mistake: the driver has to reset it."""
        self.fail()
        self.on_broken(repr(exc))

    def close(self) -> None:
        """The machine goes away: chains that are out become void, and nothing here reaches the machine again."""
        self.reset()
        self.closed = True

    # ---- the transport's side ----------------------------------------------------------------------------------------

    def handle_status(self, value: int) -> None:
        """The driver wrote the device status."""
        if self.closed:
            return
        if value & 0xFF == 0:
            self.reset()
            return
        status = lib.core_virtio_set_status(self.chip, value & 0xFF)
        if status & DRIVER_OK and not self.running:
            self._start()

    def handle_queue_off(self, reset: bool) -> None:
        """The driver takes the selected queue back; `reset`: its registers too are as at power-on."""
        index = lib.core_virtio_selected(self.chip)
        if not self.closed and index >= 0:
            self.queue_off(index, reset)
            self.queue_lost(self.queues[index])

    def queue_off(self, index: int, reset: bool) -> None:
        """Void the chains of a queue. Where a native part looks into them, that has to let go of them first."""
        lib.core_virtio_queue_off(self.chip, index, reset)

    def handle_config(self, offset: int, size: int, value: int) -> None:
        """The driver wrote the configuration."""
        self.config_written(offset, (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little"))

    def notified(self) -> None:
        """The chip has news: queues were rung for, or a ring is broken."""
        if self.status & NEEDS_RESET:
            error = lib.core_virtio_error(self.chip)
            if error != ffi.NULL:
                text = ffi.string(error)
                self.on_broken(text if isinstance(text, str) else text.decode())
            return
        rung = {int(lib.core_virtio_next_kick(self.chip)) for _ in self.queues} - {-1}
        for index in sorted(rung):  # each once: who rings all the time gets the next turn
            self.ring_bell(index)

    def ring_bell(self, index: int) -> None:
        """The driver rang for queue `index`."""
        if self.running:
            queue = self.queues[index]
            queue.begin_turn()
            try:
                self.kicked(queue)
            except Exception as exc:
                self.failed(exc)
            if queue.end_turn():
                lib.core_virtio_kick(self.chip, index)
            queue.kicked()

    def _start(self) -> None:
        self.running = True
        self.on_driven()
        for index in range(len(self.queues)):
            lib.core_virtio_kick_fd(self.chip, index, self.bell(index))
        self.on_running(True)
        self.started()
        for index in range(len(self.queues)):
            self.ring_bell(index)  # what was there before the device listened

    # ---- state -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Power-on state."""
        if self.running:
            self.running = False
            self.on_running(False)
        self.stopped()
        lib.core_chip_reset(self.chip)
        self._set_config(0, self.power_on_config, False)

    def save(self) -> State:
        """Registers, rings, the chains that are out, and what the device keeps."""
        in_flight = [queue.in_flight() for queue in self.queues]
        fields = dump_fields(self.state, self)
        return {"chip": save_chip(self.chip).hex(), "in_flight": in_flight, "fields": fields}

    def check_state(self, state: Any) -> tuple[bytes, list[list[State]], State]:
        """What `load` would apply; StateError when the state cannot be this device's."""
        name = type(self).__name__
        if not isinstance(state, dict) or state.keys() != {"chip", "in_flight", "fields"}:
            raise StateError(f"{name}: not the state of a virtio device")
        chip = parse_fields({"chip": Bytes(CHIP_STATE_BYTES)}, {"chip": state["chip"]}, name)["chip"]
        if lib.core_virtio_check(self.chip, chip, len(chip)) < 0:
            raise StateError(f"{name}: not a state of this device")
        chains = _parse_chains(name, state["in_flight"], len(self.queues))
        return chip, chains, parse_fields(self.state, state["fields"], name)

    def load(self, state: Any) -> None:
        """Take over a saved state: all of it, or StateError and nothing changed."""
        parsed = self.check_state(state)
        before = self.check_state(self.save())
        try:
            self._apply(*parsed)
        except GuestError as exc:
            self._apply(*before)
            raise StateError(f"{type(self).__name__}: {exc}") from exc

    def loaded(self) -> None:
        """The state was replaced: go on from there."""

    def _apply(self, chip: bytes, chains: list[list[State]], fields: State) -> None:
        if self.running:
            self.running = False
            self.on_running(False)
            self.stopped()
        load_chip(self.chip, chip, type(self).__name__)
        for queue, out in zip(self.queues, chains, strict=True):
            for chain in out:
                queue.restore(chain)
        for name, value in fields.items():
            setattr(self, name, value)
        self.loaded()
        if self.status & DRIVER_OK:
            self._start()

    def _set_config(self, offset: int, data: bytes, tell: bool) -> None:
        if lib.core_virtio_set_config(self.chip, offset, data, len(data), tell) < 0:
            raise ValueError(f"{type(self).__name__}: no configuration at {offset}")


def _parse_chains(where: str, given: Any, queues: int) -> list[list[State]]:
    """The chains of each queue, each value in its range."""
    if type(given) is not list or len(given) != queues or any(type(q) is not list or len(q) > IN_FLIGHT for q in given):
        raise StateError(f"{where}: in_flight is not a list of each queue's chains")
    return [[_parse_chain(where, chain) for chain in queue] for queue in given]


def _parse_chain(where: str, chain: Any) -> State:
    if not isinstance(chain, dict) or chain.keys() != {"id", "descriptors", "segments"}:
        raise StateError(f"{where}: not a chain")
    pieces = chain["segments"]
    numbers = [chain["id"], chain["descriptors"]]
    if (
        type(pieces) is not list
        or len(pieces) > SEGMENTS
        or any(type(n) is not int or not 0 <= n < 1 << 16 for n in numbers)
    ):
        raise StateError(f"{where}: not a chain")
    for piece in pieces:
        if type(piece) is not list or len(piece) != 3 or type(piece[0]) is not int or type(piece[1]) is not int:
            raise StateError(f"{where}: not a piece of a chain")
        if not 0 <= piece[0] <= WORD or not 0 <= piece[1] < 1 << 32 or type(piece[2]) is not bool:
            raise StateError(f"{where}: not a piece of a chain")
    return chain
