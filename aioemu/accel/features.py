"""CPUID feature bits by the names that `-cpu` takes: one string a word, bit 0 first, `.` where a bit has no name.

Sources: Intel SDM vol. 2A CPUID, AMD APM vol. 3 appendix E, Linux Documentation/virt/kvm/x86/cpuid.rst.
"""

from __future__ import annotations

from msgspec import Struct


class Word(Struct, frozen=True, order=True):
    """One register of one leaf."""

    function: int
    index: int
    register: str


_NAMES: dict[Word, str] = {
    Word(
        0x1, 0, "edx"
    ): "fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov pat pse36 pn clflush . ds acpi"
    " mmx fxsr sse sse2 ss ht tm ia64 pbe",
    Word(
        0x1, 0, "ecx"
    ): "sse3 pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid . fma cx16 xtpr pdcm . pcid dca"
    " sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor",
    Word(0x6, 0, "eax"): ". . arat",
    Word(0x7, 0, "ebx"): "fsgsbase tsc-adjust sgx bmi1 hle avx2 . smep bmi2 erms invpcid rtm . . mpx . avx512f avx512dq"
    " rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl",
    Word(
        0x7, 0, "ecx"
    ): ". avx512vbmi umip pku ospke waitpkg avx512vbmi2 . gfni vaes vpclmulqdq avx512vnni avx512bitalg"
    " . avx512-vpopcntdq . la57 . . . . . rdpid . bus-lock-detect cldemote . movdiri movdir64b . sgxlc pks",
    Word(0x7, 0, "edx"): ". . avx512-4vnniw avx512-4fmaps fsrm . . . avx512-vp2intersect . md-clear . . . serialize ."
    " tsx-ldtrk . . arch-lbr . amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities"
    " core-capability ssbd",
    Word(0x7, 1, "eax"): ". . . . avx-vnni avx512-bf16 . cmpccxadd . . fzrm fsrs fsrc . . . . fred lkgs wrmsrns ."
    " amx-fp16 . avx-ifma . . lam",
    Word(0xD, 1, "eax"): "xsaveopt xsavec xgetbv1 xsaves xfd",
    Word(0x40000001, 0, "eax"): "kvmclock kvm-nopiodelay kvm-mmu kvmclock2 kvm-asyncpf kvm-steal-time kvm-pv-eoi"
    " kvm-pv-unhalt . kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield"
    " kvm-asyncpf-int kvm-msi-ext-dest-id . . . . . . . . kvmclock-stable-bit",
    Word(
        0x80000001, 0, "edx"
    ): ". . . . . . . . . . . syscall . . . . . . . . nx . mmxext . . fxsr-opt pdpe1gb rdtscp . lm 3dnowext 3dnow",
    Word(0x80000001, 0, "ecx"): "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs"
    " xop skinit wdt . lwp fma4 tce . nodeid-msr . tbm topoext perfctr-core perfctr-nb",
    Word(0x80000007, 0, "edx"): ". . . . . . . . invtsc",
    Word(0x80000008, 0, "ebx"): "clzero . xsaveerptr . . . . . . wbnoinvd . . ibpb . ibrs amd-stibp . stibp-always-on"
    " . . . . . . amd-ssbd virt-ssbd amd-no-ssb . amd-psfd",
    Word(0x8000000A, 0, "edx"): "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists . ."
    " pause-filter . pfthreshold avic . v-vmsave-vmload vgif",
}
ALIASES = {
    "pni": "sse3", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "sse4-1": "sse4.1", "sse4-2": "sse4.2", "xd": "nx",
    "i64": "lm", "ffxsr": "fxsr-opt", "sha": "sha-ni", "tsc_deadline": "tsc-deadline", "ds_cpl": "ds-cpl",
    "lahf_lm": "lahf-lm", "cmp_legacy": "cmp-legacy", "fxsr_opt": "fxsr-opt", "nodeid_msr": "nodeid-msr",
    "tsc_adjust": "tsc-adjust", "perfctr_core": "perfctr-core", "perfctr_nb": "perfctr-nb", "svm_lock": "svm-lock",
    "nrip_save": "nrip-save", "tsc_scale": "tsc-scale", "vmcb_clean": "vmcb-clean", "pause_filter": "pause-filter",
    "kvm_nopiodelay": "kvm-nopiodelay", "kvm_mmu": "kvm-mmu", "kvm_asyncpf": "kvm-asyncpf",
    "kvm_steal_time": "kvm-steal-time", "kvm_pv_eoi": "kvm-pv-eoi", "kvm_pv_unhalt": "kvm-pv-unhalt",
}  # fmt: skip

OTHER_NAMES = {"sse3": "pni"}  # what launchers know by another name than the manual's

FEATURES: dict[str, tuple[Word, int]] = {
    name: (word, bit) for word, names in _NAMES.items() for bit, name in enumerate(names.split()) if name != "."
}
WORDS: tuple[Word, ...] = tuple(_NAMES)


def find(name: str) -> tuple[Word, int] | None:
    """Where a feature's bit is; None for a name that is no feature."""
    return FEATURES.get(ALIASES.get(name, name))


def name_of(word: Word, bit: int) -> str | None:
    """The name of a bit, if it has one."""
    names = _NAMES[word].split() if word in _NAMES else []
    return names[bit] if bit < len(names) and names[bit] != "." else None
