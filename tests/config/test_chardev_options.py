"""Chardevs from text, in both forms."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.config import (
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
    SocketOptions,
    StdioOptions,
    TcpAddress,
    UnixAddress,
)
from aioemu.config.chardev_options import parse_chardev, parse_short
from aioemu.config.grammar import Options
from aioemu.errors import ConfigError


def read(text: str) -> ChardevOptions:
    return parse_chardev(Options.parse("-chardev", text, "backend"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null,id=a", NullOptions(id="a")),
        ("stdio,id=a,signal=off,mux=on", StdioOptions(id="a", signal=False, mux=True)),
        ("file,id=a,path=/x,append=on", FileOptions(id="a", path="/x", append=True)),
        ("pipe,id=a,path=/x,logfile=/l,logappend=on", PipeOptions(id="a", path="/x", logfile="/l", logappend=True)),
        ("serial,id=a,path=/dev/ttyS0", SerialOptions(id="a", path="/dev/ttyS0")),
        ("pty,id=a", PtyOptions(id="a")),
        ("ringbuf,id=a,size=4K", RingbufOptions(id="a", size_bytes=4096)),
        ("vc,id=a,cols=80,rows=24", ConsoleOptions(id="a")),
        ("hub,id=a,chardevs.0=b,chardevs.1=c", HubOptions(id="a", chardevs=("b", "c"))),
        (
            "socket,id=a,path=/x,server=on,wait=off",
            SocketOptions(id="a", address=UnixAddress("/x"), server=True),
        ),
        (
            "socket,id=a,path=/x,server,nowait",
            SocketOptions(id="a", address=UnixAddress("/x"), server=True),
        ),
        (
            "socket,id=a,host=h,port=1,server=on,nodelay",
            SocketOptions(id="a", address=TcpAddress("h", "1"), server=True, wait=True),
        ),
        ("socket,id=a,fd=5", SocketOptions(id="a", address=FdAddress("5"))),
        (
            "socket,id=a,path=/x,reconnect=2",
            SocketOptions(id="a", address=UnixAddress("/x"), reconnect_ms=2000),
        ),
        (
            "socket,id=a,path=/x,reconnect-ms=20",
            SocketOptions(id="a", address=UnixAddress("/x"), reconnect_ms=20),
        ),
        (
            "socket,id=a,host=::1,port=5,to=9,ipv6=on,telnet=on,server=on,wait=off",
            SocketOptions(id="a", address=TcpAddress("::1", "5", 9, None, True), server=True, telnet=True),
        ),
    ],
)
def test_long_form(text: str, expected: ChardevOptions) -> None:
    """`-chardev` as launchers write it."""
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soket,id=a", "'soket' is not a valid char driver name; did you mean socket"),
        ("null", "chardev: no id specified"),
        ("null,id=1", "Parameter 'id' expects an identifier"),
        ("null,id=a,path=x", "Invalid parameter 'path'"),
        ("file,id=a", "Parameter 'path' is missing"),
        ("socket,id=a", "exactly one of path=, fd= and host=,port="),
        ("socket,id=a,path=/x,port=1", "exactly one of"),
        ("socket,id=a,host=h", "Parameter 'port' is missing"),
        ("socket,id=a,host=h,port=65536", "Parameter 'port' must be between 0 and 65535"),
        ("socket,id=a,path=x,sever=on", "Invalid parameter 'sever'; did you mean server"),
        ("socket,id=a,path=x,server=maybe", "Parameter 'server' expects 'on' or 'off'"),
        ("socket,id=a,path=x,server=on,reconnect=1", "cannot be used with server=on"),
        ("socket,id=a,path=x,wait=on", "needs server=on"),
        ("socket,id=a,host=h,port=1,websocket=on", "'websocket' is not supported"),
        ("ringbuf,id=a,size=100", "size of ringbuf chardev must be power of two"),
        ("ringbuf,id=a,size=8G", "must be at most"),
        ("hub,id=a", "hub needs 1 to 4"),
        ("hub,id=a,chardevs.0=b,mux=on", "cannot be muxed"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    """What cannot be is refused with the option, the key and what was meant."""
    with pytest.raises(ConfigError) as caught:
        read(text)

    assert str(caught.value).startswith(f"-chardev {text}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", NullOptions(id="s")),
        ("stdio", StdioOptions(id="s")),
        ("mon:stdio", StdioOptions(id="s", mux=True, signal=False)),
        ("pty", PtyOptions(id="s")),
        ("vc:80Cx24C", ConsoleOptions(id="s")),
        ("file:/a,b", FileOptions(id="s", path="/a,b")),
        ("pipe:/p", PipeOptions(id="s", path="/p")),
        ("/dev/ttyS1", SerialOptions(id="s", path="/dev/ttyS1")),
        ("unix:/p,server,nowait", SocketOptions(id="s", address=UnixAddress("/p"), server=True)),
        ("unix:path=/p,server=on", SocketOptions(id="s", address=UnixAddress("/p"), server=True, wait=True)),
        ("unix:/p", SocketOptions(id="s", address=UnixAddress("/p"))),
        ("tcp:h:1", SocketOptions(id="s", address=TcpAddress("h", "1"))),
        ("tcp::4444,server,nowait", SocketOptions(id="s", address=TcpAddress("", "4444"), server=True)),
        (
            "telnet:0.0.0.0:40,server=on,wait=off",
            SocketOptions(id="s", address=TcpAddress("0.0.0.0", "40"), server=True, telnet=True),
        ),
        ("tcp:[::1]:5,server=on", SocketOptions(id="s", address=TcpAddress("::1", "5"), server=True, wait=True)),
    ],
)
def test_short_form(text: str, expected: ChardevOptions) -> None:
    """`-serial`, `-monitor` and `-qmp` as launchers write them."""
    assert parse_short("-serial", text, "s") == expected


@pytest.mark.parametrize(
    "text", ["foo", "tcp:5", "tcp:h:", "unix:", "telnt:h:1", "", "mon:", "unix:/p,x=1", "null,a=1"]
)
def test_short_form_mistakes(text: str) -> None:
    """A short form that is none names the option."""
    with pytest.raises(ConfigError, match=r"^-serial"):
        parse_short("-serial", text, "s")


@given(st.text(max_size=60), st.sampled_from(["", "unix:", "tcp:", "telnet:", "mon:", "file:", "tcp:a:1,"]))
def test_any_text_is_read_or_refused(text: str, prefix: str) -> None:
    """No text breaks the reader."""
    with contextlib.suppress(ConfigError):
        parse_short("-serial", prefix + text, "s")
    with contextlib.suppress(ConfigError):
        read(f"socket,id=a,{text}")
