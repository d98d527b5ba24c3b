"""virtio-console (Virtio 1.2, 5.3): byte ports to chardevs, up to 31 on one device, the first one a console.

Back-pressure goes both ways: output that a chardev does not take stays in the driver's buffer, input stays with the
chardev until the driver gives room. A driver that asks and does not listen to the answers breaks its device.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from aioemu.bus.state import Bytes, Flag, State, parse_fields
from aioemu.bus.virtqueue import Chain, Queue
from aioemu.chardev.base import Event
from aioemu.devices.virtio.device import RingProperties, VirtioDevice
from aioemu.errors import ConfigError

F_MULTIPORT, F_EMERG_WRITE = 1 << 1, 1 << 2
MAX_PORTS = 31
DATA_QUEUE_SIZE, CONTROL_QUEUE_SIZE = 128, 32
CONTROL_IN, CONTROL_OUT = 2, 3
CONFIG = struct.Struct("<HHII")  # columns, rows, max_nr_ports, emerg_wr
EMERG_WRITE_AT = 8
CONTROL = struct.Struct("<IHH")  # port, event, value
DEVICE_READY, PORT_ADD, PORT_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = range(8)
PENDING_MESSAGES = 1024  # to the driver: many times what one answer per port needs
NAME_BYTES = 255
SEND_BYTES = 64 << 10  # handed to a chardev at once


class Wire(Protocol):
    """The other end of a port; a chardev is one."""

    is_open: bool

    def write(self, data: bytes) -> int: ...
    def accept_input(self) -> None: ...


class Port:
    """One port: a chardev's front end. `console` ports are terminals to the guest, the others have a name."""

    def __init__(self, wire: Wire | None, *, console: bool = False, label: str = "") -> None:
        if len(label.encode()) > NAME_BYTES:
            raise ConfigError(f"name={label:.20}...: a port's name has at most {NAME_BYTES} bytes", "-device")
        self.wire = wire
        self.console = console
        self.label = label
        self.number = -1
        self.device: VirtioConsole | None = None
        self.guest_open = False
        self.on_open: Callable[[bool], None] = lambda is_open: None
        self._room: Chain | None = None  # the driver's buffer for input
        self._output: deque[Chain] = deque()
        self._sent = 0  # bytes of the first of them

    # ---- the chardev's side ------------------------------------------------------------------------------------------

    def can_receive(self) -> int:
        """Room in the driver's buffer; after 0, `accept_input` is called when there is some."""
        device = self.device
        if device is None or not device.running or not self.guest_open:
            return 0
        while self._room is None or not self._room.room:
            if self._room is not None:
                self._room.complete()
            self._room = device.input_queue(self.number).pop()
            if self._room is None:
                return 0
        return self._room.room

    def receive(self, data: bytes) -> None:
        """Input for the guest, at most as long as `can_receive` said."""
        chain, self._room = self._room, None
        if chain is not None:
            chain.write(data)
            chain.complete()

    def event(self, event: Event) -> None:
        """The other side came or went: the guest learns of it."""
        if self.device is not None and event in (Event.OPENED, Event.CLOSED) and not self.console:
            self.device.tell(self, PORT_OPEN, int(event is Event.OPENED))

    def writable(self) -> None:
        """The chardev takes output again."""
        self.send()

    # ---- the device's side -------------------------------------------------------------------------------------------

    @property
    def host_open(self) -> bool:
        """Somebody is on the other side; a console always looks so."""
        return self.console or (self.wire is not None and self.wire.is_open)

    def take_output(self, queue: Queue) -> None:
        """The driver sent something."""
        while (chain := queue.pop()) is not None:
            self._output.append(chain)
        self.send()

    def send(self) -> None:
        """Hand output on until the chardev takes no more."""
        while self._output:
            chain = self._output[0]
            while data := chain.read(SEND_BYTES, self._sent):
                taken = self.wire.write(data) if self.wire is not None else len(data)
                self._sent += taken
                if taken < len(data):
                    return
            self._output.popleft()
            self._sent = 0
            chain.complete(0)

    def opened(self, is_open: bool) -> None:
        """A program in the guest opened or closed the port."""
        if is_open != self.guest_open:
            self.guest_open = is_open
            self.on_open(is_open)
        self.more_room()

    def more_room(self) -> None:
        """The driver gave buffers, or listens."""
        if self.wire is not None:
            self.wire.accept_input()

    def remove(self) -> None:
        """The port goes: the driver gets its buffers back, and is told."""
        for chain in (*self._output, *([self._room] if self._room is not None else [])):
            chain.complete()
        self.reset()
        if self.device is not None:
            self.device.drop(self)

    def lost(self, is_output: bool) -> None:
        """The driver took one of the port's queues back."""
        if is_output:
            self._output.clear()
            self._sent = 0
        else:
            self._room = None

    # ---- state -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Nobody in the guest has it open."""
        self._room = None
        self._output.clear()
        self._sent = 0
        self.guest_open = False

    def save(self) -> State:
        """Whether the guest has it open; the buffers are the device's."""
        return {"guest_open": self.guest_open}

    def load(self, state: Any) -> None:
        """Take over a saved state, or StateError and nothing changed."""
        self.guest_open = parse_fields({"guest_open": Flag()}, state, "virtio port")["guest_open"]


class VirtioConsole(VirtioDevice):
    """The device that carries the ports (`virtio-serial-*`)."""

    device_id = 3
    pci_class = 0x078000
    state = {"pending_bytes": Bytes(PENDING_MESSAGES * (2 + CONTROL.size + NAME_BYTES)), "is_ready": Flag()}

    def __init__(
        self, max_ports: int = MAX_PORTS, *, emergency: bool = True, ring: RingProperties | None = None
    ) -> None:
        sizes = [DATA_QUEUE_SIZE] * (2 * max_ports + 2)
        sizes[CONTROL_IN] = sizes[CONTROL_OUT] = CONTROL_QUEUE_SIZE
        features = F_MULTIPORT | (F_EMERG_WRITE if emergency else 0)
        super().__init__(sizes, features=features, config=CONFIG.pack(0, 0, max_ports, 0), ring=ring)
        self.max_ports = max_ports
        self.ports: dict[int, Port] = {}
        self.is_ready = False  # the driver handles control messages
        self._pending: deque[bytes] = deque()

    def add(self, port: Port, number: int | None = None) -> Port:
        """Give a port its number: the first free one, and 0 only to a console."""
        first = 0 if port.console else 1
        if number is None:
            number = next((n for n in range(first, self.max_ports) if n not in self.ports), self.max_ports)
        if not first <= number < self.max_ports:
            if number < first:
                raise ConfigError("Port number 0 on virtio-serial devices is for virtconsole devices", "-device")
            last = self.max_ports - 1
            raise ConfigError(f"virtio-serial-bus: Out-of-range port id specified, max. allowed: {last}", "-device")
        if number in self.ports:
            raise ConfigError(f"virtio-serial-bus: A port already exists at id {number}", "-device")
        if port.label and any(each.label == port.label for each in self.ports.values()):
            raise ConfigError(f"virtio-serial-bus: A port already exists by name {port.label}", "-device")
        self.ports[number] = port
        port.number, port.device = number, self
        self.tell(port, PORT_ADD, 1)
        return port

    def drop(self, port: Port) -> None:
        """A port goes."""
        del self.ports[port.number]
        self.tell(port, PORT_REMOVE, 1)
        port.device = None

    def tell(self, port: Port, event: int, value: int, data: bytes = b"") -> None:
        """Send the driver a control message, once it handles them."""
        if not self.is_ready:
            return
        if len(self._pending) == PENDING_MESSAGES:
            self.fail()
            return
        self._pending.append(CONTROL.pack(port.number, event, value) + data)
        self._send_control()

    def input_queue(self, number: int) -> Queue:
        """Where the driver gives room for a port's input; output is in the one behind it."""
        return self.queues[2 * number + 2 if number else 0]

    # ---- the driver --------------------------------------------------------------------------------------------------

    def started(self) -> None:
        if not self.features & F_MULTIPORT and 0 in self.ports:
            self.ports[0].opened(True)

    def stopped(self) -> None:
        self.is_ready = False
        self._pending.clear()
        for port in self.ports.values():
            port.reset()

    def queue_lost(self, queue: Queue) -> None:
        if queue.index not in (CONTROL_IN, CONTROL_OUT) and (port := self._port_of(queue)) is not None:
            port.lost(is_output=queue.index % 2 == 1)

    def _port_of(self, queue: Queue) -> Port | None:
        return self.ports.get((queue.index - 2) // 2 if queue.index >= 4 else 0)

    def kicked(self, queue: Queue) -> None:
        if queue.index == CONTROL_IN:
            self._send_control()
        elif queue.index == CONTROL_OUT:
            self._take_control(queue)
        else:
            port = self._port_of(queue)
            if queue.index % 2:
                (port or Port(None)).take_output(queue)
            elif port is not None:
                port.more_room()

    def config_written(self, offset: int, data: bytes) -> None:
        """A byte from a guest that has no driver yet."""
        if offset == EMERG_WRITE_AT and (port := self.ports.get(0)) is not None and port.wire is not None:
            port.wire.write(data[:1])

    def _take_control(self, queue: Queue) -> None:
        while (chain := queue.pop()) is not None:
            message = chain.read(CONTROL.size)
            chain.complete(0)
            if len(message) == CONTROL.size:
                self._control(*CONTROL.unpack(message))

    def _control(self, number: int, event: int, value: int) -> None:
        if event == DEVICE_READY:
            self.is_ready = value == 1
            for port in self.ports.values():
                self.tell(port, PORT_ADD, 1)
            return
        port_here = self.ports.get(number)
        if port_here is None:
            return
        if event == PORT_READY and value == 1:
            self._introduce(port_here)
        elif event == PORT_OPEN:
            port_here.opened(value == 1)

    def _introduce(self, port: Port) -> None:
        if port.console:
            self.tell(port, CONSOLE_PORT, 1)
        if port.label:
            self.tell(port, PORT_NAME, 1, port.label.encode() + b"\0")
        if port.host_open:
            self.tell(port, PORT_OPEN, 1)

    def _send_control(self) -> None:
        while self._pending and (chain := self.queues[CONTROL_IN].pop()) is not None:
            chain.write(self._pending.popleft())
            chain.complete()

    # ---- state -------------------------------------------------------------------------------------------------------

    @property
    def pending_bytes(self) -> bytes:
        """Control messages that wait for a buffer, each with its length before it."""
        return b"".join(struct.pack("<H", len(message)) + message for message in self._pending)

    @pending_bytes.setter
    def pending_bytes(self, data: bytes) -> None:
        self._pending.clear()
        while len(data) > 2:
            end = 2 + int.from_bytes(data[:2], "little")
            if end <= len(data):
                self._pending.append(data[2:end])
            data = data[end:]
