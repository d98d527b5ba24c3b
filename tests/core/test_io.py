"""The io context, driven by a program as devices do, with the sanitizers watching; and as the machine owns it."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path

import pytest

from aioemu.machine.iothread import IoThreadProperties, IoThreads, ReactorIo

CORE = Path(__file__).resolve().parents[2] / "aioemu" / "core"
FLAGS = "-std=gnu11 -D_GNU_SOURCE= -g -O1 -fno-sanitize-recover=all -pthread".split()


@pytest.fixture(scope="session", params=["address,undefined", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """io_driver.c with the context's files, under one kind of sanitizer."""
    made = tmp_path_factory.mktemp("io") / "io_driver"
    sources = [str(CORE / f"{name}.c") for name in ("clock", "io", "io_later", "iothread")]
    command = ["gcc", *FLAGS, f"-fsanitize={request.param}", f"-I{CORE}", "-o", str(made), *sources]
    command.append(str(Path(__file__).with_name("io_driver.c")))
    subprocess.run(command, check=True)
    return made


@pytest.mark.parametrize("driver", ["thread", "loop"])
def test_every_ring_is_served_and_nothing_after_removal(program: Path, driver: str) -> None:
    """Doorbells, removal, posted calls and timers keep their promises, whoever drives the context."""
    done = subprocess.run([program, driver, "2000"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_iothread_is_a_thread_of_that_name() -> None:
    """-object iothread makes a thread that a host's tools can find, and closing ends it."""
    threads = IoThreads()
    threads.add("io0", IoThreadProperties(poll_max_ns=1000))
    thread_id = threads["io0"].thread_id
    assert threads["io0"].properties.poll_max_ns == 1000
    assert Path(f"/proc/self/task/{thread_id}/comm").read_text() == "IO io0\n"
    threads.close()
    assert str(thread_id) not in os.listdir("/proc/self/task")


def test_an_iothread_has_qemus_defaults() -> None:
    """What is not said is as QEMU has it."""
    threads = IoThreads()
    p = threads.add("io0", IoThreadProperties()).properties
    threads.close()
    assert (p.poll_max_ns, p.poll_grow, p.poll_shrink, p.aio_max_batch) == (32768, 0, 0, 0)


async def test_the_reactors_context_leaves_nothing_behind() -> None:
    """Making and closing the loop's own context costs no descriptor."""
    gc.collect()  # what other tests left goes now, not while this one counts
    before = set(os.listdir("/proc/self/fd"))
    io = ReactorIo()
    assert set(os.listdir("/proc/self/fd")) != before
    io.close()
    io.close()
    assert set(os.listdir("/proc/self/fd")) == before
