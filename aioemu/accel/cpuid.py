"""The CPUID a guest sees: what the accelerator supports, cut to a model, with features switched and topology put in.

`host` and `max` are everything the accelerator supports; `qemu64` is the plain 64-bit processor that every host has.
A feature that is asked for and not supported is left out and said once (with `enforce`, it is an error). The invariant
TSC is off unless asked for: with it a guest trusts the counter, which under kvm goes on while the machine is paused
(under tcg it stops with the machine, so there it is on).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from aioemu.accel import features
from aioemu.accel.features import Word
from aioemu.config import CpuModel, Smp
from aioemu.errors import ConfigError
from aioemu.log import Log

INDEXED = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX
INDEXED_LEAVES = frozenset({4, 7, 0xB, 0xD, 0x8000001D})
KVM_SIGNATURE = 0x40000000

_log = Log("accel")
_said: set[str] = set()


class Leaf(Struct, frozen=True):
    """One CPUID answer; `flags` as KVM has them."""

    function: int
    index: int = 0
    flags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    def row(self) -> tuple[int, int, int, int, int, int, int]:
        """As the core takes it."""
        return self.function, self.index, self.flags, self.eax, self.ebx, self.ecx, self.edx


class Model(Struct, frozen=True):
    """A processor model: `features` None = all that the accelerator supports."""

    name: str
    description: str
    features: frozenset[str] | None = None
    signature: tuple[int, int, int] | None = None  # family, model, stepping
    brand: str | None = None


_BASELINE = frozenset(
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 sse3 cx16"
    " syscall nx lm lahf-lm hypervisor x2apic tsc-deadline arat kvmclock kvm-nopiodelay kvmclock2 kvm-asyncpf"
    " kvm-steal-time kvm-pv-eoi kvm-pv-unhalt kvmclock-stable-bit".split()
)
MODELS = {
    model.name: model
    for model in (
        Model("host", "the host's processor, all that KVM passes on"),
        Model("max", "everything that the accelerator supports (default)"),
        Model("base", "no features at all, to add them one by one", frozenset(), (0, 0, 0), "aioemu virtual CPU"),
        Model("qemu64", "a plain 64-bit processor that every host has", _BASELINE, (15, 107, 1), "aioemu virtual CPU"),
    )
}
# Properties that are no feature bits; those that change nothing here are accepted because launchers send them.
SETTINGS = frozenset({"vendor", "family", "model", "stepping", "model-id", "kvm"})
_IGNORED = frozenset(
    {"migratable", "host-phys-bits", "host-cache-info", "check", "enforce", "l3-cache", "pmu", "phys-bits"}
)


class _Table:
    """Leaves by (function, index), with single bits and registers changed in place."""

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        self.leaves = {(leaf.function, leaf.index): leaf for leaf in leaves}

    def get(self, word: Word) -> int:
        leaf = self.leaves.get((word.function, word.index))
        return int(getattr(leaf, word.register)) if leaf else 0

    def put(self, word: Word, value: int) -> None:
        key = (word.function, word.index)
        leaf = self.leaves.get(key)
        if leaf is None:
            if not value:
                return
            leaf = Leaf(word.function, word.index, INDEXED if word.function in INDEXED_LEAVES else 0)
        self.leaves[key] = replace(leaf, **{word.register: value & 0xFFFFFFFF})

    def bit(self, name: str, on: bool) -> None:
        found = features.find(name)
        if found:
            word, bit = found
            value = self.get(word)
            self.put(word, value | (1 << bit) if on else value & ~(1 << bit))

    def drop(self, function: int) -> None:
        self.leaves = {key: leaf for key, leaf in self.leaves.items() if key[0] != function}

    def rows(self) -> list[Leaf]:
        return [self.leaves[key] for key in sorted(self.leaves)]


def build_leaves(accel: str, supported: Sequence[Leaf], model: CpuModel, smp: Smp, apic_id: int) -> list[Leaf]:
    """The whole table of one vCPU. ConfigError names an unknown model, feature or value and the nearest known one."""
    found = find_model(model.name, accel)
    table = _Table(supported)
    if not table.leaves:
        return []
    _cut_to_model(table, found)
    table.bit("invtsc", accel == "tcg" and found.features is None)
    _apply_features(table, found, model, _Table(supported))
    _put_topology(table, smp, apic_id)
    return table.rows()


def find_model(name: str, accel: str) -> Model:
    """The model called `name`. `host` needs a host's processor."""
    model = MODELS.get(name)
    if model is None:
        near = difflib.get_close_matches(name, MODELS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(MODELS)}"
        raise ConfigError(f"-cpu {name}: unknown model{hint}", "-cpu")
    if name == "host" and accel == "tcg":
        raise ConfigError("-cpu host: needs the kvm accelerator; with tcg use -cpu max", "-cpu")
    return model


def _cut_to_model(table: _Table, model: Model) -> None:
    for word in features.WORDS:
        keep = table.get(word)
        if model.features is not None:
            for bit in range(32):
                if features.name_of(word, bit) not in model.features:
                    keep &= ~(1 << bit)
        table.put(word, keep)
    table.bit("hypervisor", True)
    if model.signature:
        _put_signature(table, *model.signature)
    if model.brand:
        _put_brand(table, model.brand)


def _apply_features(table: _Table, model: Model, given: CpuModel, supported: _Table) -> None:
    enforce = ("enforce", "on") in given.features
    for name, value in given.features:
        if name in _IGNORED:
            continue
        if name in SETTINGS:
            _apply_setting(table, name, value)
            continue
        found = features.find(name)
        if found is None:
            near = difflib.get_close_matches(name, [*features.FEATURES, *SETTINGS], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"-cpu {model.name}: unknown feature {name}{hint}", "-cpu")
        on = _switch(name, value)
        if on and not supported.get(found[0]) >> found[1] & 1 and name != "hypervisor":
            _say_missing(name, enforce)
            continue
        table.bit(name, on)


def _say_missing(name: str, enforce: bool) -> None:
    if enforce:
        raise ConfigError(f"-cpu: this host does not support the feature {name}", "-cpu")
    if name not in _said:
        _said.add(name)
        _log.warning("-cpu: this host does not support the feature %s: left out", name)


def _switch(name: str, value: str) -> bool:
    if value in ("on", "yes", "true", "y"):
        return True
    if value in ("off", "no", "false", "n"):
        return False
    raise ConfigError(f"-cpu: {name}={value}: on or off", "-cpu")


def _apply_setting(table: _Table, name: str, value: str) -> None:
    if name == "kvm":
        if not _switch(name, value):
            table.drop(KVM_SIGNATURE)
            table.drop(KVM_SIGNATURE + 1)
    elif name == "vendor":
        _put_vendor(table, value)
    elif name == "model-id":
        _put_brand(table, value)
    else:
        parts = dict(zip(("family", "model", "stepping"), _signature(table), strict=True))
        try:
            parts[name] = int(value, 0)
        except ValueError as exc:
            raise ConfigError(f"-cpu: {name}={value}: not a number", "-cpu") from exc
        _put_signature(table, parts["family"], parts["model"], parts["stepping"])


def _signature(table: _Table) -> tuple[int, int, int]:
    eax = table.get(Word(1, 0, "eax"))
    family = (eax >> 8) & 15
    return family + ((eax >> 20) & 0xFF if family == 15 else 0), (eax >> 4) & 15 | (eax >> 12) & 0xF0, eax & 15


def _put_signature(table: _Table, family: int, model: int, stepping: int) -> None:
    base, extended = (15, family - 15) if family >= 15 else (family, 0)
    eax = (extended << 20) | (model >> 4 << 16) | (base << 8) | ((model & 15) << 4) | (stepping & 15)
    table.put(Word(1, 0, "eax"), eax)
    if (0x80000001, 0) in table.leaves:
        table.put(Word(0x80000001, 0, "eax"), eax)


def _put_vendor(table: _Table, vendor: str) -> None:
    raw = vendor.encode("ascii", "replace")
    if len(raw) != 12:
        raise ConfigError(f"-cpu: vendor={vendor}: 12 characters", "-cpu")
    for function in (0, 0x80000000):
        for register, at in (("ebx", 0), ("edx", 4), ("ecx", 8)):
            table.put(Word(function, 0, register), int.from_bytes(raw[at : at + 4], "little"))


def _put_brand(table: _Table, brand: str) -> None:
    raw = brand.encode("ascii", "replace")[:47].ljust(48, b"\0")
    for i in range(12):
        word = Word(0x80000002 + i // 4, 0, ("eax", "ebx", "ecx", "edx")[i % 4])
        table.put(word, int.from_bytes(raw[4 * i : 4 * i + 4], "little"))


def expand(
    name: str, given: tuple[tuple[str, str], ...], accel: str, supported: Sequence[Leaf], *, whole: bool
) -> dict[str, bool | int | str]:
    """Every feature by name, and whether a model has it here; `whole`: with other names of them, and its identity."""
    model = CpuModel(name, given)
    table = _Table(build_leaves(accel, supported, model, Smp(), 0))
    found: dict[str, bool | int | str] = {
        features.OTHER_NAMES.get(feature, feature): bool(table.get(word) >> bit & 1)
        for feature, (word, bit) in features.FEATURES.items()
    }
    if whole:
        found |= {alias: found[features.OTHER_NAMES.get(each, each)] for alias, each in features.ALIASES.items()}
        found |= {each: found[other] for each, other in features.OTHER_NAMES.items()}
        family, number, stepping = _signature(table)
        found |= {"family": family, "model": number, "stepping": stepping, "vendor": _vendor(table)}
        found["model-id"] = _brand(table)
    return found


def _vendor(table: _Table) -> str:
    return _text([table.get(Word(0, 0, register)) for register in ("ebx", "edx", "ecx")])


def _brand(table: _Table) -> str:
    registers = ("eax", "ebx", "ecx", "edx")
    return _text([table.get(Word(0x80000002 + i // 4, 0, registers[i % 4])) for i in range(12)])


def _text(values: list[int]) -> str:
    return b"".join(value.to_bytes(4, "little") for value in values).rstrip(b"\0").decode("ascii", "replace")


# ---- topology -------------------------------------------------------------------------------------------------------


def bits_for(count: int) -> int:
    """How many bits number `count` things."""
    return max(0, count - 1).bit_length()


def apic_ids(smp: Smp) -> list[int]:
    """The APIC id of each possible vCPU: thread, core, die and socket each in whole bits (SDM vol. 3A 9.9.1)."""
    ids = []
    for n in range(smp.maxcpus):
        rest, thread = divmod(n, smp.threads)
        rest, core = divmod(rest, smp.cores)
        socket, die = divmod(rest, smp.dies)
        value = socket
        for part, count in ((die, smp.dies), (core, smp.cores), (thread, smp.threads)):
            value = value << bits_for(count) | part
        ids.append(value)
    return ids


def _put_topology(table: _Table, smp: Smp, apic_id: int) -> None:
    package = smp.dies * smp.cores * smp.threads
    shift = bits_for(smp.dies) + bits_for(smp.cores) + bits_for(smp.threads)
    word = Word(1, 0, "ebx")
    table.put(word, table.get(word) & 0xFF00 | 0x0800 * (not table.get(word) & 0xFF00) | package << 16 | apic_id << 24)
    table.bit("ht", package > 1)
    _put_cache_sharing(table, smp, shift)
    for level, (kind, bits, count) in enumerate(((1, bits_for(smp.threads), smp.threads), (2, shift, package))):
        table.leaves[0xB, level] = Leaf(0xB, level, INDEXED, bits, count, kind << 8 | level, apic_id)
    table.leaves[0xB, 2] = Leaf(0xB, 2, INDEXED, 0, 0, 2, apic_id)
    for index in (3, 4):
        table.leaves.pop((0xB, index), None)
    table.drop(0x1F)
    if (0x80000008, 0) in table.leaves:
        table.put(Word(0x80000008, 0, "ecx"), shift << 12 | package - 1)
        table.bit("cmp-legacy", package > 1 and table.get(Word(0x80000001, 0, "ecx")) != 0)
    if (0x8000001E, 0) in table.leaves:
        core_id = apic_id >> bits_for(smp.threads)
        table.leaves[0x8000001E, 0] = Leaf(0x8000001E, 0, 0, apic_id, smp.threads - 1 << 8 | core_id & 0xFF)
    if table.leaves and max(f for f, _ in table.leaves if f < 0x40000000) > table.get(Word(0, 0, "eax")):
        table.put(Word(0, 0, "eax"), max(f for f, _ in table.leaves if f < 0x40000000))


def _put_cache_sharing(table: _Table, smp: Smp, shift: int) -> None:
    """Caches up to level 2 belong to a core, the others to the package (leaf 4 and AMD's 0x8000001d)."""
    for (function, index), leaf in tuple(table.leaves.items()):
        if function in (4, 0x8000001D) and leaf.eax & 31:
            level = leaf.eax >> 5 & 7
            sharing = (1 << bits_for(smp.threads)) if level < 3 else 1 << shift
            cores = (1 << shift - bits_for(smp.threads)) - 1 if function == 4 else 0
            eax = leaf.eax & 0x3FFF | sharing - 1 << 14 | cores << 26
            table.leaves[function, index] = replace(leaf, eax=eax)
