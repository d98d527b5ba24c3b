"""Processors and the threads that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aioemu.errors import MonitorError
from aioemu.protocol.commands.identity import SysEmuTarget
from aioemu.protocol.machine import IoThread, Machine, Vcpu
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class CpuInstanceProperties(Record):
    """Where a processor sits."""

    node_id: int | None = None
    drawer_id: int | None = None
    book_id: int | None = None
    socket_id: int | None = None
    die_id: int | None = None
    cluster_id: int | None = None
    module_id: int | None = None
    core_id: int | None = None
    thread_id: int | None = None


class CpuInfoFast(Record):
    """A processor: its place in the object tree and the host thread that runs it."""

    cpu_index: int
    qom_path: str
    thread_id: int
    target: SysEmuTarget
    props: CpuInstanceProperties | None = None


class IoThreadInfo(Record):
    """A thread that serves devices."""

    id: str
    thread_id: int
    poll_max_ns: int
    poll_grow: int
    poll_shrink: int
    aio_max_batch: int


class HotpluggableCpu(Record):
    """A place for a processor, taken where it has a path."""

    type: str
    vcpus_count: int
    props: CpuInstanceProperties
    qom_path: str | None = None


class VcpusMachine(Machine):
    """A machine that tells its processors."""

    vcpus: Sequence[Vcpu]


class IoThreadsMachine(Machine):
    """A machine that tells its iothreads."""

    iothreads: Mapping[str, IoThread]


@command("query-cpus-fast", needs=("vcpus",))
def query_cpus_fast(machine: VcpusMachine) -> list[CpuInfoFast]:
    """List the processors without disturbing them."""
    return [
        CpuInfoFast(
            cpu_index=vcpu.index,
            qom_path=vcpu.qom_path,
            thread_id=vcpu.thread_id,
            props=_topology(vcpu),
            target=SysEmuTarget.X86_64,
        )
        for vcpu in machine.vcpus
    ]


@command("query-iothreads", needs=("iothreads",))
def query_iothreads(machine: IoThreadsMachine) -> list[IoThreadInfo]:
    """List the threads that serve devices."""
    names = ("poll_max_ns", "poll_grow", "poll_shrink", "aio_max_batch")
    return [
        IoThreadInfo(id=name, thread_id=each.thread_id, **{key: getattr(each.properties, key) for key in names})
        for name, each in machine.iothreads.items()
    ]


@command("query-hotpluggable-cpus", needs=("vcpus",))
def query_hotpluggable_cpus(machine: VcpusMachine) -> list[HotpluggableCpu]:
    """List the places for processors; all are taken, as none can be added yet."""
    if machine.config.machine.type in ("none", "microvm"):
        raise MonitorError("machine does not support hot-plugging CPUs")
    model = machine.config.cpu.name if machine.config.cpu is not None else "max"
    return [
        HotpluggableCpu(type=f"{model}-x86_64-cpu", vcpus_count=1, props=_topology(vcpu), qom_path=vcpu.qom_path)
        for vcpu in reversed(machine.vcpus)
    ]


def _topology(vcpu: Vcpu) -> CpuInstanceProperties:
    return CpuInstanceProperties(**{name.replace("-", "_"): value for name, value in vcpu.topology.items()})


COMMANDS = (query_cpus_fast, query_hotpluggable_cpus, query_iothreads)
