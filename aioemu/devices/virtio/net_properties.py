"""`-device virtio-net-*`: QEMU's properties, and a card made of them.

`iothread` names the io context that serves the card and its back end; without one the reactor does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from aioemu.devices.properties import prop
from aioemu.devices.virtio import net
from aioemu.devices.virtio.device import RingProperties
from aioemu.devices.virtio.net import VirtioNet
from aioemu.errors import ConfigError

DUPLEX = ("half", "full", "unknown")
QUEUE_LEAST, QUEUE_MOST = 64, 1024
NOT_MADE = ("rss", "hash", "guest_rsc_ext", "failover")  # taken where they are off
TX_MODES = (None, "timer", "bh")


class NetSite(Protocol):
    """What cards ask of their site."""

    def netdev_queues(self, netdev: str | None) -> int:
        """Pairs of queues that a back end has room for."""

    def default_mac(self) -> bytes:
        """An address that no other card of the machine has."""

    def add_nic(self, name: str, card: VirtioNet, netdev: str | None, iothread: str | None) -> VirtioNet:
        """Join a card to its back end, and own it."""


def _bit(about: str, default: bool = True) -> Any:
    return prop(default, "bool", about)


@dataclass(frozen=True, slots=True)
class NetProperties(RingProperties):
    """`-device virtio-net-*`."""

    netdev: str | None = prop(None, "str", "ID of a netdev to use as a backend")
    iothread: str | None = prop(None, "link<iothread>", "ID of an iothread that serves the card and its backend")
    bootindex: int = prop(-1, "int32", "kept and told; there is no firmware that would boot from it", least=-1)
    mac: str | None = prop(None, "str", "Ethernet address, example: 52:54:00:12:34:56")
    mq: bool = _bit("offer as many queue pairs as the backend has", default=False)
    host_mtu: int = prop(0, "uint16", "MTU that the driver is told; 0: none")
    mtu: int = prop(0, "uint16", "the same")
    speed: int = prop(-1, "int32", "of the link in Mbit/s; -1: unknown", least=-1)
    duplex: str = prop("unknown", "str", "of the link: half or full")
    status: bool = _bit("offer the link's state")
    csum: bool = _bit("offer to complete checksums")
    guest_csum: bool = _bit("offer frames without complete checksums")
    guest_tso4: bool = _bit("offer unsegmented TCP over IPv4")
    guest_tso6: bool = _bit("offer unsegmented TCP over IPv6")
    guest_ecn: bool = _bit("offer these with ECN")
    guest_ufo: bool = _bit("offer unfragmented UDP")
    guest_uso4: bool = _bit("offer unsegmented UDP over IPv4")
    guest_uso6: bool = _bit("offer unsegmented UDP over IPv6")
    host_tso4: bool = _bit("offer to segment TCP over IPv4")
    host_tso6: bool = _bit("offer to segment TCP over IPv6")
    host_ecn: bool = _bit("offer to do so with ECN")
    host_ufo: bool = _bit("offer to fragment UDP")
    host_uso: bool = _bit("offer to segment UDP")
    mrg_rxbuf: bool = _bit("offer frames in several buffers")
    ctrl_vq: bool = _bit("offer the control queue")
    ctrl_rx: bool = _bit("offer receive modes")
    ctrl_rx_extra: bool = _bit("offer further receive modes")
    ctrl_vlan: bool = _bit("offer VLAN filtering")
    ctrl_mac_addr: bool = _bit("offer to change the address")
    ctrl_guest_offloads: bool = _bit("offer to switch offloads")
    guest_announce: bool = _bit("offer to ask for announcements")
    gso: bool = _bit("of legacy drivers only: no effect")
    tx: str | None = prop(None, "str", "timer or bh: no effect, transmission is batched by load")
    x_txtimer: int = prop(150_000, "uint32", "no effect", least=0)
    x_txburst: int = prop(256, "int32", "no effect")
    rss: bool = _bit("receive side scaling: not made", default=False)
    hash: bool = _bit("hash reports: not made", default=False)
    guest_rsc_ext: bool = _bit("coalesced segments: not made", default=False)
    failover: bool = prop(False, "bool", "a primary device to fall back from: not made")
    rx_queue_size: int = prop(256, "uint16", "of receive queues: a power of two", least=QUEUE_LEAST, most=QUEUE_MOST)
    tx_queue_size: int = prop(256, "uint16", "of transmit queues: a power of two", least=QUEUE_LEAST, most=QUEUE_MOST)


FEATURES = {
    "csum": net.F_CSUM,
    "guest_csum": net.F_GUEST_CSUM,
    "guest_tso4": net.F_GUEST_TSO4,
    "guest_tso6": net.F_GUEST_TSO6,
    "guest_ecn": net.F_GUEST_ECN,
    "guest_ufo": net.F_GUEST_UFO,
    "guest_uso4": net.F_GUEST_USO4,
    "guest_uso6": net.F_GUEST_USO6,
    "host_tso4": net.F_HOST_TSO4,
    "host_tso6": net.F_HOST_TSO6,
    "host_ecn": net.F_HOST_ECN,
    "host_ufo": net.F_HOST_UFO,
    "host_uso": net.F_HOST_USO,
    "mrg_rxbuf": net.F_MRG_RXBUF,
    "status": net.F_STATUS,
    "ctrl_vq": net.F_CTRL_VQ,
    "ctrl_rx": net.F_CTRL_RX,
    "ctrl_rx_extra": net.F_CTRL_RX_EXTRA,
    "ctrl_vlan": net.F_CTRL_VLAN,
    "ctrl_mac_addr": net.F_CTRL_MAC,
    "ctrl_guest_offloads": net.F_GUEST_OFFLOADS,
    "guest_announce": net.F_GUEST_ANNOUNCE,
}
# what a feature is nothing without (5.1.3.1)
NEEDS = (
    (net.F_GUEST_TSO4 | net.F_GUEST_TSO6 | net.F_GUEST_UFO | net.F_GUEST_USO4 | net.F_GUEST_USO6, net.F_GUEST_CSUM),
    (net.F_HOST_TSO4 | net.F_HOST_TSO6 | net.F_HOST_UFO | net.F_HOST_USO, net.F_CSUM),
    (net.F_CTRL_RX | net.F_CTRL_VLAN | net.F_CTRL_MAC | net.F_GUEST_OFFLOADS | net.F_GUEST_ANNOUNCE, net.F_CTRL_VQ),
    (net.F_MQ, net.F_CTRL_VQ),
    (net.F_CTRL_RX_EXTRA, net.F_CTRL_RX),
)


def make_net(site: NetSite, name: str, given: NetProperties) -> VirtioNet:
    """A card, joined to its back end."""
    queue_sizes = given.rx_queue_size, given.tx_queue_size
    if any(size & (size - 1) for size in queue_sizes):
        raise ConfigError(f"{name}: rx_queue_size and tx_queue_size are powers of two", "-device")
    if given.duplex not in DUPLEX:
        raise ConfigError(f"Property 'duplex': '{given.duplex}' is not one of {', '.join(DUPLEX)}", "-device")
    _check_unused(given)
    mtu = given.host_mtu or given.mtu
    if mtu and mtu < net.MTU_LEAST:
        raise ConfigError(f"Property 'host_mtu': {mtu} is not in {net.MTU_LEAST}..{net.MTU_MOST}", "-device")
    pairs = site.netdev_queues(given.netdev)
    card = VirtioNet(
        site.default_mac() if given.mac is None else parse_mac(given.mac),
        features=_features(given, mtu, pairs),
        pairs=pairs if given.mq else 1,
        queue_sizes=queue_sizes,
        mtu=mtu,
        speed=given.speed,
        duplex=given.duplex,
        ring=given,
    )
    return site.add_nic(name, card, given.netdev, given.iothread)


def _check_unused(given: NetProperties) -> None:
    for name in NOT_MADE:
        if getattr(given, name):
            raise ConfigError(f"Property '{name}': on is not available", "-device")
    if given.tx not in TX_MODES:
        raise ConfigError(f"Property 'tx': '{given.tx}' is not one of timer, bh", "-device")


def _features(given: NetProperties, mtu: int, pairs: int) -> int:
    bits = net.F_MAC | net.F_MTU * bool(mtu) | net.F_MQ * (given.mq and pairs > 1)
    if given.speed >= 0 or given.duplex != "unknown":
        bits |= net.F_SPEED_DUPLEX
    bits |= sum(bit for name, bit in FEATURES.items() if getattr(given, name))
    for dependents, base in NEEDS:
        bits &= ~dependents if not bits & base else -1
    return bits


def parse_mac(text: str) -> bytes:
    """An address of one card, not of a group."""
    parts = text.split(":") if ":" in text else text.split("-")
    try:
        mac = bytes(int(part, 16) for part in parts)
    except ValueError:
        mac = b""
    if len(mac) != 6 or any(not 1 <= len(part) <= 2 for part in parts):
        raise ConfigError(f"Property 'mac' doesn't take value '{text}'", "-device")
    if mac[0] & 1:
        raise ConfigError(f"Property 'mac': {text} is a multicast address", "-device")
    return mac
