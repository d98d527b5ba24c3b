"""The monitor: commands a second and how long one takes, many clients, large requests, start and memory.

The client is the same blocking code for QEMU, which runs beside ours and is asked in turn. QEMU serves one client a
socket, so it is given as many sockets as there are clients. Both are asked what costs them least: query-status.
"""

from __future__ import annotations

import json
import re
import selectors
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.harness import Figure, Options, interleave, need, of_samples

LIMIT_S = 60.0
STATUS = b'{"execute":"query-status"}'
CLIENTS = 64
REQUEST_BYTES, QEMU_REQUEST_BYTES = 4 << 20, 64 << 10  # QEMU takes quarter of a megabyte a second
NONE = "-machine none -display none -nodefaults"


class Client:
    """A negotiated connection; what it reads ends at a line."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(str(path))
        self.line()
        self.ask(b'{"execute":"qmp_capabilities"}')

    def line(self) -> bytes:
        parts = [self.sock.recv(1 << 20)]
        while parts[-1][-1:] != b"\n":
            parts.append(self.sock.recv(1 << 20))
            assert parts[-1], "the monitor closed the connection"
        return b"".join(parts)

    def ask(self, request: bytes) -> bytes:
        self.sock.sendall(request)
        return self.line()


@contextmanager
def served(command: str, sockets: int) -> Iterator[tuple[list[Path], subprocess.Popen[bytes]]]:
    """A machine without anything but monitors."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"q{number}" for number in range(sockets)]
        options = [word for path in paths for word in ("-qmp", f"unix:{path},server=on,wait=off")]
        words = [*shlex.split(command), *NONE.split(), *options, "-chardev", "ringbuf,id=r,size=65536"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
            try:
                wait_for(paths[-1])
                yield paths, process
            finally:
                process.terminate()
                process.wait(LIMIT_S)


def wait_for(path: Path) -> None:
    """Until somebody accepts there."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                return
            except OSError:
                time.sleep(0.01)  # time passes: the program starts
    raise TimeoutError(f"{path} did not appear")


def ours() -> str:
    return f"{sys.executable} -m aioemu"


def round_trips_us(client: Client, count: int) -> list[float]:
    """How long each of so many commands took."""
    took = []
    for _ in range(count):
        started = time.perf_counter_ns()
        client.ask(STATUS)
        took.append((time.perf_counter_ns() - started) / 1e3)
    return took


def pipelined_us(client: Client, count: int) -> float:
    """A command's share of so many in one write."""
    started = time.perf_counter_ns()
    client.sock.sendall(STATUS * count)
    lines = 0
    while lines < count:
        lines += client.sock.recv(1 << 20).count(b"\n")
    return (time.perf_counter_ns() - started) / 1e3 / count


def crowd(clients: list[Client], seconds: float) -> tuple[float, float]:
    """Microseconds a command with one under way for each client, and the busiest client's count over the idlest's."""
    counts = dict.fromkeys(clients, 0)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.sock.sendall(STATUS)
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            for key, _ in selector.select(1):
                if key.data.sock.recv(1 << 16)[-1:] == b"\n":
                    counts[key.data] += 1
                    key.data.sock.sendall(STATUS)
        took = time.monotonic() - started
    for client in clients:
        client.line()
    return took * 1e6 / sum(counts.values()), max(counts.values()) / max(1, min(counts.values()))


def request_mb_s(client: Client, size: int) -> float:
    """A request of so many bytes, until it is answered."""
    request = json.dumps({"execute": "ringbuf-write", "arguments": {"device": "r", "data": "x" * size}}).encode()
    started = time.perf_counter_ns()
    answer = client.ask(request)
    assert b"return" in answer, answer
    return size / ((time.perf_counter_ns() - started) / 1e3)


def schema_ms(client: Client) -> float:
    started = time.perf_counter_ns()
    client.ask(b'{"execute":"query-qmp-schema"}')
    return (time.perf_counter_ns() - started) / 1e6


def bench(options: Options) -> Iterator[Figure]:
    """One client, many clients, large requests."""
    qemu = need("qemu-system-x86_64")
    with ExitStack() as stack:
        (our_path, *_), _ = stack.enter_context(served(ours(), 1))
        their_paths, _ = stack.enter_context(served(qemu, CLIENTS))
        our, their = Client(our_path), Client(their_paths[0])
        rounds, count = options.pick(15, 3), options.pick(1000, 200)
        for client in (our, their):
            round_trips_us(client, 100)
        yield from one_client(our, their, rounds, count)
        seconds = options.pick(20, 2) / 10
        our_crowd = [our, *(Client(our_path) for _ in range(CLIENTS - 1))]
        their_crowd = [their, *(Client(path) for path in their_paths[1:])]
        fairness: list[float] = []

        def take_ours() -> float:
            each, spread = crowd(our_crowd, seconds)
            fairness.append(spread)
            return each

        pairs = interleave(options.pick(5, 2), {"ours": take_ours, "theirs": lambda: crowd(their_crowd, seconds)[0]})
        reference = statistics.median(pairs["theirs"])
        name = f"query-status, {CLIENTS} clients, each"
        yield of_samples(name, pairs["ours"], "us", limit=1 / 3, reference=reference)
        yield of_samples("busiest of these clients over idlest", fairness, "x", limit=2)
        yield from large(our, their, options)


def one_client(our: Client, their: Client, rounds: int, count: int) -> Iterator[Figure]:
    """Rate and latency of one at a time, and of many in one write."""
    singles: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    batches: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for who, client in (("ours", our), ("theirs", their)):
            singles[who].append(round_trips_us(client, count))
            batches[who].append(pipelined_us(client, count // 2))
    means = {who: [statistics.fmean(taken) for taken in all_taken] for who, all_taken in singles.items()}
    medians = {who: [statistics.median(taken) for taken in all_taken] for who, all_taken in singles.items()}
    for name, samples, limit in (
        ("query-status, one at a time, mean", means, 1 / 3),
        ("query-status, one at a time, p50", medians, 1 / 2),
        ("query-status, many in one write", batches, 1 / 3),
    ):
        reference = statistics.median(samples["theirs"])
        yield of_samples(name, samples["ours"], "us", limit=limit, reference=reference)


def large(our: Client, their: Client, options: Options) -> Iterator[Figure]:
    """Requests and answers that are long."""
    rounds = options.pick(9, 3)
    rates = interleave(
        rounds,
        {
            "ours": lambda: request_mb_s(our, REQUEST_BYTES),
            "theirs": lambda: request_mb_s(their, QEMU_REQUEST_BYTES),
        },
    )
    rate = statistics.median(rates["ours"])
    took = [REQUEST_BYTES / 1e3 / sample for sample in rates["ours"]]
    note = f"{rate:.0f} MB/s; QEMU {statistics.median(rates['theirs']):.2f} MB/s with 64 KiB"
    yield of_samples("a request of 4 MiB, until it is answered", took, "ms", limit=REQUEST_BYTES / 1e3 / 50, note=note)
    yield of_samples("the first query-qmp-schema of a process", [schema_ms(our)], "ms", limit=3)
    pairs = interleave(rounds, {"ours": lambda: schema_ms(our), "theirs": lambda: schema_ms(their)})
    note = f"QEMU {statistics.median(pairs['theirs']):.1f} ms"
    yield of_samples("query-qmp-schema", pairs["ours"], "ms", limit=3, note=note)


def greeting(command: str) -> tuple[float, float]:
    """Milliseconds from the process' start to its greeting, and MiB that it then has."""
    started = time.perf_counter_ns()
    words = [*shlex.split(command), *NONE.split(), "-qmp", "stdio"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        line = process.stdout.readline()
        took = (time.perf_counter_ns() - started) / 1e6
        assert b"QMP" in line, line
        for request in (b'{"execute":"qmp_capabilities"}', STATUS):
            process.stdin.write(request)
            process.stdin.flush()
            process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        process.kill()
    return took, int(found[1]) / 1024


def bench_start(options: Options) -> Iterator[Figure]:
    """`-machine none` with a monitor: until it greets, and what it takes."""
    taken: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    qemu = need("qemu-system-x86_64")
    for _ in range(options.pick(15, 3)):
        taken["ours"].append(greeting(ours()))
        taken["theirs"].append(greeting(qemu))
    theirs = [statistics.median(each) for each in zip(*taken["theirs"], strict=True)]
    ms, mib = (list(each) for each in zip(*taken["ours"], strict=True))
    yield of_samples("start to greeting, -machine none", ms, "ms", limit=150, note=f"QEMU {theirs[0]:.0f} ms")
    yield of_samples("resident then", mib, "MiB", limit=32, note=f"QEMU {theirs[1]:.0f} MiB")
