"""Guest memory as a core file, and its checksum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.errors import MonitorError
from aioemu.protocol.hmp.table import HmpCommand, parameters

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter

Values = dict[str, Any]
SUM_LIMIT = 1 << 20


async def _dump_guest_memory(interpreter: Interpreter, values: Values) -> str:
    """`protocol` is a file here, as in the monitor people know."""
    if values["w"] or any(values[letter] for letter in "zlsR"):
        raise MonitorError("only ELF is written: no other format is there")
    given = {"paging": values["p"], "detach": values["d"], "protocol": f"file:{values['filename']}"}
    given |= {name: values[name] for name in ("begin", "length") if values[name] is not None}
    await interpreter.qmp("dump-guest-memory", given)
    return ""


async def _sum(interpreter: Interpreter, values: Values) -> str:
    """The BSD checksum: each byte added to the sum rotated right by one."""
    total = 0
    if not 0 <= values["size"] <= SUM_LIMIT:
        return f"at most {SUM_LIMIT} bytes at a time\n"
    for byte in interpreter.machine.memory.read(values["start"], values["size"]):
        total = ((total >> 1 | total << 15) + byte) & 0xFFFF
    return f"{total:05d}\n"


COMMANDS: tuple[HmpCommand, ...] = (
    HmpCommand(
        "dump-guest-memory",
        "[-p] [-d] [-z|-l|-s|-w] [-R] filename [begin length]",
        "dump guest memory into file 'filename'",
        _dump_guest_memory,
        parameters(
            "p:flag",
            "d:flag",
            "z:flag",
            "l:flag",
            "s:flag",
            "w:flag",
            "R:flag",
            "filename:filename",
            "begin:number?",
            "length:number?",
        ),
        ("dump-guest-memory",),
    ),
    HmpCommand(
        "sum",
        "addr size",
        "compute the checksum of a memory region",
        _sum,
        parameters("start:number", "size:number"),
        needs=("memory",),
    ),
)
