"""The machine itself: board, accelerators, processors, memory, boot, identity, clock."""

from __future__ import annotations

from aioemu.cli.draft import Draft, Values
from aioemu.cli.reading import Argument
from aioemu.cli.topology import memory_size
from aioemu.config import AccelOptions, CpuModel, RtcOptions, SmbiosOptions

# -machine keys that concern the boot, by the draft's field
_BOOT_KEYS = {"kernel": "kernel", "initrd": "initrd", "dtb": "dtb", "firmware": "firmware", "append": "append"}
_ACCEL_KEYS = ("kernel-irqchip", "kvm-shadow-mem", "igd-passthru")  # taken from -machine in former times
SMBIOS_TYPES_MAX = 255


def machine(draft: Draft, arg: Argument) -> None:
    """Board and its options; several add up."""
    opts = arg.opts
    draft.machine_type = opts.text("type") or draft.machine_type
    accelerators = opts.text("accel")
    if accelerators is not None:
        draft.machine_accel = accelerators.split(":")
    for key, value in opts.rest().items():
        name = key.replace("_", "-")
        if name in _BOOT_KEYS:
            setattr(draft, _BOOT_KEYS[name], str(value))
        elif name in ("smp", "boot", "memory") and isinstance(value, dict):
            _nested(draft, name, value, arg.where)
        else:
            draft.machine_options[name] = value


def _nested(draft: Draft, name: str, value: Values, where: str) -> None:
    """`smp.cpus=2` and the like: another spelling of the option."""
    renamed = {"max-size": "maxmem"} if name == "memory" else {}
    target: Values = getattr(draft, name)
    target.update({renamed.get(key, key): text for key, text in value.items()})
    if name != "boot":
        setattr(draft, f"{name}_where", where)


def accel(draft: Draft, arg: Argument) -> None:
    """One more accelerator to try."""
    name = arg.opts.need("accel")
    if not name or ":" in name:
        arg.opts.fail(f"invalid accelerator '{name}': -accel takes one, and may be repeated")
    draft.accel.append(AccelOptions(name, arg.opts.rest()))


def enable_kvm(draft: Draft, arg: Argument) -> None:
    """KVM or nothing."""
    draft.accel.append(AccelOptions("kvm"))


def cpu(draft: Draft, arg: Argument) -> None:
    """The last one counts; `+x` and `-x` apply after `x=value`, as QEMU has it."""
    name, *words = arg.text.split(",")
    if not name:
        arg.opts.fail("a CPU model is missing")
    plain, plus, minus = list[tuple[str, str]](), list[tuple[str, str]](), list[tuple[str, str]]()
    for word in words:
        key, equals, value = word.partition("=")
        if not key or key in "+-":
            arg.opts.fail("empty CPU feature")
        if key[0] == "+":
            plus.append((key[1:], "on"))
        elif key[0] == "-":
            minus.append((key[1:], "off"))
        else:
            plain.append((key, value if equals else "on"))
    draft.cpu = CpuModel(name, (*plain, *plus, *minus))


def smp(draft: Draft, arg: Argument) -> None:
    """Counts; several add up."""
    draft.smp.update(arg.opts.rest())
    draft.smp_where = arg.where


def memory(draft: Draft, arg: Argument) -> None:
    """Sizes; several add up, the last size counts."""
    given = arg.opts.rest()
    memory_size(arg.where, str(given.get("size", "")))
    draft.memory.update(given)
    draft.memory_where = arg.where


def mem_prealloc(draft: Draft, arg: Argument) -> None:
    """Allocate at the start."""
    draft.mem_prealloc = True


def no_acpi(draft: Draft, arg: Argument) -> None:
    """The old spelling of acpi=off."""
    draft.machine_options["acpi"] = "off"


def uuid(draft: Draft, arg: Argument) -> None:
    """The guest's identity."""
    from uuid import UUID

    try:
        draft.uuid = UUID(arg.text)
    except ValueError:
        arg.opts.fail("failed to parse UUID string: wrong format")


def boot(draft: Draft, arg: Argument) -> None:
    """Order and menu; several add up."""
    opts = arg.opts
    for key in ("order", "once"):
        value = opts.text(key)
        if value is not None:
            _check_order(arg, value)
            draft.boot[key] = value
    for key in ("menu", "strict"):
        if key in opts:
            draft.boot[key] = opts.flag(key, False)
    for key in ("splash", "splash-time", "reboot-timeout"):
        if key in opts:
            draft.boot[key] = opts.text(key)
    opts.close()


def _check_order(arg: Argument, drives: str) -> None:
    for at, drive in enumerate(drives):
        if not "a" <= drive <= "p":
            arg.opts.fail(f"Invalid boot device '{drive}'")
        if drive in drives[:at]:
            arg.opts.fail(f"Boot device '{drive}' was given twice")


def rtc(draft: Draft, arg: Argument) -> None:
    """The clock's base and source."""
    base = arg.opts.text("base") or draft.rtc.base
    if base not in ("utc", "localtime"):
        _check_date(arg, base)
    clock = arg.opts.choice("clock", ("host", "rt", "vm"), draft.rtc.clock)
    driftfix = arg.opts.choice("driftfix", ("none", "slew"), draft.rtc.driftfix)
    arg.opts.close()
    draft.rtc = RtcOptions(base, clock, driftfix)


def _check_date(arg: Argument, base: str) -> None:
    from datetime import datetime

    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"):
        try:
            datetime.strptime(base, form)
        except ValueError:
            continue
        return
    arg.opts.fail(f"invalid datetime format '{base}': utc, localtime, 2006-06-17T16:01:21 or 2006-06-17")


def smbios(draft: Draft, arg: Argument) -> None:
    """A table from a file, or fields of one type. A key may be repeated (path=, value=): then it is a list."""
    opts = arg.opts
    if "file" in opts:
        draft.smbios.append(SmbiosOptions(file=opts.text("file")))
        opts.close()
        return
    if "type" not in opts:
        opts.fail("one of file= and type= is missing")
    number = opts.number("type", 0, high=SMBIOS_TYPES_MAX)
    values: Values = {}
    for key in opts.left():
        given = opts.every(key)
        values[key] = given[0] if len(given) == 1 else given
    draft.smbios.append(SmbiosOptions(type=number, values=values))
