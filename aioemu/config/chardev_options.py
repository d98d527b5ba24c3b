"""Chardevs from text: `-chardev socket,id=...` and the short forms of `-serial`, `-monitor` and `-qmp`.

One reader per back end, shared by both forms and by the configuration file. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioemu.config.chardevs import (
    RINGBUF_DEFAULT_BYTES,
    ChardevOptions,
    ConsoleOptions,
    FdAddress,
    FileOptions,
    HubOptions,
    NullOptions,
    PipeOptions,
    PtyOptions,
    RingbufOptions,
    SerialOptions,
    SocketAddress,
    SocketOptions,
    StdioOptions,
    TcpAddress,
    UnixAddress,
)
from aioemu.config.grammar import Options, did_you_mean, parse_number, parse_pairs, where_of
from aioemu.errors import ConfigError

Common = dict[str, Any]  # the fields every back end has, as keyword arguments
Reader = Callable[[Options, Common], ChardevOptions]
RECONNECT_LIMIT_MS = 24 * 3600 * 1000  # a day: longer is a unit mistaken
RINGBUF_LIMIT = 1 << 30
HUB_LIMIT = 4  # back ends of one hub, as QEMU's


def parse_chardev(opts: Options) -> ChardevOptions:
    """Read one `-chardev` group: `backend` (the implied first key), `id` and the back end's own keys."""
    backend = opts.need("backend")
    reader = READERS.get(backend)
    if reader is None:
        opts.fail(f"'{backend}' is not a valid char driver name{did_you_mean(backend, READERS)}")
    chardev_id = opts.identifier()
    if chardev_id is None:
        opts.fail("chardev: no id specified")
    chardev = reader(opts, _common(opts, chardev_id))
    opts.close()
    return chardev


def _common(opts: Options, chardev_id: str) -> Common:
    return {
        "id": chardev_id,
        "logfile": opts.text("logfile"),
        "logappend": opts.flag("logappend", False),
        "mux": opts.flag("mux", False),
    }


def parse_short(option: str, text: str, chardev_id: str) -> ChardevOptions:
    """Read the short form, for example `unix:/run/q.sock,server=on,wait=off` or `mon:stdio` (which muxes)."""
    where = where_of(option, text)
    mux = text.startswith("mon:")
    opts = Options(where, _short_pairs(where, text.removeprefix("mon:")))
    backend = opts.need("backend")
    common = {**_common(opts, chardev_id), "mux": mux}
    if backend == "stdio" and mux:
        common["signal"] = False  # Ctrl-C belongs to the guest where Ctrl-A x leaves
    chardev = READERS[backend](opts, common)
    opts.close()
    return chardev


def _short_pairs(where: str, text: str) -> list[tuple[str, str]]:
    """The `-chardev` keys that a short form stands for."""
    kind, colon, rest = text.partition(":")
    if text in ("null", "pty", "stdio", "vc", "console", "ringbuf"):
        return [("backend", text)]
    if kind == "vc":
        return [("backend", "vc")]
    if colon and kind in ("file", "pipe", "pty"):
        return [("backend", kind), ("path", rest)]
    if colon and kind == "unix":
        return [("backend", "socket"), *parse_pairs(rest, "path")]
    if colon and kind in ("tcp", "telnet"):
        return [("backend", "socket"), *_tcp_pairs(where, rest), *([("telnet", "on")] if kind == "telnet" else [])]
    if text.startswith("/dev/"):
        return [("backend", "serial"), ("path", text)]
    known = ("null", "pty", "stdio", "vc", "file", "pipe", "unix", "tcp", "telnet", "chardev", "mon", "none")
    raise ConfigError(f"{where}: '{text}' is not a valid char driver{did_you_mean(kind, known)}", where)


def _tcp_pairs(where: str, text: str) -> list[tuple[str, str]]:
    """`host:port,...`, `:port,...` or `[v6]:port,...`."""
    address, _, rest = text.partition(",")
    host, colon, port = address.rpartition(":")
    if not colon or not port:
        raise ConfigError(f"{where}: expected host:port, got '{address}'", where)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return [("host", host), ("port", port), *parse_pairs(rest)]


def _null(opts: Options, common: Common) -> ChardevOptions:
    return NullOptions(**common)


def _stdio(opts: Options, common: Common) -> ChardevOptions:
    return StdioOptions(**{"signal": opts.flag("signal", True), **common})


def _file(opts: Options, common: Common) -> ChardevOptions:
    return FileOptions(
        path=opts.need("path"), append=opts.flag("append", False), input_path=opts.text("input-path"), **common
    )


def _pipe(opts: Options, common: Common) -> ChardevOptions:
    return PipeOptions(path=opts.need("path"), **common)


def _serial(opts: Options, common: Common) -> ChardevOptions:
    return SerialOptions(path=opts.need("path"), **common)


def _pty(opts: Options, common: Common) -> ChardevOptions:
    return PtyOptions(path=opts.text("path"), **common)


def _ringbuf(opts: Options, common: Common) -> ChardevOptions:
    size = opts.size("size", RINGBUF_DEFAULT_BYTES)
    if size == 0 or size & (size - 1):
        opts.fail("size of ringbuf chardev must be power of two")
    if size > RINGBUF_LIMIT:
        opts.fail(f"Parameter 'size' must be at most {RINGBUF_LIMIT >> 20}M")
    return RingbufOptions(size_bytes=size, **common)


def _console(opts: Options, common: Common) -> ChardevOptions:
    for key in ("width", "height", "cols", "rows"):
        opts.number(key, 0)  # a text window's geometry: there is no window
    return ConsoleOptions(**common)


def _hub(opts: Options, common: Common) -> ChardevOptions:
    names: list[str] = []
    while (name := opts.identifier(f"chardevs.{len(names)}")) is not None:
        names.append(name)
    if not 1 <= len(names) <= HUB_LIMIT:
        opts.fail(f"hub needs 1 to {HUB_LIMIT} back ends: chardevs.0=ID,chardevs.1=ID")
    if common["mux"]:
        opts.fail("a hub cannot be muxed")
    return HubOptions(chardevs=tuple(names), **common)


def _socket(opts: Options, common: Common) -> ChardevOptions:
    address = _address(opts)
    server = opts.flag("server", False)
    reconnect = opts.number("reconnect", 0, high=RECONNECT_LIMIT_MS // 1000) * 1000
    reconnect_ms = opts.number("reconnect-ms", reconnect, high=RECONNECT_LIMIT_MS)
    wait = opts.maybe_flag("wait")
    delay = opts.flag("delay", False)  # `nodelay` as a bare word is `delay=off`
    telnet = opts.flag("telnet", False)
    for key in ("websocket", "tn3270"):
        if opts.flag(key, False):
            opts.fail(f"Parameter '{key}' is not supported")
    for key in ("tls-creds", "tls-authz"):
        if opts.text(key):
            opts.fail(f"Parameter '{key}' is not supported")
    if server and reconnect_ms:
        opts.fail("'reconnect' is for clients: it cannot be used with server=on")
    if not server and wait:
        opts.fail("'wait' is for listening sockets: it needs server=on")
    return SocketOptions(
        address=address,
        server=server,
        wait=server if wait is None else wait,
        telnet=telnet,
        nodelay=opts.flag("nodelay", not delay),
        reconnect_ms=reconnect_ms,
        **common,
    )


def _address(opts: Options) -> SocketAddress:
    """One of path=, fd= and host=,port=."""
    path, fd, host, port = (opts.text(key) for key in ("path", "fd", "host", "port"))
    to = opts.number("to", 0, high=65535)
    ipv4, ipv6 = opts.maybe_flag("ipv4"), opts.maybe_flag("ipv6")
    abstract, tight = opts.flag("abstract", False), opts.flag("tight", True)
    given = [name for name, value in (("path", path), ("fd", fd), ("host", host or port)) if value is not None]
    if len(given) != 1:
        opts.fail("socket needs exactly one of path=, fd= and host=,port=")
    if path is not None:
        return UnixAddress(path, abstract, tight)
    if fd is not None:
        return FdAddress(fd)
    if not port:
        opts.fail("Parameter 'port' is missing")
    number = parse_number(port)
    if number is not None and not 0 <= number <= 65535:
        opts.fail(f"Parameter 'port' must be between 0 and 65535, got {port}")
    return TcpAddress(host or "", port, to or None, ipv4, ipv6)


READERS: dict[str, Reader] = {
    "null": _null,
    "stdio": _stdio,
    "file": _file,
    "pipe": _pipe,
    "serial": _serial,
    "tty": _serial,
    "pty": _pty,
    "socket": _socket,
    "ringbuf": _ringbuf,
    "memory": _ringbuf,
    "console": _console,
    "vc": _console,
    "hub": _hub,
}
