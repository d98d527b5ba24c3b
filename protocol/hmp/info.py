"""The reports of `info`: what the protocol's queries answer, laid out for people and the tools that read over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.protocol.hmp import network, paging, usernet
from aioemu.protocol.hmp.block import block, blockstats
from aioemu.protocol.hmp.table import HmpCommand, Run, parameters
from aioemu.protocol.qom import root_of

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter
    from aioemu.protocol.machine import QomObject

Values = dict[str, Any]
_THREAD_FIELDS = ("poll_max_ns", "poll_grow", "poll_shrink", "aio_max_batch")


async def _chardev(interpreter: Interpreter, values: Values) -> str:
    return "".join(f"{each.label}: filename={each.filename}\n" for each in await interpreter.qmp("query-chardev"))


async def _cpus(interpreter: Interpreter, values: Values) -> str:
    return "".join(
        f"{'*' if each.cpu_index == interpreter.cpu else ' '} CPU #{each.cpu_index}: thread_id={each.thread_id}\n"
        for each in await interpreter.qmp("query-cpus-fast")
    )


async def _hotpluggable(interpreter: Interpreter, values: Values) -> str:
    out = ["Hotpluggable CPUs:\n"]
    for each in await interpreter.qmp("query-hotpluggable-cpus"):
        out.append(f'  type: "{each.type}"\n  vcpus_count: "{each.vcpus_count}"\n')
        if each.qom_path is not None:
            out.append(f'  qom_path: "{each.qom_path}"\n')
        out.append("  CPUInstance Properties:\n")
        for name in each.props.__struct_fields__:
            value = getattr(each.props, name)
            if value is not None:
                out.append(f'    {name.replace("_", "-")}: "{value}"\n')
    return "".join(out)


async def _history(interpreter: Interpreter, values: Values) -> str:
    return "".join(f"{at}: '{line}'\n" for at, line in enumerate(interpreter.history))


async def _balloon(interpreter: Interpreter, values: Values) -> str:
    return f"balloon: actual={(await interpreter.qmp('query-balloon')).actual >> 20}\n"


async def _memdev(interpreter: Interpreter, values: Values) -> str:
    out = []
    for each in await interpreter.qmp("query-memdev"):
        flags = {name: "true" if getattr(each, name) else "false" for name in ("merge", "dump", "prealloc", "share")}
        lines = [f"memory backend: {each.id}", f"  size:  {each.size}", *(f"  {n}: {v}" for n, v in flags.items())]
        out.append("\n".join([*lines, "  policy: default", "  host nodes:", ""]))
    return "\n".join(out)


async def _iothreads(interpreter: Interpreter, values: Values) -> str:
    out = []
    for each in await interpreter.qmp("query-iothreads"):
        out.append(f"{each.id}:\n  thread_id={each.thread_id}\n")
        out += [f"  {name.replace('_', '-')}={getattr(each, name)}\n" for name in _THREAD_FIELDS]
    return "".join(out)


async def _kvm(interpreter: Interpreter, values: Values) -> str:
    info = await interpreter.qmp("query-kvm")
    return f"kvm support: {'enabled' if info.enabled else 'disabled'}\n"


async def _memory_size(interpreter: Interpreter, values: Values) -> str:
    info = await interpreter.qmp("query-memory-size-summary")
    return f"base memory: {info.base_memory}\nplugged memory: {info.plugged_memory}\n"


async def _name(interpreter: Interpreter, values: Values) -> str:
    info = await interpreter.qmp("query-name")
    return f"{info.name}\n" if info.name else ""


async def _qom_tree(interpreter: Interpreter, values: Values) -> str:
    out: list[str] = []
    _print_node(out, root_of(interpreter.machine), "", 0)
    return "".join(out)


def _print_node(out: list[str], node: QomObject, name: str, depth: int) -> None:
    out.append(f"{'  ' * depth}/{name} ({node.type})\n")
    for child_name, child in sorted(node.children().items()):
        _print_node(out, child, child_name, depth + 1)


async def _registers(interpreter: Interpreter, values: Values) -> str:
    chosen = [each.index for each in interpreter.machine.vcpus] if values["a"] else [interpreter.cpu]
    return "".join(f"\nCPU#{index}\n{interpreter.machine.registers(index)}" for index in chosen)


async def _status(interpreter: Interpreter, values: Values) -> str:
    info = await interpreter.qmp("query-status")
    state = "running" if info.running else "paused"
    detail = "" if info.status.value in ("running", "paused") else f" ({info.status.value})"
    return f"VM status: {state}{detail}\n"


async def _uuid(interpreter: Interpreter, values: Values) -> str:
    return f"{(await interpreter.qmp('query-uuid')).uuid}\n"


async def _version(interpreter: Interpreter, values: Values) -> str:
    info = await interpreter.qmp("query-version")
    return f"{info.qemu.major}.{info.qemu.minor}.{info.qemu.micro} ({info.package})\n"


def _report(name: str) -> Run:
    """A report that the machine writes itself."""

    async def run(interpreter: Interpreter, values: Values) -> str:
        text: str = getattr(interpreter.machine, name)()
        return text

    return run


def _told(text: str) -> Run:
    """A report about what there never is here."""

    async def run(interpreter: Interpreter, values: Values) -> str:
        return text

    return run


async def _block_jobs(interpreter: Interpreter, values: Values) -> str:
    jobs = await interpreter.qmp("query-jobs")
    lines = [
        f"{each.id}: {each.type.value}, {each.status.value}, {each.current_progress} of {each.total_progress}\n"
        for each in jobs
    ]
    return "".join(lines) or "No active jobs\n"


async def _dump(interpreter: Interpreter, values: Values) -> str:
    info = await interpreter.qmp("query-dump")
    done = (
        f"Finished: {100 * info.completed / info.total:.2f} %\n" if info.status.value == "active" and info.total else ""
    )
    return f"Status: {info.status.value}\n{done}"


async def _memory_devices(interpreter: Interpreter, values: Values) -> str:
    return "".join(f"{each}\n" for each in await interpreter.qmp("query-memory-devices"))


def _fixed_reports() -> tuple[HmpCommand, ...]:
    """What people and tools ask for, with what is true of every machine here."""
    return (
        HmpCommand(
            "block-jobs", "", "show progress of ongoing block device operations", _block_jobs, qmp=("query-jobs",)
        ),
        HmpCommand("dump", "", "Display the latest dump status", _dump, qmp=("query-dump",)),
        HmpCommand("memory-devices", "", "show memory devices", _memory_devices, qmp=("query-memory-devices",)),
        HmpCommand("mice", "", "show which guest mouse is receiving events", _told("No mouse devices connected\n")),
        HmpCommand("numa", "", "show NUMA information", _told("0 nodes\n")),
        HmpCommand("snapshots", "", "show the currently saved VM snapshots", _told(NO_SNAPSHOTS)),
        HmpCommand("tpm", "", "show the TPM device", _told("")),
        HmpCommand("vnc", "", "show the vnc server status", _told("None\n")),
    )


NO_SNAPSHOTS = "no block device can store vmstate for snapshot\n"

INFO: tuple[HmpCommand, ...] = (
    HmpCommand(
        "block",
        "[-n] [-v] [device]",
        "show info of one block device or all block devices (-n: show named nodes; -v: show details)",
        block,
        parameters("n:flag", "v:flag", "device?"),
        ("query-block", "query-named-block-nodes"),
    ),
    HmpCommand("blockstats", "", "show block device statistics", blockstats, qmp=("query-blockstats",)),
    HmpCommand("balloon", "", "show balloon information", _balloon, qmp=("query-balloon",)),
    HmpCommand("chardev", "", "show the character devices", _chardev, qmp=("query-chardev",)),
    HmpCommand("cpus", "", "show infos for each CPU", _cpus, qmp=("query-cpus-fast",)),
    HmpCommand("history", "", "show the command line history", _history),
    HmpCommand(
        "hotpluggable-cpus",
        "",
        "show information about hotpluggable CPUs",
        _hotpluggable,
        qmp=("query-hotpluggable-cpus",),
    ),
    HmpCommand("iothreads", "", "show iothreads", _iothreads, qmp=("query-iothreads",)),
    HmpCommand("irq", "", "show the interrupts statistics", _report("irqs"), needs=("irqs",)),
    HmpCommand("kvm", "", "show KVM information", _kvm, qmp=("query-kvm",)),
    HmpCommand("memdev", "", "show memory backends", _memdev, qmp=("query-memdev",)),
    HmpCommand(
        "memory_size_summary",
        "",
        "show the amount of initially allocated and present hotpluggable memory",
        _memory_size,
        qmp=("query-memory-size-summary",),
    ),
    HmpCommand("mtree", "", "show memory tree", _report("mtree"), needs=("mtree",)),
    HmpCommand("name", "", "show the current VM name", _name, qmp=("query-name",)),
    HmpCommand("pci", "", "show PCI info", _report("pci_report"), needs=("pci_report",)),
    HmpCommand("qom-tree", "", "show QOM composition tree", _qom_tree, qmp=("qom-list",)),
    HmpCommand("qtree", "", "show device tree", _report("qtree"), needs=("qtree",)),
    HmpCommand(
        "registers",
        "[-a]",
        "show the cpu registers (-a: show register info for all cpus)",
        _registers,
        parameters("a:flag"),
        needs=("registers", "vcpus"),
    ),
    HmpCommand("status", "", "show the current VM status (running|paused)", _status, qmp=("query-status",)),
    network.INFO,
    usernet.INFO,
    *paging.INFO,
    *_fixed_reports(),
    HmpCommand("uuid", "", "show the current VM UUID", _uuid, qmp=("query-uuid",)),
    HmpCommand("version", "", "show the version", _version, qmp=("query-version",)),
)
