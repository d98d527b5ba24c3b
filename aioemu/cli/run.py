"""Runs one machine to its end in this process: loop, signals, log, pid file, exit status.

SIGINT, SIGTERM and SIGHUP end the guest at once, with exit status 0 as QEMU has it; before the machine is set up they
end the process with 128 + the signal's number. The terminal is given back on every way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from aioemu.cli.background import Announcer, PidFile, go_to_background
from aioemu.cli.identity import confine, set_process_name
from aioemu.config import MachineConfig, StdioOptions
from aioemu.errors import ConfigError
from aioemu.log import configure

if TYPE_CHECKING:
    from aioemu.api import Machine

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 1.0  # signals that come together (timeout(1) sends two) are one; a later one insists
SIGNAL_STATUS = 128  # a shell's convention for a process that a signal ended


def run(config: MachineConfig) -> int:
    """Run the machine; returns the exit status."""
    gc.disable()  # until the guest runs: what is made on the way stays, and looking through it costs a tenth
    check_process(config)
    raise_descriptor_limit()
    announcer = go_to_background(config.process)
    undo_log = configure(",".join((*config.log.items, *(f"trace:{p}" for p in config.log.traces))), config.log.file)
    pid_file = PidFile(config.process.pidfile) if config.process.pidfile is not None else None
    try:
        set_process_name(config)
        return _with_loop(config, announcer)
    finally:
        if pid_file is not None:
            pid_file.remove()
        undo_log()


def raise_descriptor_limit() -> None:
    """As many as the administrator allows: the soft limit is for programs that use select, and clients are many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_process(config: MachineConfig) -> None:
    """Refuse what cannot be together."""
    if not config.process.daemonize:
        return
    for chardev in config.chardevs:
        if isinstance(chardev, StdioOptions):
            if config.nographic:  # with -nodefaults it puts nothing on stdio, as managers have it
                raise ConfigError("-nographic cannot be used with -daemonize", "-daemonize")
            raise ConfigError(f"chardev {chardev.id}: stdio cannot be used with -daemonize", "-daemonize")


def _with_loop(config: MachineConfig, announcer: Announcer) -> int:
    with asyncio.Runner(loop_factory=find_loop()) as runner:
        return runner.run(Life(config, announcer).live())


def find_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _name_terminals(vm: Machine) -> None:
    """Say which pseudo terminals were made: nobody could guess their names."""
    for chardev in vm.machine.chardevs.query():
        kind, _, name = chardev.filename.partition(":")
        if kind == "pty":
            print(f"char device redirected to {name} (label {chardev.label})", flush=True)


class Life:
    """One machine's life under the process's signals."""

    def __init__(self, config: MachineConfig, announcer: Announcer) -> None:
        self._config = config
        self._announcer = announcer
        self._task: asyncio.Task[int] | None = None
        self._signal: signal.Signals | None = None
        self._signal_time = 0.0
        self._is_set_up = False
        self._told = asyncio.Event()

    async def live(self) -> int:
        """From building to the exit status."""
        self._task = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        try:
            return await self._run()
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            return SIGNAL_STATUS + self._signal

    async def _run(self) -> int:
        from aioemu.api import Machine

        async with Machine.from_config(self._config) as vm:
            confine(self._config.process)
            self._is_set_up = True
            _name_terminals(vm)
            self._announcer.announce()
            gc.freeze()
            gc.enable()
            return await self._wait(vm)

    async def _wait(self, vm: Machine) -> int:
        """Until the guest's life ends, by itself or because a signal came."""
        from aioemu.machine.runstate import Cause

        ended = asyncio.ensure_future(vm.wait())
        told = asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await vm.machine.quit(Cause.HOST_SIGNAL)
            return (await ended).code
        finally:
            told.cancel()
            ended.cancel()

    def _on_signal(self, number: signal.Signals) -> None:
        """End the guest; before there is one, or when that takes too long for the user, end the process."""
        now = asyncio.get_running_loop().time()
        if self._signal is None:
            self._signal, self._signal_time = number, now
            with contextlib.suppress(OSError):  # who would read it may have gone
                print(f"aioemu: terminating on signal {int(number)}", file=sys.stderr, flush=True)
            if self._is_set_up:
                self._told.set()
                return
        elif now - self._signal_time < PATIENCE_S:
            return
        if self._task is not None:
            self._task.cancel()
