"""A device as a block of registers: declared as data, served by the core, with Python only where there are hooks.

A block owns one window of the native core. Registers without hooks never reach Python. `read` and `write` act as the
guest does and run the same code that the reactor runs when a vCPU's access is handed over. Not here: where the block
sits, which is the board's business. The guest is not trusted: any offset, size and value is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Protocol

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer, Deferred
from aioemu.bus.layout import (
    Bits,
    Layout,
    Reg,
    Register,
    bit,
    check_overlap,
    compile_layout,
    describe,
    field,
)
from aioemu.bus.state import Field, Int, State, dump_fields, parse_fields
from aioemu.errors import EmuError, StateError

__all__ = ["Bits", "Deferred", "Reg", "RegisterBlock", "RegisterGroup", "access", "bit", "describe", "field"]

Tuning = Mapping[str, Mapping[str, int]]  # {"vendor": {"reset": 0x8086}}: what differs in one instance
ReadHook = Callable[[], Answer]
WriteHook = Callable[[int], Any]
_POINTERS = {1: "uint8_t *", 2: "uint16_t *", 4: "uint32_t *", 8: "uint64_t *"}


class _Value:
    """Attribute access to one register's stored value: what the guest would find in a plain register."""

    def __init__(self, register: Register) -> None:
        self.register = register

    def __get__(self, group: RegisterGroup | None, owner: type[RegisterGroup]) -> Any:
        return self if group is None else group.peek(self.register)

    def __set__(self, group: RegisterGroup, value: int) -> None:
        group.poke(self.register, value)


class _Values:
    """The same for an array of registers: `self.pirq[2]`."""

    def __init__(self, registers: tuple[Register, ...]) -> None:
        self.registers = registers

    def __get__(self, group: RegisterGroup | None, owner: type[RegisterGroup]) -> Any:
        return self if group is None else _BoundValues(group, self.registers)


class _BoundValues:
    def __init__(self, group: RegisterGroup, registers: tuple[Register, ...]) -> None:
        self.group, self.registers = group, registers

    def __len__(self) -> int:
        return len(self.registers)

    def __getitem__(self, index: int) -> int:
        return self.group.peek(self.registers[index])

    def __setitem__(self, index: int, value: int) -> None:
        self.group.poke(self.registers[index], value)


class RegisterGroup:
    """Registers that belong together: a whole block, or a part of one that is placed inside it (a PCI capability)."""

    layout: ClassVar[Layout] = {}
    state: ClassVar[Mapping[str, Field]] = {}
    registers: ClassVar[tuple[Register, ...]] = ()
    tuning: Tuning = {}

    _block: RegisterBlock | None = None
    _base = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.registers = compile_layout(cls, cls.layout)
        arrays: dict[str, list[Register]] = {}
        for register in cls.registers:
            _claim_attribute(cls, register.base_name)
            if register.index is None:
                setattr(cls, register.name, _Value(register))
            else:
                arrays.setdefault(register.base_name, []).append(register)
        for name, members in arrays.items():
            setattr(cls, name, _Values(tuple(members)))

    @property
    def block(self) -> RegisterBlock:
        """The block whose window holds these registers."""
        if self._block is None:
            raise RuntimeError(f"{type(self).__name__} is in no block yet")
        return self._block

    @property
    def base(self) -> int:
        """Where this group starts in its block."""
        return self._base

    def peek(self, register: Register) -> int:
        """The stored value of a register, without any hook."""
        pointer = ffi.cast(_POINTERS[register.width], self.block._bytes + self._base + register.offset)
        return int(pointer[0])

    def poke(self, register: Register, value: int) -> None:
        """Store a register's value, whatever the guest may write."""
        self.update(register, 0, value)

    def update(self, register: Register, keep: int, set_bits: int) -> int:
        """Keep the bits of `keep`, set those of `set_bits`, in one step even while a vCPU writes. The value before."""
        offset = self._base + register.offset
        set_bits &= register.mask
        return int(lib.core_window_update(self.block.chip, offset, register.width, keep & register.mask, set_bits))

    def set_bits(self, name: str, mask: int) -> None:
        """Set bits of the register called `name` in one step."""
        self.update(self._register(name), ALL_ONES, mask)

    def clear_bits(self, name: str, mask: int) -> None:
        """Clear bits of the register called `name` in one step."""
        self.update(self._register(name), ~mask & ALL_ONES, 0)

    def on_reset(self) -> None:
        """Power-on state of what is not a register; the registers have theirs when this runs."""

    def check(self, registers: Mapping[str, int], fields: Mapping[str, Any]) -> None:
        """StateError when values that are each possible are not possible together."""

    def loaded(self) -> None:
        """The state was replaced: drive the outputs and arm the timers that follow from it."""

    def tuned(self) -> list[Register]:
        """The registers of this instance."""
        return [r.tuned(**self.tuning[r.name]) if r.name in self.tuning else r for r in self.registers]

    def _register(self, name: str) -> Register:
        return next(r for r in self.registers if r.name == name)

    def _hooks(self, register: Register) -> tuple[ReadHook | None, WriteHook | None]:
        read = getattr(self, register.read_hook) if register.read_hook else None
        write = getattr(self, register.write_hook) if register.write_hook else None
        index = register.index
        if index is not None:
            read = _indexed_read(read, index) if read else None
            write = _indexed_write(write, index) if write else None
        return read, write

    def _save(self) -> State:
        fields = dump_fields(self.state, self)
        return {"registers": {r.name: self.peek(r) for r in self.registers}, "fields": fields}

    def _parse(self, where: str, state: Any) -> tuple[dict[str, int], State]:
        """Check a saved state and take it apart; nothing is applied."""
        if not isinstance(state, dict) or state.keys() != {"registers", "fields"}:
            raise StateError(f"{where}: not the state of a register block")
        known = {r.name: Int(0, r.mask) for r in self.registers}
        registers = parse_fields(known, state["registers"], where)
        fields = parse_fields(self.state, state["fields"], where)
        for register in self.tuned():
            _check_fixed(where, register, registers[register.name])
        self.check(registers, fields)
        return registers, fields

    def _apply(self, registers: Mapping[str, int], fields: State) -> None:
        for register in self.registers:
            self.poke(register, registers[register.name])
        for name, value in fields.items():
            setattr(self, name, value)


class RegisterBlock(RegisterGroup):
    """A device's registers in one window: what a board places on a bus.

    `size` is the address space it takes, by default up to its last register; `groups` are further register groups by
    name, each at its offset.
    """

    size: int = 0

    def __init__(self, groups: Mapping[str, tuple[int, RegisterGroup]] | None = None) -> None:
        self._block = self
        self.groups: dict[str, RegisterGroup] = {"": self}
        self._slots: list[tuple[Register, int, ReadHook | None, WriteHook | None]] = []
        self._include(self, 0)
        for name, (offset, group) in (groups or {}).items():
            self.groups[name] = group
            group._block, group._base = self, offset
            self._include(group, offset)
        self._slots.sort(key=lambda slot: slot[1])
        placed = [replace_offset(register, at) for register, at, _, _ in self._slots]
        check_overlap(type(self).__name__, placed)
        self.size = self.size or (placed[-1].end if placed else 1)
        self.chip = _new_window(type(self).__name__, self.size, placed)
        self._bytes = lib.core_window_bytes(self.chip)

    @property
    def window(self) -> Any:
        """The core's window: the same as `chip`."""
        return self.chip

    def read(self, offset: int, size: int) -> int:
        """Read as the guest does; the answer must come at once."""
        return self._access(offset, size, False, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write as the guest does."""
        self._access(offset, size, True, value)

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        """Answer an access that the window handed over. A written value comes merged to the register's full width."""
        register, at, read, write = self._slots[reg]
        shift = 8 * (offset - at)
        lanes = ((1 << (8 * size)) - 1) << shift
        if is_write:
            if write is None:
                return 0
            answer = write(value & (lanes | ~register.clear) & register.mask)
            return 0 if answer is None else answer
        if read is None:
            return ALL_ONES
        answer = read()
        if isinstance(answer, int):
            return (answer >> shift) & (lanes >> shift)
        return _narrow(answer, shift, lanes >> shift)

    def reset(self) -> None:
        """Power-on state of every register, then of every group: what the board calls."""
        lib.core_chip_reset(self.chip)
        for group in self.groups.values():
            group.on_reset()

    def save(self) -> State:
        """The whole state as plain values."""
        return {name: group._save() for name, group in self.groups.items()}

    def load(self, state: Any) -> None:
        """Take over a saved state: all of it, or StateError and nothing changed."""
        parsed = self.check_state(state)
        for key, group in self.groups.items():
            group._apply(*parsed[key])
        for group in self.groups.values():
            group.loaded()

    def check_state(self, state: Any) -> dict[str, tuple[dict[str, int], State]]:
        """What `load` would apply to each group; StateError when the state cannot be this device's."""
        name = type(self).__name__
        if not isinstance(state, dict) or state.keys() != self.groups.keys():
            raise StateError(f"{name}: not a state of this device")
        where = {key: f"{name}.{key}" if key else name for key in self.groups}
        return {key: group._parse(where[key], state[key]) for key, group in self.groups.items()}

    def register_at(self, number: int) -> tuple[int, int] | None:
        """Offset and width of the register that the window calls `number`."""
        if number >= len(self._slots):
            return None
        register, at, _, _ = self._slots[number]
        return at, register.width

    def _include(self, group: RegisterGroup, offset: int) -> None:
        for register in group.tuned():
            read, write = group._hooks(register)
            self._slots.append((register, offset + register.offset, read, write))

    def _access(self, offset: int, size: int, is_write: bool, value: int) -> int:
        return access(self, offset, size, is_write, value)


class Handler(Protocol):
    """A chip that can be accessed without a bus."""

    @property
    def chip(self) -> Any: ...
    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer: ...


def access(device: Handler, offset: int, size: int, is_write: bool, value: int = 0) -> int:
    """Access a device as the guest does, part by part; for tests and control, not for vCPUs."""
    total, done = 0, 0
    part_size, part_value, reg = ffi.new("uint32_t *"), ffi.new("uint64_t *"), ffi.new("uint32_t *")
    while done < size:
        part_size[0] = min(size - done, 8)
        part_value[0] = (value >> (8 * done)) & ALL_ONES if is_write else 0
        handed_over = lib.core_chip_access(device.chip, offset + done, part_size, is_write, part_value, reg)
        if handed_over < 0:
            raise EmuError(f"access of {size} bytes at {offset:#x}: impossible")
        taken, got = int(part_size[0]), int(part_value[0])
        if handed_over:
            got = _now(device.handle(int(reg[0]), offset + done, taken, is_write, got))
        total |= (got & ((1 << (8 * taken)) - 1)) << (8 * done)
        done += taken
    return 0 if is_write else total


def _now(answer: Answer) -> int:
    """The answer as a number; a device that answers later cannot be asked this way."""
    if isinstance(answer, Deferred):
        return answer.value
    if isinstance(answer, int):
        return answer
    answer.close()
    raise RuntimeError("this access is answered by a coroutine: place the device in a machine")


def _narrow(answer: Deferred | Coroutine[Any, Any, int | None], shift: int, mask: int) -> Answer:
    if isinstance(answer, Deferred):
        answer.narrow(shift, mask)
        return answer
    return _narrowed(answer, shift, mask)


async def _narrowed(answer: Coroutine[Any, Any, int | None], shift: int, mask: int) -> int:
    return ((await answer or 0) >> shift) & mask


def _indexed_read(hook: Callable[[int], Answer], index: int) -> ReadHook:
    return lambda: hook(index)


def _indexed_write(hook: Callable[[int, int], Any], index: int) -> WriteHook:
    return lambda value: hook(index, value)


def replace_offset(register: Register, offset: int) -> Register:
    """The register at another place."""
    return register if register.offset == offset else register.tuned(offset=offset)


def _check_fixed(where: str, register: Register, value: int) -> None:
    """A register that nobody can change must have its reset value in a saved state too."""
    if register.fixed and (value ^ register.reset) & ~(register.writable | register.clear):
        raise StateError(f"{where}.{register.name}: {value:#x} has bits that never change")


def _claim_attribute(cls: type, name: str) -> None:
    for base in cls.__mro__:
        if name in vars(base) and not isinstance(vars(base)[name], _Value | _Values):
            raise TypeError(f"{cls.__name__}: {name} is both a register and a member")


def _new_window(name: str, size: int, registers: list[Register]) -> Any:
    array = ffi.new("core_reg[]", max(1, len(registers)))
    for entry, register in zip(array, registers, strict=False):
        entry.offset, entry.width = register.offset, register.width
        entry.reset, entry.writable, entry.clear = register.reset, register.writable, register.clear
        entry.read_mode = _read_mode(register)
        entry.write_mode = _write_mode(register)
    window = lib.core_window_new(size, array, len(registers))
    if window == ffi.NULL:
        raise EmuError(f"{name}: no window of {size} bytes for {len(registers)} registers")
    return ffi.gc(window, lib.core_chip_free)


def _read_mode(register: Register) -> int:
    if register.read_hook:
        return int(lib.CORE_READ_SYNC)
    return int(lib.CORE_READ_CLEAR if register.read_clear else lib.CORE_READ_MEMORY)


def _write_mode(register: Register) -> int:
    if not register.write_hook:
        return int(lib.CORE_WRITE_MEMORY)
    return int(lib.CORE_WRITE_POSTED if register.posted else lib.CORE_WRITE_SYNC)
