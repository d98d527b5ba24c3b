"""What `-netdev user` is asked for: the options, the network they describe, and the rules that forward ports.

Names, defaults and checks are QEMU's; the host's IPv6 addresses, in brackets, are an addition. Nothing is opened here.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import NoReturn

from aioemu.config.grammar import parse_number
from aioemu.errors import ConfigError
from aioemu.listening import UNIX_PATH_LIMIT
from aioemu.netdev.addresses import sockaddr, sockaddr_un

NAME_BYTES = 255  # of a host or domain name: one DHCP option (RFC 2132, 2)
BOOTFILE_BYTES = 127  # of the BOOTP field `file`, with its final zero (RFC 951, 3)
DEFAULT_NET, DEFAULT_MASK = "10.0.2.0", 0xFFFFFF00
HOST, DNS, DHCP = 0x0202, 0x0203, 0x020F  # where they are in a network that says nothing of them
DEFAULT_PREFIX6, DEFAULT_PREFIX6_LENGTH = "fec0::", 64
_CLASSES = (  # the mask of a network given without one: (bits that count, their value, mask)
    (0x80000000, 0x00000000, 0xFF000000),
    (0xFFF00000, 0xAC100000, 0xFFF00000),
    (0xC0000000, 0x80000000, 0xFFFF0000),
    (0xFFFF0000, 0xC0A80000, 0xFFFF0000),
    (0xFFFE0000, 0xC6120000, 0xFFFE0000),
    (0xE0000000, 0xE0000000, 0xFFFFFF00),
)
_NO_CLASS_MASK = 0xFFFFFFF0


@dataclass(frozen=True, slots=True)
class Options:
    """`-netdev user`: see docs/user-networking.md."""

    ipv4: bool | None = None
    net: str | None = None
    host: str | None = None
    dhcpstart: str | None = None
    dns: str | None = None
    ipv6: bool | None = None
    ipv6_net: str | None = None
    ipv6_prefix: str | None = None
    ipv6_prefixlen: int | None = None
    ipv6_host: str | None = None
    ipv6_dns: str | None = None
    restrict: bool = False
    hostname: str | None = None
    domainname: str | None = None
    dnssearch: tuple[str, ...] = ()
    tftp: str | None = None
    tftp_server_name: str | None = None
    bootfile: str | None = None
    hostfwd: tuple[str, ...] = ()
    guestfwd: tuple[str, ...] = ()
    smb: str | None = None
    smbserver: str | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """The network inside: addresses as they go over the wire."""

    net: bytes
    mask: bytes
    host: bytes
    dhcp: bytes
    dns: bytes
    prefix6: bytes
    prefix6_length: int
    host6: bytes
    dns6: bytes
    ipv4: bool
    ipv6: bool


def refuse(message: str) -> NoReturn:
    """An option that cannot be."""
    raise ConfigError(message, "-netdev user")


def make_network(options: Options) -> Network:
    """The network that the options describe; ConfigError where they contradict each other."""
    if options.smb is not None or options.smbserver is not None:
        refuse("smb: not available; share a folder by another way (9p, tftp, a forwarded port)")
    _check_names(options)
    ipv4, ipv6 = _families(options)
    net, mask = _network4(options.net)
    host = _address4("host", options.host, net | HOST & ~mask)
    dns = _address4("dns", options.dns, net | DNS & ~mask)
    dhcp = _address4("dhcpstart", options.dhcpstart, net | DHCP & ~mask)
    for name, address, checked in (("host", host, True), ("dns", dns, options.restrict), ("dhcpstart", dhcp, True)):
        if checked and address & mask != net:
            refuse(f"{name} is not in the network")
    if dns == host:
        refuse("dns must be different from host")
    if dhcp in (host, dns):
        refuse("dhcpstart must be different from host and dns")
    prefix6, length6, host6, dns6 = _network6(options)
    pack = struct.Struct(">I").pack
    return Network(pack(net), pack(mask), pack(host), pack(dhcp), pack(dns), prefix6, length6, host6, dns6, ipv4, ipv6)


def _check_names(options: Options) -> None:
    for name in ("hostname", "domainname", "tftp_server_name"):
        value = getattr(options, name)
        if value is not None and len(value.encode()) > NAME_BYTES:
            refuse(f"{name.replace('_', '-')} cannot exceed {NAME_BYTES} bytes")
    if options.domainname == "":
        refuse("domainname cannot be empty")
    if options.bootfile is not None and len(options.bootfile.encode()) > BOOTFILE_BYTES:
        refuse(f"bootfile cannot exceed {BOOTFILE_BYTES} bytes")


def _families(options: Options) -> tuple[bool, bool]:
    """Which of IPv4 and IPv6: one that is switched on alone switches the other off."""
    ipv4 = options.ipv4 if options.ipv4 is not None else not options.ipv6
    ipv6 = options.ipv6 if options.ipv6 is not None else not options.ipv4
    if not ipv4 and not ipv6:
        refuse("IPv4 and IPv6 disabled")
    if not ipv4 and (options.net or options.host or options.dns):
        refuse("IPv4 disabled, but net, host or dns given")
    if not ipv6 and (options.ipv6_net or options.ipv6_prefix or options.ipv6_host or options.ipv6_dns):
        refuse("IPv6 disabled, but ipv6-net, ipv6-prefix, ipv6-host or ipv6-dns given")
    return ipv4, ipv6


def _aton(text: str) -> int | None:
    try:
        return int.from_bytes(socket.inet_aton(text), "big")
    except OSError:
        return None


def _address4(name: str, text: str | None, default: int) -> int:
    found = default if text is None else _aton(text)
    if found is None:
        refuse(f"{name}: '{text}' is not an IPv4 address")
    return found


def _network4(text: str | None) -> tuple[int, int]:
    """Network and mask of `address[/mask]`, where a mask is a number of bits or an address."""
    address, slash, mask_text = (DEFAULT_NET if text is None else text).partition("/")
    net = _aton(address)
    if net is None:
        refuse(f"net: '{address}' is not an IPv4 address")
    if text is None:
        mask = DEFAULT_MASK
    elif not slash:
        mask = next((mask for bits, value, mask in _CLASSES if net & bits == value), _NO_CLASS_MASK)
    else:
        mask = _mask(mask_text)
    return net & mask, mask


def _mask(text: str) -> int:
    if not text.isdecimal():
        mask = _aton(text)
        if mask is None:
            refuse(f"net: '{text}' is not a netmask")
        return mask
    bits = int(text) if len(text) < 3 else 99
    if not 4 <= bits <= 32:
        refuse("net: a netmask has 4 to 32 bits")
    return 0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF


def _pton(name: str, text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        refuse(f"{name}: '{text}' is not an IPv6 address")


def _network6(options: Options) -> tuple[bytes, int, bytes, bytes]:
    prefix_text, length = options.ipv6_prefix or DEFAULT_PREFIX6, options.ipv6_prefixlen or DEFAULT_PREFIX6_LENGTH
    if options.ipv6_net is not None:
        prefix_text, slash, length_text = options.ipv6_net.partition("/")
        number = parse_number(length_text) if slash else DEFAULT_PREFIX6_LENGTH
        if number is None:
            refuse(f"ipv6-net: '{length_text}' is not a prefix length")
        length = number
    if not 0 <= length <= 126:
        refuse("an IPv6 prefix has 0 to 126 bits")
    prefix = _pton("ipv6-prefix", prefix_text)
    ends = (prefix[:15] + bytes([prefix[15] | last]) for last in (2, 3))
    host, dns = (
        end if text is None else _pton(name, text)
        for end, (name, text) in zip(
            ends, (("ipv6-host", options.ipv6_host), ("ipv6-dns", options.ipv6_dns)), strict=True
        )
    )
    if not _same_net(prefix, host, length):
        refuse("ipv6-host is not in the network")
    if options.restrict and not _same_net(prefix, dns, length):
        refuse("ipv6-dns is not in the network")
    return prefix, length, host, dns


def _same_net(a: bytes, b: bytes, length: int) -> bool:
    shift = 128 - length
    return int.from_bytes(a, "big") >> shift == int.from_bytes(b, "big") >> shift


# ---- forwarded ports -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostForward:
    """One `hostfwd=`: addresses as the socket calls take them. `path` is a unix socket's."""

    udp: bool
    host: bytes
    guest: bytes
    path: str | None = None


@dataclass(frozen=True, slots=True)
class GuestForward:
    """One `guestfwd=`: a TCP port inside that leads to a command (per connection) or to a chardev."""

    address: bytes
    port: int
    target: str
    is_command: bool


def parse_hostfwd(rule: str) -> HostForward:
    """Read `[tcp|udp]:[address]:port-[address]:port` or `unix:path-[address]:port`."""

    def bad(why: str) -> NoReturn:
        refuse(f"Invalid host forwarding rule '{rule}' ({why})")

    protocol, colon, rest = rule.partition(":")
    if not colon:
        bad("no ':'")
    if protocol not in ("", "tcp", "udp", "unix"):
        bad("protocol is tcp, udp or unix")
    outside, dash, inside = rest.partition("-") if protocol != "unix" else rest.rpartition("-")
    if not dash:
        bad("no '-' before the guest's address")
    path = None
    if protocol == "unix":
        path = outside
        if not path.startswith("/"):
            bad("the path of a unix socket must be absolute")
        if len(os.fsencode(path)) > UNIX_PATH_LIMIT:
            bad(f"the path of a unix socket has at most {UNIX_PATH_LIMIT} bytes")
        host = sockaddr_un(path)
    else:
        host = sockaddr(*(_endpoint(outside, 0) or bad("bad host address or port")))
    guest = _endpoint(inside, 1)
    if guest is None:
        bad("bad guest address or port")
    return HostForward(protocol == "udp", host, sockaddr(*guest), path)


def parse_hostfwd_source(rule: str) -> HostForward:
    """Read what `hostfwd_remove` is told: `[tcp|udp]:[address]:port` or `unix:path`."""
    protocol, colon, rest = rule.partition(":")
    if protocol == "unix" and rest.startswith("/"):
        return HostForward(False, sockaddr_un(rest), b"", rest)
    host = _endpoint(rest, 0)
    if not colon or protocol not in ("", "tcp", "udp") or host is None:
        refuse("invalid format")
    return HostForward(protocol == "udp", sockaddr(*host), b"")


def parse_guestfwd(rule: str) -> GuestForward:
    """Read `[tcp]:address:port-target`, where a target is a chardev or `cmd:` and a command."""

    def bad(why: str) -> NoReturn:
        refuse(f"Invalid guest forwarding rule '{rule}' ({why})")

    protocol, colon, rest = rule.partition(":")
    if not colon or protocol not in ("", "tcp"):
        bad("protocol is tcp")
    inside, dash, target = rest.partition("-")
    if not dash or not target:
        bad("no '-' and target after the port")
    endpoint = _endpoint(inside, 1)
    if endpoint is None or len(endpoint[0]) != 4:
        bad("bad address or port")
    command = target.removeprefix("cmd:")
    return GuestForward(endpoint[0], endpoint[1], command, command != target)


def _endpoint(text: str, lowest: int) -> tuple[bytes, int] | None:
    """`[address]:port`; without an address: any. IPv6 in brackets."""
    address, colon, port_text = text.rpartition(":")
    port = parse_number(port_text)
    if not colon or port is None or not lowest <= port <= 65535:
        return None
    try:
        if address.startswith("[") and address.endswith("]"):
            return socket.inet_pton(socket.AF_INET6, address[1:-1]), port
        return socket.inet_aton(address or "0.0.0.0"), port  # noqa: S104 what an absent address means
    except OSError:
        return None
