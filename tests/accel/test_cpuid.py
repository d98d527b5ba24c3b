"""The CPUID a guest sees: models, features by name, topology."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.accel import features
from aioemu.accel.cpuid import INDEXED, Leaf, apic_ids, build_leaves
from aioemu.accel.features import Word
from aioemu.config import CpuModel, Smp
from aioemu.errors import ConfigError

ALL = 0xFFFFFFFF
ONE = Smp()
HOST = [
    Leaf(0, 0, 0, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69),
    Leaf(1, 0, 0, 0x000906EA, 0x00100800, ALL & ~(1 << 27), ALL),
    Leaf(4, 0, INDEXED, 0x1C004121, 0x01C0003F, 0x3F),
    Leaf(4, 1, INDEXED, 0x1C03C163, 0x02C0003F, 0x3FFF),
    Leaf(7, 0, INDEXED, 1, ALL, ALL, ALL),
    Leaf(0xB, 0, INDEXED, 1, 2, 0x100, 77),
    Leaf(0x40000000, 0, 0, 0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D),
    Leaf(0x40000001, 0, 0, 0x01007EFB),
    Leaf(0x80000000, 0, 0, 0x80000008),
    Leaf(0x80000001, 0, 0, 0, 0, 0x121, 0x2C100800),
    Leaf(0x80000007, 0, 0, 0, 0, 0, 0x100),
    Leaf(0x80000008, 0, 0, 0x3027, 0, 0, 0),
]


def leaves(cpu: str, smp: Smp = ONE, apic_id: int = 0, accel: str = "kvm") -> dict[tuple[int, int], Leaf]:
    """The table of one vCPU, by function and index; `cpu` is `name,x=on,y=off`."""
    name, *rest = cpu.split(",")
    model = CpuModel(name, tuple((item.split("=")[0], item.split("=")[1]) for item in rest))
    return {(leaf.function, leaf.index): leaf for leaf in build_leaves(accel, HOST, model, smp, apic_id)}


def has(table: dict[tuple[int, int], Leaf], name: str) -> bool:
    """Whether the guest sees a feature."""
    found = features.find(name)
    assert found is not None, name
    word, bit = found
    leaf = table.get((word.function, word.index))
    return leaf is not None and bool(getattr(leaf, word.register) >> bit & 1)


def test_host_passes_everything_but_the_invariant_tsc() -> None:
    """`host` is what the accelerator supports; a counter that goes on in a pause is not trusted unasked."""
    table = leaves("host")

    assert has(table, "avx2")
    assert has(table, "sse4.2")
    assert has(table, "hypervisor")
    assert not has(table, "invtsc")
    assert has(leaves("host,invtsc=on"), "invtsc")


def test_qemu64_is_plain() -> None:
    """`qemu64` has the 64-bit baseline and none of the later vector extensions."""
    table = leaves("qemu64")

    assert has(table, "lm")
    assert has(table, "sse2")
    assert has(table, "syscall")
    assert has(table, "nx")
    assert not has(table, "avx")
    assert not has(table, "avx2")
    assert not has(table, "xsave")


def test_features_switch() -> None:
    """Features go on and off by QEMU's names and their aliases, in the order given."""
    assert not has(leaves("max,avx2=off"), "avx2")
    assert has(leaves("max,avx2=off,avx2=on"), "avx2")
    assert not has(leaves("max,sse4_1=off"), "sse4.1")


def test_unsupported_feature_is_left_out_or_refused() -> None:
    """What the host has not is not invented; with enforce it is an error."""
    assert not has(leaves("max,svm=on"), "svm")
    with pytest.raises(ConfigError, match="does not support the feature svm"):
        leaves("max,svm=on,enforce=on")


@pytest.mark.parametrize(
    ("cpu", "message"),
    [
        ("hots", "did you mean host"),
        ("max,avx22=on", "did you mean avx2"),
        ("max,avx2=maybe", "on or off"),
        ("max,vendor=short", "12 characters"),
        ("max,family=x", "not a number"),
    ],
)
def test_mistakes_are_named(cpu: str, message: str) -> None:
    """An unknown model, feature or value is an error that says what was probably meant."""
    with pytest.raises(ConfigError, match=message):
        leaves(cpu)


def test_host_needs_kvm() -> None:
    """There is no host processor to pass on under the software CPU."""
    with pytest.raises(ConfigError, match="kvm"):
        leaves("host", accel="tcg")


def test_signature_and_names() -> None:
    """family, model, stepping, vendor and model-id appear where the SDM puts them."""
    table = leaves("max,family=25,model=33,stepping=2,vendor=AuthenticAMD,model-id=A CPU")

    assert table[1, 0].eax == (25 - 15) << 20 | 2 << 16 | 15 << 8 | 1 << 4 | 2
    assert table[0, 0].ebx.to_bytes(4, "little") == b"Auth"
    assert table[0x80000002, 0].eax.to_bytes(4, "little") == b"A CP"


def test_kvm_signature_can_be_hidden() -> None:
    """kvm=off hides the hypervisor's leaves."""
    assert (0x40000000, 0) in leaves("max")
    assert (0x40000000, 0) not in leaves("max,kvm=off")


def test_topology_of_threads_cores_and_sockets() -> None:
    """Leaf 1, 4 and 0xb agree on how processors share packages and cores."""
    smp = Smp(cpus=12, sockets=2, dies=1, cores=3, threads=2, maxcpus=12)
    ids = apic_ids(smp)
    table = leaves("max", smp, ids[7])

    assert ids == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]
    assert table[1, 0].ebx >> 24 == 9
    assert table[1, 0].ebx >> 16 & 0xFF == 6
    assert (table[0xB, 0].eax, table[0xB, 0].ebx, table[0xB, 0].edx) == (1, 2, 9)
    assert (table[0xB, 1].eax, table[0xB, 1].ebx) == (3, 6)
    assert table[4, 0].eax >> 14 & 0xFFF == 1  # level 1 belongs to two threads
    assert table[0x80000008, 0].ecx == 3 << 12 | 5


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4))
def test_apic_ids_are_unique_and_ordered(sockets: int, dies: int, cores: int, threads: int) -> None:
    """Every processor of any topology has its own id, and packages do not mix."""
    count = sockets * dies * cores * threads
    ids = apic_ids(Smp(count, sockets, dies, cores, threads, count))

    assert len(set(ids)) == count
    assert ids == sorted(ids)


def test_every_feature_name_is_findable() -> None:
    """Names are unique: each leads back to its own bit."""
    for name, (word, bit) in features.FEATURES.items():
        assert features.name_of(word, bit) == name
    assert features.find("nonsense") is None
    assert features.name_of(Word(0x123, 0, "eax"), 0) is None
