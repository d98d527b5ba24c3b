"""A register map as data: classes that say what each register is, compiled once into what the core serves.

`layout = {offset: Reg subclass or name}` says everything: reset values, masks, kinds, named bits, saved state, docs and
what a fuzzer may touch follow from it. Mistakes in a map (overlaps, widths, misspelt hooks) fail when the class is
made, so at import. Not here: addresses, which are the board's.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

Kind = Literal["plain", "read-only", "w1c", "rc", "posted", "sync"]
WIDTHS = (1, 2, 4, 8)  # what a processor can access at once
MAX_SIZE = 1 << 20  # bytes: the core's own bound of a window


class Bits(int):
    """A mask of adjacent bits: `value & Lsr.overrun` tests, `Cr.mode.of(value)` extracts, `.put(value, n)` inserts."""

    __slots__ = ()

    def of(self, value: int) -> int:
        return (value & self) // (self & -self)

    def put(self, value: int, number: int) -> int:
        return (value & ~self) | ((number * (self & -self)) & self)


def bit(number: int) -> Bits:
    """One bit, numbered as the data sheet does."""
    return Bits(1 << number)


def field(high: int, low: int) -> Bits:
    """Bits high:low, as the data sheet writes them."""
    return Bits((1 << (high + 1)) - (1 << low))


class Reg:
    """One register. Subclass it and say what differs; the class's name in lower case is the register's name.

    `writable` are the bits a write stores (all, unless said), `clear` those a written one clears. Hooks in the block
    (`read_<name>`, `write_<name>`) make a direction synchronous; `posted` lets the guest go on before the hook ran.
    """

    name: ClassVar[str | None] = None
    width: ClassVar[int] = 1
    reset: ClassVar[int] = 0
    writable: ClassVar[int | None] = None
    clear: ClassVar[int] = 0
    kind: ClassVar[Kind | None] = None
    posted: ClassVar[bool] = False
    fixed: ClassVar[bool] = False  # what the guest cannot change keeps its reset value: checked when a state is loaded
    count: ClassVar[int] = 1
    stride: ClassVar[int] = 0  # bytes from one to the next of `count`; 0: adjacent


@dataclasses.dataclass(frozen=True, slots=True)
class Register:
    """A compiled register: where it is and how each direction is served."""

    name: str
    offset: int
    width: int = 1
    reset: int = 0
    writable: int = 0
    clear: int = 0
    read_clear: bool = False
    posted: bool = False
    fixed: bool = False
    base_name: str = ""  # of an array's element: the array's name
    index: int | None = None
    read_hook: str | None = None
    write_hook: str | None = None
    bits: Mapping[str, Bits] = dataclasses.field(default_factory=dict)
    about: str = ""

    @property
    def end(self) -> int:
        return self.offset + self.width

    @property
    def mask(self) -> int:
        return (1 << (8 * self.width)) - 1

    @property
    def kind(self) -> str:
        """How it is served, in one word: what a hook sees wins over what memory does."""
        if self.write_hook and self.posted:
            return "posted"
        if self.read_hook or self.write_hook:
            return "sync"
        if self.read_clear:
            return "rc"
        if self.clear:
            return "w1c"
        return "plain" if self.writable else "read-only"

    def tuned(self, **changes: int) -> Register:
        """This register with another reset value or mask, for one instance of a chip."""
        made = dataclasses.replace(self, **changes)  # type: ignore[arg-type]
        check_register(made, made.name)
        return made


Layout = Mapping[int, "str | type[Reg]"]


def snake(name: str) -> str:
    """`LineStatus` as `line_status`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def compile_layout(owner: type, layout: Layout) -> tuple[Register, ...]:
    """The registers of (owner)'s layout, in address order. TypeError when the map is wrong."""
    registers: list[Register] = []
    for offset, entry in sorted(layout.items()):
        registers.extend(_expand(owner, offset, entry))
    registers.sort(key=lambda r: r.offset)
    names = [r.name for r in registers]
    if len(set(names)) != len(names):
        raise TypeError(f"{owner.__name__}: a register's name is used twice")
    check_overlap(owner.__name__, registers)
    _check_hooks(owner, registers)
    return tuple(registers)


def _expand(owner: type, offset: int, entry: str | type[Reg]) -> Iterator[Register]:
    if type(offset) is not int or offset < 0:
        raise TypeError(f"{owner.__name__}: {offset!r} is no register offset")
    if isinstance(entry, str):
        made = _with_hooks(owner, Register(entry, offset, writable=0xFF, base_name=entry))
        if not made.read_hook and not made.write_hook:
            raise TypeError(f"{owner.__name__}: register {entry} needs read_{entry} or write_{entry}")
        yield made
    elif isinstance(entry, type) and issubclass(entry, Reg):
        for index in range(entry.count):
            at = offset + index * (entry.stride or entry.width)
            yield _with_hooks(owner, _from_class(owner, at, entry, index if entry.count > 1 else None), entry)
    else:
        raise TypeError(f"{owner.__name__}: the entry at {offset:#x} is neither a name nor a Reg")


def _from_class(owner: type, offset: int, reg: type[Reg], index: int | None) -> Register:
    name = reg.name or snake(reg.__name__)
    kind = reg.kind
    full = (1 << (8 * reg.width)) - 1
    clear = full if kind == "w1c" and not reg.clear else reg.clear
    default = 0 if kind in ("read-only", "w1c", "rc") else full & ~clear
    made = Register(
        name=name if index is None else f"{name}{index}",
        offset=offset,
        width=reg.width,
        reset=reg.reset,
        writable=default if reg.writable is None else reg.writable,
        clear=clear,
        read_clear=kind == "rc",
        posted=reg.posted or kind == "posted",
        fixed=reg.fixed,
        base_name=name,
        index=index,
        bits={key: value for key, value in vars(reg).items() if isinstance(value, Bits) and not hasattr(Reg, key)},
        about=(reg.__doc__ or "").strip().split("\n")[0] if reg.__doc__ != Reg.__doc__ else "",
    )
    check_register(made, f"{owner.__name__}.{name}")
    if kind == "read-only" and made.writable:
        raise TypeError(f"{owner.__name__}.{name}: read-only, and writable")
    return made


def _with_hooks(owner: type, register: Register, reg: type[Reg] | None = None) -> Register:
    read, write = f"read_{register.base_name}", f"write_{register.base_name}"
    made = dataclasses.replace(
        register,
        read_hook=read if callable(getattr(owner, read, None)) else None,
        write_hook=write if callable(getattr(owner, write, None)) else None,
    )
    where = f"{owner.__name__}.{register.base_name}"
    if made.posted and not made.write_hook:
        raise TypeError(f"{where}: posted, but there is no {write}")
    if reg is not None and reg.kind == "sync" and not (made.read_hook or made.write_hook):
        raise TypeError(f"{where}: synchronous, but there is neither {read} nor {write}")
    if made.read_clear and made.read_hook:
        raise TypeError(f"{where}: cleared by reading, and read by a hook")
    return made


def check_register(register: Register, where: str) -> None:
    """Widths and masks that can be. TypeError otherwise."""
    if register.width not in WIDTHS:
        raise TypeError(f"{where}: {register.width} bytes is no register width")
    for value in (register.reset, register.writable, register.clear, *register.bits.values()):
        if not 0 <= value <= register.mask:
            raise TypeError(f"{where}: {value:#x} does not fit into {register.width} bytes")
    if register.writable & register.clear:
        raise TypeError(f"{where}: a bit is both stored and cleared by writing")


def check_overlap(where: str, registers: list[Register]) -> None:
    """No two registers share a byte; (registers) is in address order."""
    for before, after in itertools.pairwise(registers):
        if after.offset < before.end:
            raise TypeError(f"{where}: {before.name} and {after.name} overlap at {after.offset:#x}")
    if registers and registers[-1].end > MAX_SIZE:
        raise TypeError(f"{where}: {registers[-1].name} is beyond {MAX_SIZE:#x} bytes")


def _check_hooks(owner: type, registers: list[Register]) -> None:
    known = {r.base_name for r in registers}
    for name in dir(owner):
        verb, _, register = name.partition("_")
        if verb in ("read", "write") and register and register not in known and callable(getattr(owner, name)):
            raise TypeError(f"{owner.__name__}: {name} is a hook of no register")


def describe(owner: type[Any]) -> str:
    """The register map of a block as a Markdown table, for the docs."""
    rows = ["| offset | register | bytes | kind | reset | writable | bits |", "|---|---|---|---|---|---|---|"]
    for r in owner.registers:
        named = ", ".join(f"{name} {_span(mask)}" for name, mask in r.bits.items())
        masks = f"{r.writable:#x}" + (f", w1c {r.clear:#x}" if r.clear else "")
        hooks = f" ({'r' if r.read_hook else ''}{'w' if r.write_hook else ''})" if r.kind == "sync" else ""
        rows.append(f"| {r.offset:#x} | {r.name} | {r.width} | {r.kind}{hooks} | {r.reset:#x} | {masks} | {named} |")
    return "\n".join(rows)


def _span(mask: int) -> str:
    high, low = mask.bit_length() - 1, (mask & -mask).bit_length() - 1
    return f"{high}" if high == low else f"{high}:{low}"
