"""Memory as text, `xp /4xw 0`: count, base and size of the cells, sixteen bytes a line."""

from __future__ import annotations

from collections.abc import Callable

from aioemu.errors import EmuError

CELLS_LIMIT = 1 << 16  # what one command prints: more than a screen, less than a denial of service
LINE_BYTES = 16
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}


def dump(read: Callable[[int, int], bytes], address: int, fmt: tuple[str, str, str, str] | None) -> str:
    """The cells from (address) on, read by (read)."""
    count, first, size_letter, second = fmt or ("", "", "", "")
    letter = first or second or "x"
    if letter == "i":
        return "Asm output is not supported: there is no disassembler\n"
    size = 1 if letter == "c" else _SIZES[size_letter or "w"]
    cells = int(count or 1)
    if cells > CELLS_LIMIT:
        return f"at most {CELLS_LIMIT} cells at a time\n"
    address &= (1 << 64) - 1
    out: list[str] = []
    per_line = 8 if letter == "c" else LINE_BYTES // size
    for start in range(0, cells, per_line):
        at = address + start * size
        try:
            data = read(at, min(per_line, cells - start) * size)
        except EmuError:
            return "".join([*out, " Cannot access memory\n"])
        values = (int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size))
        out.append(f"{at:016x}: {' '.join(number(value, letter, size) for value in values)}\n")
    return "".join(out)


def number(value: int, letter: str, size: int) -> str:
    """One value in a base: x, o, d (signed), u or c (a character)."""
    mask = (1 << size * 8) - 1
    value &= mask
    if letter == "x":
        return f"0x{value:0{size * 2}x}"
    if letter == "o":
        return f"0{value:o}"
    if letter == "c":
        return repr(chr(value & 0xFF)) if 0x20 <= value & 0xFF < 0x7F else f"'\\x{value & 0xFF:02x}'"
    if letter == "d":
        return str(value - (value >> (size * 8 - 1) << size * 8))
    return str(value)
