"""The text commands that do something; `info` and its reports are in their own module."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from aioemu.config.chardev_options import parse_chardev
from aioemu.config.grammar import Options
from aioemu.devices.scancodes import key_numbers
from aioemu.errors import MonitorError
from aioemu.protocol.framing import encode
from aioemu.protocol.hmp import absent, dumping, network, usernet
from aioemu.protocol.hmp.block import COMMANDS as BLOCK_COMMANDS
from aioemu.protocol.hmp.memory import dump, number
from aioemu.protocol.hmp.table import HmpCommand, Run, find, parameters

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter

Values = dict[str, Any]


def _silent(name: str, arguments: Callable[[Values], Values] = dict) -> Run:
    """Run a command of the protocol; it prints nothing."""

    async def run(interpreter: Interpreter, values: Values) -> str:
        given = {key: value for key, value in arguments(values).items() if value is not None}
        await interpreter.qmp(name, given)
        return ""

    return run


async def _help(interpreter: Interpreter, values: Values) -> str:
    words = (values["name"] or "").split()
    if not words:
        return "".join(each.line for each in interpreter.commands)
    if words == ["info"]:
        return await _info(interpreter, {})
    known = interpreter.info if words[0] == "info" and len(words) > 1 else interpreter.commands
    command = find(known, words[-1])
    if command is None:
        return f"unknown command: '{' '.join(words)}'\n"
    return f"info {command.line}" if known is interpreter.info else command.line


async def _info(interpreter: Interpreter, values: Values) -> str:
    return "".join(f"info {each.line}" for each in interpreter.info)


async def _cpu(interpreter: Interpreter, values: Values) -> str:
    if values["index"] not in {each.index for each in interpreter.machine.vcpus}:
        return "invalid CPU index\n"
    interpreter.cpu = values["index"]
    return ""


async def _print(interpreter: Interpreter, values: Values) -> str:
    letters = values["format"] or ("", "", "", "")
    letter = letters[1] or letters[3] or "x"
    value = values["expression"]
    return (f"{value & (1 << 64) - 1:#x}" if letter == "x" else number(value, letter, 8)) + "\n"


async def _xp(interpreter: Interpreter, values: Values) -> str:
    return dump(interpreter.machine.memory.read, values["address"], values["format"])


async def _x(interpreter: Interpreter, values: Values) -> str:
    def read(address: int, size: int) -> bytes:
        return bytes(interpreter.machine.virtual.read(interpreter.cpu, address, size))

    return dump(read, values["address"], values["format"])


async def _chardev_add(interpreter: Interpreter, values: Values) -> str:
    options = parse_chardev(Options.parse("chardev-add", values["args"], "backend"))
    chardevs = interpreter.machine.chardevs
    if options.id in chardevs:
        raise MonitorError(f"Chardev with id '{options.id}' already exists")
    chardev = chardevs.add(options)
    try:
        await chardev.open()
    except BaseException:
        chardevs.remove(options.id)
        raise
    return ""


async def _ringbuf_read(interpreter: Interpreter, values: Values) -> str:
    text = await interpreter.qmp("ringbuf-read", values)
    shown = (letter if letter.isprintable() or letter in "\n\t" else f"\\{ord(letter):03o}" for letter in text)
    return "".join(shown) + "\n"


async def _object_add(interpreter: Interpreter, values: Values) -> str:
    """Values are text here, as on the command line: the object's type reads them."""
    given = Options.parse("object_add", values["object"], "qom-type").rest()
    kind, name = given.pop("qom-type", None), given.pop("id", None)
    if kind is None or name is None:
        raise MonitorError(f"Parameter '{'qom-type' if kind is None else 'id'}' is missing")
    await interpreter.machine.objects.add(kind, name, given)
    return ""


async def _device_add(interpreter: Interpreter, values: Values) -> str:
    await interpreter.qmp("device_add", Options.parse("device_add", values["device"], "driver").rest())
    return ""


async def _qom_list(interpreter: Interpreter, values: Values) -> str:
    if values["path"] is None:
        return "/\n"
    return "".join(f"{each.name} ({each.type})\n" for each in await interpreter.qmp("qom-list", values))


async def _qom_get(interpreter: Interpreter, values: Values) -> str:
    value = msgspec.to_builtins(await interpreter.qmp("qom-get", values))
    return encode(value, pretty=True).decode() + "\n"


async def _qom_set(interpreter: Interpreter, values: Values) -> str:
    try:
        value = msgspec.json.decode(values["value"])
    except (msgspec.MsgspecError, RecursionError):
        value = {"on": True, "off": False}.get(values["value"], values["value"])
    await interpreter.qmp("qom-set", {**values, "value": value})
    return ""


async def _memsave(interpreter: Interpreter, values: Values) -> str:
    await interpreter.qmp("memsave", {**values, "cpu-index": interpreter.cpu})
    return ""


async def _sendkey(interpreter: Interpreter, values: Values) -> str:
    """Names and 0x numbers with `-` between them; `<` is the key less."""
    keys = []
    for name in values["keys"].split("-"):
        name = "less" if name == "<" else name
        if name in key_numbers():
            keys.append(key_numbers()[name])
        elif re.fullmatch("0x[0-9a-fA-F]{1,2}", name):
            keys.append(int(name, 16))
        else:
            raise MonitorError(f"invalid parameter: {name}")
    given = {"keys": [{"type": "number", "data": key} for key in keys], "hold-time": values["hold_ms"]}
    await interpreter.qmp("send-key", {key: value for key, value in given.items() if value is not None})
    return ""


def _nothing(values: Values) -> Values:
    return {}


def _checked_action(values: Values) -> Values:
    if values["action"] not in ("reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"):
        raise MonitorError(f"invalid parameter value: {values['action']}")
    return values


_FILE = parameters("val:number", "size:number", "filename")
_FORMATTED = parameters("format:format", "address:number")

COMMANDS: tuple[HmpCommand, ...] = (
    *BLOCK_COMMANDS,
    *absent.COMMANDS,
    *dumping.COMMANDS,
    HmpCommand(
        "announce_self",
        "[interfaces] [id]",
        "Trigger GARP/RARP announcements",
        _silent(
            "announce-self",
            lambda values: {
                "initial": 50,
                "max": 550,
                "rounds": 5,
                "step": 100,
                "id": values["id"],
                "interfaces": values["interfaces"].split(",") if values["interfaces"] else None,
            },
        ),
        parameters("interfaces?", "id?"),
        ("announce-self",),
    ),
    HmpCommand(
        "balloon",
        "target",
        "request VM to change its memory allocation (in MB)",
        _silent("balloon", lambda values: {"value": values["value"] << 20}),
        parameters("value:number"),
        ("balloon",),
    ),
    HmpCommand("chardev-add", "args", "add chardev", _chardev_add, parameters("args:rest"), ("chardev-add",)),
    HmpCommand(
        "chardev-remove", "id", "remove chardev", _silent("chardev-remove"), parameters("id"), ("chardev-remove",)
    ),
    HmpCommand(
        "chardev-send-break",
        "id",
        "send a break on chardev",
        _silent("chardev-send-break"),
        parameters("id"),
        ("chardev-send-break",),
    ),
    HmpCommand(
        "closefd",
        "closefd name",
        "close a file descriptor previously passed via SCM rights",
        _silent("closefd"),
        parameters("fdname"),
        ("closefd",),
    ),
    HmpCommand("cont|c", "", "resume emulation", _silent("cont"), qmp=("cont",)),
    HmpCommand("cpu", "index", "set the default CPU", _cpu, parameters("index:number"), needs=("vcpus",)),
    HmpCommand(
        "device_add",
        "driver[,prop=value][,...]",
        "add device, like -device on the command line",
        _device_add,
        parameters("device:rest"),
        ("device_add",),
    ),
    HmpCommand("device_del", "device", "remove device", _silent("device_del"), parameters("id"), ("device_del",)),
    HmpCommand(
        "getfd",
        "getfd name",
        "receive a file descriptor via SCM rights and assign it a name",
        _silent("getfd"),
        parameters("fdname"),
        ("getfd",),
    ),
    HmpCommand("help|?", "[cmd]", "show the help", _help, parameters("name:rest?")),
    *network.COMMANDS,
    *usernet.COMMANDS,
    HmpCommand("info", "[subcommand]", "show various information about the system state", _info),
    HmpCommand(
        "memsave", "addr size file", "save to disk virtual memory dump", _memsave, _FILE, ("memsave",), ("vcpus",)
    ),
    HmpCommand("nmi", "", "inject an NMI into every CPU", _silent("inject-nmi", _nothing), qmp=("inject-nmi",)),
    HmpCommand(
        "object_add",
        "[qom-type=]type,id=str",
        "create an object",
        _object_add,
        parameters("object:rest"),
        ("object-add",),
    ),
    HmpCommand("object_del", "id", "destroy an object", _silent("object-del"), parameters("id"), ("object-del",)),
    HmpCommand(
        "pmemsave",
        "addr size file",
        "save to disk physical memory dump",
        _silent("pmemsave"),
        _FILE,
        ("pmemsave",),
    ),
    HmpCommand(
        "print|p", "/fmt expr", "print expression value", _print, parameters("format:format", "expression:number")
    ),
    HmpCommand("qom-get", "path property", "print a property", _qom_get, parameters("path", "property"), ("qom-get",)),
    HmpCommand("qom-list", "path", "list properties of an object", _qom_list, parameters("path?"), ("qom-list",)),
    HmpCommand(
        "qom-set",
        "path property value",
        "set a property",
        _qom_set,
        parameters("path", "property", "value:rest"),
        ("qom-set",),
    ),
    HmpCommand("quit|q", "", "quit the emulator", _silent("quit"), qmp=("quit",)),
    HmpCommand(
        "ringbuf_read",
        "device size",
        "read from a ring buffer character device",
        _ringbuf_read,
        parameters("device", "size:number"),
        ("ringbuf-read",),
    ),
    HmpCommand(
        "ringbuf_write",
        "device data",
        "write to a ring buffer character device",
        _silent("ringbuf-write"),
        parameters("device", "data"),
        ("ringbuf-write",),
    ),
    HmpCommand(
        "screendump",
        "filename [-f format] [device [head]]",
        "save screen from head 'head' of display device 'device' in the image format 'format' (ppm or png)",
        _silent("screendump", lambda values: {key: each for key, each in values.items() if each is not None}),
        parameters("filename:filename", "device?", "head:number?"),
        ("screendump",),
    ),
    HmpCommand(
        "sendkey",
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
        _sendkey,
        parameters("keys", "hold_ms:number?"),
        ("send-key",),
    ),
    HmpCommand("stop|s", "", "stop emulation", _silent("stop"), qmp=("stop",)),
    HmpCommand(
        "system_powerdown", "", "send system power down event", _silent("system_powerdown"), qmp=("system_powerdown",)
    ),
    HmpCommand("system_reset", "", "reset the system", _silent("system_reset"), qmp=("system_reset",)),
    HmpCommand("system_wakeup", "", "wakeup guest from suspend", _silent("system_wakeup"), qmp=("system_wakeup",)),
    HmpCommand(
        "watchdog_action",
        "[reset|shutdown|poweroff|pause|debug|none|inject-nmi]",
        "change watchdog action",
        _silent("watchdog-set-action", _checked_action),
        parameters("action"),
        ("watchdog-set-action",),
    ),
    HmpCommand("x", "/fmt addr", "virtual memory dump starting at 'addr'", _x, _FORMATTED, needs=("virtual", "vcpus")),
    HmpCommand("xp", "/fmt addr", "physical memory dump starting at 'addr'", _xp, _FORMATTED, needs=("memory",)),
)
