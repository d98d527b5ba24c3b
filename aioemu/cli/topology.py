"""What `-smp` and `-m` come to: whole CPU topologies and memory sizes from what was given of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from aioemu.config import MemoryOptions, OptionValue, Smp
from aioemu.config.grammar import Options, parse_size
from aioemu.config.model import DEFAULT_MEMORY_BYTES
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.cli.draft import Draft

MEMORY_STEP = 8192  # sizes are rounded up to this, as QEMU does
MEMORY_MAX = 1 << 52  # what x86-64 can address
CPUS_MAX = 4096  # beyond any board; each board has its own limit


def make_smp(where: str, values: dict[str, OptionValue]) -> Smp:
    """Fill in what was not given: cores first, then sockets, then threads, so that the product is maxcpus."""
    opts = Options(where, list(values.items()))
    given = {key: opts.number(key, 0, high=CPUS_MAX) if key in opts else None for key in _KEYS}
    opts.close()
    for key, value in given.items():
        if value == 0:
            _fail(where, f"CPU topology parameters must be greater than zero: {key}=0")
    for level in ("clusters", "modules", "drawers", "books"):
        if (given[level] or 1) != 1:
            _fail(where, f"{level} > 1 not supported by this machine's CPU topology")
    cpus, maxcpus = given["cpus"], given["maxcpus"]
    dies, sockets, cores, threads = (given[key] for key in ("dies", "sockets", "cores", "threads"))
    dies = dies or 1
    wanted = maxcpus or cpus
    if wanted is None:
        sockets, cores, threads = sockets or 1, cores or 1, threads or 1
    elif cores is None:
        sockets, threads = sockets or 1, threads or 1
        cores = wanted // (sockets * dies * threads)
    elif sockets is None:
        threads = threads or 1
        sockets = wanted // (dies * cores * threads)
    else:
        threads = threads or wanted // (sockets * dies * cores)
    total = sockets * dies * cores * threads
    smp = Smp(cpus or wanted or total, sockets, dies, cores, threads, wanted or total)
    if total != smp.maxcpus:
        product = f"sockets ({sockets}) * dies ({dies}) * cores ({cores}) * threads ({threads})"
        _fail(where, f"Invalid CPU topology: {product} is not maxcpus ({smp.maxcpus})")
    if smp.cpus > smp.maxcpus:
        _fail(where, f"Invalid CPU topology: cpus ({smp.cpus}) is more than maxcpus ({smp.maxcpus})")
    return smp


_KEYS = ("cpus", "maxcpus", "sockets", "dies", "clusters", "modules", "drawers", "books", "cores", "threads")


def make_memory(draft: Draft) -> MemoryOptions:
    """Sizes in bytes; a plain number is MiB."""
    where, values = draft.memory_where, dict(draft.memory)
    text = values.pop("size", "")
    opts = Options(where, list(values.items()))
    slots, maximum = opts.number("slots", 0, high=256), opts.size("maxmem")
    opts.close()
    size = memory_size(where, str(text)) or DEFAULT_MEMORY_BYTES
    if maximum and maximum < size:
        _fail(where, f"maxmem ({maximum:#x}) is less than the initial memory ({size:#x})")
    if slots and not maximum:
        _fail(where, "slots without maxmem")
    backend = draft.machine_options.get("memory-backend")
    return MemoryOptions(size, slots, maximum, backend, draft.mem_prealloc, draft.mem_path)


def memory_size(where: str, text: str) -> int:
    """Bytes of `-m text`; nothing or 0 means the default."""
    if not text:
        return 0
    size = parse_size(text, "m") if "." not in text or not text[-1].isdigit() else None
    if size is None:
        _fail(where, "Parameter 'size' expects a size (a plain number is MiB; suffix K, M, G, T, P or E)")
    size = -(-size // MEMORY_STEP) * MEMORY_STEP
    if size > MEMORY_MAX:
        _fail(where, f"{text} is more than x86-64 can address")
    return size


def _fail(where: str, message: str) -> NoReturn:
    raise ConfigError(f"{where}: {message}", where)
