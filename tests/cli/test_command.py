"""The command as a process: questions, errors, background, signals."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "aioemu"]
EMPTY = ["-machine", "none", "-display", "none"]
PATIENCE_S = 30  # far beyond any honest start


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, **options
    )


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start the command, which says by --ready-fd when it is set up; returns then."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(  # type: ignore[call-overload]
        [*COMMAND, "--ready-fd", str(write_end), *arguments],
        pass_fds=(write_end,),
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    os.close(write_end)
    with open(read_end, "rb") as ready:
        assert ready.read() == b"ready\n", process.communicate()[1]
    return process  # type: ignore[no-any-return]


def test_version_has_the_level_where_launchers_look() -> None:
    """The first line names a version in QEMU's form; both spellings."""
    for option in ("-version", "--version"):
        done = run(option)
        assert done.returncode == 0
        assert re.search(r"version (\d+)\.(\d+)\.(\d+)", done.stdout.splitlines()[0])


def test_version_and_help_load_nothing() -> None:
    """The answers that tools ask for at every start import no loop, no JSON, no network library, no core."""
    heavy = ("uvloop", "asyncio", "msgspec", "pyroute2", "json", "aioemu._core", "dataclasses", "aioemu.config")
    code = "import sys; from aioemu.cli import main; main([sys.argv[1]]); print([n for n in {!r} if n in sys.modules])"
    for option in ("-version", "-help"):
        done = subprocess.run(
            [sys.executable, "-S", "-c", code.format(heavy), option],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_option() -> None:
    """-help lists options in QEMU's layout, and a reader that leaves early is no error."""
    listed = set(re.findall(r"^-([\w-]+)", run("-help").stdout, re.MULTILINE))
    assert {"machine", "accel", "m", "device", "chardev", "qmp", "netdev", "blockdev", "daemonize"} <= listed
    with subprocess.Popen([*COMMAND, "-help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_machine_help_is_in_the_form_that_tools_parse() -> None:
    """One line a board, one of them the default, aliases named."""
    lines = run("-machine", "help").stdout.splitlines()
    assert lines[0] == "Supported machines are:"
    rows = [line.split(maxsplit=1) for line in lines[1:]]
    assert [name for name, text in rows if text.endswith(" (default)")] == ["q35"]
    assert dict(rows)["pc"].endswith("(alias of q35)")


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["-accel", "help"], "Accelerators supported in QEMU binary:"),
        (["-cpu", "help"], "Available CPUs:"),
        (["-chardev", "help"], "Available chardev backend types: "),
        (["-machine", "none", "-device", "?"], "Controller/Bridge/Hub devices:"),
        (["-device", "isa-debug-exit,help"], "isa-debug-exit options:"),
        (["-machine", "microvm,help"], "microvm-machine options:"),
        (["-chardev", "socket,help"], "socket options:"),
        (["-d", "help"], "Log items (comma separated):"),
        (["-object", "help"], "List of user creatable objects:"),
    ],
)
def test_lists(arguments: list[str], first: str) -> None:
    """`help` prints the list that belongs to the option, exit status 0."""
    done = run(*arguments)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == first
    assert len(done.stdout.splitlines()) > 2


def test_probe_answers_in_text_and_json() -> None:
    """What the host can do, for people and for programs."""
    facts = json.loads(run("--probe", "--json").stdout)
    names = {fact["name"] for fact in facts}
    assert {"kvm", "-accel auto"} <= names
    assert "-accel auto" in run("--probe").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-machin", "q35"], "aioemu: -machin: unknown option; did you mean -machine?\n"),
        (["-machine", "q36"], "aioemu: -machine q36: unsupported machine type; did you mean q35?\n"),
        (["-json"], "aioemu: -json: asks a question, and does not describe a machine\n"),
        (["-accel", "kwm"], "aioemu: -accel kwm"),
        ([*EMPTY, "-device", "isa-debug-exi"], "did you mean isa-debug-exit?\n"),
        ([*EMPTY, "-kernel", "/no/such"], "/no/such"),
        ([*EMPTY, "-chardev", "socket,id=a,path=/no/such"], "connect to unix:/no/such: No such file or directory\n"),
        ([*EMPTY, "-nographic", "-daemonize"], "aioemu: -nographic cannot be used with -daemonize\n"),
        ([*EMPTY, "-daemonize", "-serial", "stdio"], "stdio cannot be used with -daemonize\n"),
        ([*EMPTY, "-pidfile", "/no/such/p"], "cannot create PID file: /no/such/p: No such file or directory\n"),
        ([*EMPTY, "-runas", "no-such-user"], "aioemu: -runas no-such-user: there is no such user"),
    ],
)
def test_errors_are_one_line_and_status_1(arguments: list[str], message: str) -> None:
    """Whatever is wrong is said in one line that begins with the program and names the thing."""
    done = run(*arguments)

    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("aioemu: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_with_status_0(number: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM, SIGINT and SIGHUP end the guest in order: status 0, sockets and pid file gone."""
    pid_file, sock = tmp_path / "pid", tmp_path / "s"
    process = start(*EMPTY, "-pidfile", str(pid_file), "-chardev", f"socket,id=s,path={sock},server=on,wait=off")
    assert pid_file.read_text() == f"{process.pid}\n"
    assert sock.is_socket()
    process.send_signal(number)
    process.send_signal(number)  # as timeout(1) does
    _, errors = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0
    assert f"terminating on signal {int(number)}" in errors
    assert not pid_file.exists()
    assert not sock.exists()


def test_closed_standard_descriptors_do_no_harm() -> None:
    """A launcher that closes 0, 1 and 2 gets a machine that runs and ends as any other."""
    read_end, write_end = os.pipe()
    command = [*COMMAND, "--ready-fd", str(write_end), *EMPTY]
    with subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], pass_fds=(write_end,)) as process:
        os.close(write_end)
        with open(read_end, "rb") as ready:
            assert ready.read() == b"ready\n"
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_signal_before_the_machine_is_set_up(tmp_path: Path) -> None:
    """While a chardev waits for its client, SIGTERM ends the process and leaves nothing behind."""
    sock = tmp_path / "s"
    process = subprocess.Popen(
        [*COMMAND, *EMPTY, "-serial", f"unix:{sock},server=on"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + PATIENCE_S
    while not sock.exists() and time.monotonic() < deadline:
        os.sched_yield()
    process.terminate()
    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 128 + signal.SIGTERM
    assert not sock.exists()


def test_pid_file_is_locked(tmp_path: Path) -> None:
    """A second machine does not get the same pid file; a stale one is no obstacle."""
    path = tmp_path / "pid"
    path.write_text("99999999\nstale")
    process = start(*EMPTY, "-pidfile", str(path))
    second = run(*EMPTY, "-pidfile", str(path))
    assert second.returncode == 1
    assert "cannot create PID file" in second.stderr
    with path.open("r+") as other, pytest.raises(BlockingIOError):
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_text() == f"{process.pid}\n"
    process.terminate()
    process.communicate(timeout=PATIENCE_S)


def test_a_signal_ends_it_though_nobody_reads_its_errors() -> None:
    """A launcher that died took the reader of standard error along: SIGTERM still ends the guest in order."""
    process = start(*EMPTY)
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_S) == 0


def test_a_manager_probes_in_the_background(tmp_path: Path) -> None:
    """-nographic with -nodefaults puts nothing on the terminal, so both go with -daemonize, as managers have it."""
    pid_file = tmp_path / "pid"
    done = run("-machine", "none", "-nodefaults", "-nographic", "-daemonize", "-pidfile", str(pid_file))
    assert (done.returncode, done.stderr) == (0, "")
    os.kill(int(pid_file.read_text()), signal.SIGTERM)


def test_daemonize_returns_when_the_machine_is_set_up(tmp_path: Path) -> None:
    """The foreground process ends with 0 when sockets answer; the machine lives on without its terminal."""
    pid_file, sock = tmp_path / "pid", tmp_path / "s"
    done = run(
        *EMPTY,
        "-daemonize",
        "-pidfile",
        pid_file.name,
        "-chardev",
        "socket,id=s,path=s,server=on,wait=off",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sock.is_socket()
    pid = int(pid_file.read_text())
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.getsid(pid) != os.getsid(0)
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    with open(watch, "rb", closefd=True) as ended:
        import select

        assert select.select([ended], [], [], PATIENCE_S)[0]

    assert not pid_file.exists()
    assert not sock.exists()


def test_daemonize_says_what_went_wrong(tmp_path: Path) -> None:
    """When the machine cannot be set up, the foreground process says so and ends with 1."""
    done = run(*EMPTY, "-daemonize", "-chardev", "socket,id=s,path=/no/such/s,server=on,wait=off")

    assert done.returncode == 1
    assert "/no/such/s" in done.stderr


def test_inherited_socket_is_the_monitor_of_a_launcher(tmp_path: Path) -> None:
    """QEMUMachine's way: a connected socket pair, inherited by number."""
    import socket

    ours, theirs = socket.socketpair()
    line = ["-display", "none", "-vga", "none", "-chardev", f"socket,id=mon,fd={theirs.fileno()}", "-machine", "none"]
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [*COMMAND, *line, "--ready-fd", str(write_end)],
        pass_fds=(theirs.fileno(), write_end),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(write_end)
        theirs.close()
        assert os.read(read_end, 100) == b"ready\n"
        process.terminate()
        ours.settimeout(PATIENCE_S)
        assert ours.recv(100) == b""
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    os.close(read_end)
    ours.close()


def test_pseudo_terminals_are_named() -> None:
    """The names of new terminals are printed where scripts look for them."""
    process = start(*EMPTY, "-chardev", "pty,id=tty0", stdout=subprocess.PIPE)
    process.terminate()
    shown, _ = process.communicate(timeout=PATIENCE_S)

    assert re.fullmatch(r"char device redirected to /dev/pts/\d+ \(label tty0\)\n", shown)


def test_process_name(tmp_path: Path) -> None:
    """`-name x,process=y` is what ps shows."""
    process = start(*EMPTY, "-name", "guest,process=vm-guest")
    assert Path(f"/proc/{process.pid}/comm").read_text() == "vm-guest\n"
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
