"""One virtual machine: built from a configuration, started, paused, reset, and gone without a trace.

Everything runs on one event loop; nothing here blocks it but the loading of a kernel, which happens before the guest
runs. Control operations take turns. What the guest wishes (reset, power off) is done in a task of the machine's own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioemu.accel.base import Accelerator, add_vcpu
from aioemu.accel.choose import open_accelerator
from aioemu.accel.cpuid import apic_ids
from aioemu.chardev import Chardevs, MuxKeys
from aioemu.config import CpuModel, MachineConfig
from aioemu.config.blame import blaming
from aioemu.config.unserved import refuse_unserved
from aioemu.core.fds import FdTable
from aioemu.errors import EmuError
from aioemu.log import EventLog, Log
from aioemu.machine.board import Board
from aioemu.machine.boards import make_board
from aioemu.machine.clock import VirtualClock
from aioemu.machine.drives import Drives
from aioemu.machine.iothread import IoThreads
from aioemu.machine.kit import Kit, Wishes
from aioemu.machine.memory import make_memory
from aioemu.machine.native import Native, Stop, StopKind
from aioemu.machine.nic_links import NicLinks
from aioemu.machine.nics import Nics
from aioemu.machine.objects import Objects
from aioemu.machine.report import describe_stop
from aioemu.machine.runstate import Cause, ExitStatus, RunState
from aioemu.machine.serial import SerialPorts
from aioemu.machine.served import SERVED
from aioemu.machine.site import Site
from aioemu.machine.vcpus import enter, wait
from aioemu.machine.views import Views
from aioemu.memory.guest import GuestMemory

if TYPE_CHECKING:
    from aioemu.boot.loader import BootFiles

RNG_SEED_BYTES = 32  # what Linux counts as a full seed (boot protocol, SETUP_RNG_SEED)
UNMANNED = ("none", "qtest")  # accelerators without a processor: a test that drives the machine owns the clock


class Machine(Views):
    """A machine in the running loop. `open` builds it, `close` frees everything; both may be called once."""

    def __init__(self, config: MachineConfig, events: EventLog | None = None) -> None:
        self.config = config
        self.name = config.name or "aioemu"
        self.events = events if events is not None else EventLog()
        self.log = Log("machine", self.name, self.events)
        self.state = RunState.PRELAUNCH
        self.actions = config.actions
        self.preconfig = config.preconfig  # managers still ask and add; the guest waits for leave_preconfig
        self._reset_wanted = False
        self.fds = FdTable()
        self.chardevs = Chardevs(MuxKeys(quit=self._quit_key, escape=config.escape), self.fds.number, self.fds.open)
        self.iothreads: IoThreads = IoThreads()
        self.drives: Drives = Drives(config, self.log, self.fds.open)
        self.serial = SerialPorts(self.chardevs, config.serials)
        self.native: Native
        self.memory: GuestMemory
        self.objects: Objects
        self.kit: Kit
        self.site: Site
        self.clock: VirtualClock
        self.board: Board
        self.accelerator: Accelerator
        self.nics: Nics
        self._closers: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._control = asyncio.Lock()
        self._exit: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._boot_files: BootFiles | None = None
        self.links = NicLinks(lambda: self.nics, self.log)
        self.own_devices: dict[str, Any] = {}  # virtio devices of the program, plugged in before the guest boots

    # ---- building --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Build everything up to the first instruction. On failure everything is freed again."""
        refuse_unserved(self.config, SERVED)
        try:
            await self._open_chardevs()
            self._build()
            self._closers.append(self.drives.close)
            await self.drives.open()
            await self.nics.open(self.config, self.native)
            for group in self.config.objects:
                self.objects.make(group, late=True)
            self._build_board()
            self._boot()
            self.native.start_threads()
        except BaseException:
            self.close()
            raise

    async def _open_chardevs(self) -> None:
        self._closers += [self.fds.close, self.chardevs.close]
        for group in self.config.groups_of("add-fd"):
            self.fds.adopt(group.values)
        for options in self.config.chardevs:
            self.chardevs.add(options)
        await self.chardevs.open_all()

    def _build(self) -> None:
        config = self.config
        self.board = make_board(config, self.log)
        self.accelerator = open_accelerator(config, self.log.to("accel"))
        self._closers.append(self.accelerator.close)
        self.native = Native(max(1, config.smp.maxcpus), self.log, self._on_stop)
        self._closers.append(self.native.close)
        self._closers.append(self.iothreads.close)
        self.nics = Nics(self.log, self.chardevs, self.fds.number)
        self._closers += [self.nics.close, self.links.close]
        self.accelerator.attach(self.native.ptr, self.board.needs)
        self.objects = Objects(self)
        self._closers.append(self.objects.close)
        for group in config.objects:
            self.objects.make(group)
        self.memory = make_memory(self.native.ptr, config, self.board, self.objects)
        self._closers.append(self.memory.close)
        self._add_vcpus()
        self.clock = VirtualClock(self.native.ptr)
        self._closers.append(self.clock.close)
        if config.qtest is not None and self.accelerator.name in UNMANNED:
            self.clock.own(0)

    def _build_board(self) -> None:
        config = self.config
        self.kit = self._make_kit()
        self._closers.append(self.kit.close)
        self.kit.flushers.append(lambda: self.nics.hold(True))
        self.kit.resumers.append(lambda: self.nics.hold(False))
        self.board.build(self.kit)
        self.site = Site(self.kit, self.board, self.serial, self.objects)
        if config.debugcon is not None:
            self.site.add_debugcon(config.debugcon)
        for device in (*self.drives.devices(), *self.nics.devices(), *config.devices):
            place = {"id": device.id, "bus": device.bus, "addr": device.addr}
            with blaming("-device", device.driver, {**place, **device.props}):
                self.site.add(device)
        self.watch_rtc()
        self.site.settle()
        for name, own in self.own_devices.items():
            self.site.plug_own(name, own)

    def _add_vcpus(self) -> None:
        if self.accelerator.name in UNMANNED:
            return
        model = self.config.cpu or CpuModel("max")
        for apic_id in apic_ids(self.config.smp)[: self.config.smp.cpus]:
            add_vcpu(self.accelerator, self.native.ptr, model, self.config.smp, apic_id)

    def _make_kit(self) -> Kit:
        wishes = Wishes(
            reset=self._guest_resets,
            power_off=lambda: self._soon(self.request_shutdown(Cause.GUEST_SHUTDOWN)),
            exit=lambda code: self._soon(self.request_shutdown(Cause.GUEST_SHUTDOWN, code, final=True)),
            panicked=lambda kind: self._soon(self._panicked(kind)),
            io_error=lambda: self._soon(self.pause(RunState.IO_ERROR)),
        )
        parts = self.iothreads, self.nics, self.drives
        return Kit(self.config, self.native, self.memory, self.clock, wishes, self.log, self.serial.connect, *parts)

    def _boot(self) -> None:
        """Put kernel and tables into memory and the boot processor at its first instruction."""
        boot = self.config.boot
        tables = self.board.firmware(self.kit)
        if boot.kernel is None:
            if tables is not None:
                tables.write(self.memory)
            wait(self.native)
            return
        from aioemu.boot.loader import BootFiles, KernelImage, load  # a machine without a kernel needs no loader

        if self._boot_files is None:
            cmdline = self.board.boot_cmdline(boot.append)
            self._boot_files = BootFiles(KernelImage(boot.kernel, boot.initrd, cmdline))
            self._closers.append(self._boot_files.close)
        layout = replace(self.board.boot_layout(), rng_seed=os.urandom(RNG_SEED_BYTES))
        enter(self.native, load(self.memory, self._boot_files, layout, tables))

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.state is RunState.RUNNING

    async def start(self) -> None:
        """Let the guest run, unless the configuration says that it waits for `resume` (-S) or for leave_preconfig."""
        if not self.config.paused and not self.preconfig and self.state is RunState.PRELAUNCH:
            await self.resume()

    async def leave_preconfig(self) -> None:
        """What `--preconfig` waited for. EmuError where nothing waits for it."""
        if not self.preconfig:
            raise EmuError("The command is permitted only before machine initialization")
        self.preconfig = False
        await self.start()

    async def resume(self) -> None:
        """Let the guest go on. EmuError when only a reset could bring it back."""
        async with self._control:
            if self.running:
                return
            if self.state.needs_reset:
                raise EmuError("Resetting the Virtual Machine is required")
            if self.preconfig:
                raise EmuError("The machine waits for x-exit-preconfig")
            self._go()

    async def pause(self, state: RunState = RunState.PAUSED) -> None:
        """Return when no vCPU runs and no virtual time passes. A machine that stands still already stays as it is."""
        async with self._control:
            if self.running:
                await self._halt(state)

    async def reset(self, cause: Cause = Cause.HOST_QMP_SYSTEM_RESET) -> None:
        """Power-on state, kernel loaded afresh; goes on running if it ran. With `-no-reboot` this is the end."""
        if self.actions.reboot == "shutdown":
            await self.request_shutdown(cause)
            return
        async with self._control:
            await self._reset(cause)

    def powerdown(self) -> None:
        """Press the power button; the guest may take notice, or not."""
        self.emit("POWERDOWN")
        self.board.power_button()

    async def quit(self, cause: Cause = Cause.HOST_QMP_QUIT, code: int = 0) -> None:
        """End the guest now; `wait` returns."""
        await self.request_shutdown(cause, code, final=True)

    async def wait(self) -> ExitStatus:
        """Until the machine's life has ended, and how."""
        return await asyncio.shield(self._exit)

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended, once it has."""
        return self._exit.result() if self._exit.done() and not self._exit.cancelled() else None

    async def request_shutdown(self, cause: Cause, code: int = 0, *, final: bool = False) -> None:
        """The end, unless `-no-shutdown` keeps the machine for inspection; `final` is the end in any case."""
        async with self._control:
            if self._exit.done() or (self.state is RunState.SHUTDOWN and not final):
                return
            self.emit("SHUTDOWN", guest=cause.by_guest, reason=cause.value)
            if self.actions.shutdown == "pause" and not final:
                await self._halt(RunState.SHUTDOWN)
                return
            await self._stand_still()
            await self.drives.end()
            self.state = RunState.SHUTDOWN
            if not self._exit.done():
                self._exit.set_result(ExitStatus(cause, code))

    def set_actions(self, **changes: str) -> None:
        """Change what follows the guest's reboot, shutdown, panic or a fired watchdog."""
        self.actions = replace(self.actions, **changes)

    # ---- what it leaves behind ---------------------------------------------------------------------------------------

    def emit(self, name: str, **data: object) -> None:
        """Record an event under its QMP name; whoever subscribed to `events` learns of it at once."""
        self.log.event(name, **data)

    def close(self) -> None:
        """Free every fd, thread, mapping and task; never fails, may be called again."""
        for task in tuple(self._tasks):
            task.cancel()
        while self._closers:
            close = self._closers.pop()
            try:
                close()
            except Exception as exc:
                self.log.error("closing: %r", exc)
        if not self._exit.done():
            self._exit.cancel()

    # ---- the steps of it; with the control lock held ---------------------------------------------------------------

    def _go(self) -> None:
        self._let_run()
        self.emit("RESUME")

    def _let_run(self) -> None:
        self.state = RunState.RUNNING
        self.clock.start()
        self.kit.go_on()
        self.native.resume()

    async def _stand_still(self) -> None:
        await self.native.pause()
        self.clock.stop()
        self.kit.flush()

    async def _halt(self, state: RunState) -> None:
        await self._stand_still()
        await self.drives.flush()
        was_running, self.state = self.running, state
        if was_running:
            self.emit("STOP")

    async def _reset(self, cause: Cause) -> None:
        was_running = self.running
        self._reset_wanted = True
        await self._stand_still()
        self.native.drain()  # what was asked before the reset is answered before it
        self.native.router.abandon()
        await self.native.pause()
        self._reset_wanted = False
        self.native.reset()
        self.kit.reset_chips()
        self._boot()
        self.emit("RESET", guest=cause.by_guest, reason=cause.value)
        self.state = RunState.PRELAUNCH
        if was_running:
            self._let_run()

    async def _panicked(self, kind: str) -> None:
        if kind == "crash-loaded":  # a crash kernel takes over: the guest goes on
            self.emit("GUEST_CRASHLOADED", action="run")
            return
        if kind == "shutdown":  # the guest has ended, and says so by the panic device
            self.emit("GUEST_PVSHUTDOWN")
            await self.request_shutdown(Cause.GUEST_SHUTDOWN)
            return
        action = self.actions.panic
        self.emit("GUEST_PANICKED", action={"none": "run", "pause": "pause"}.get(action, "poweroff"))
        if action == "pause":
            await self.pause(RunState.GUEST_PANICKED)
        elif action in ("shutdown", "exit-failure"):
            await self.request_shutdown(Cause.GUEST_PANIC, 1 if action == "exit-failure" else 0)

    # ---- what vCPUs report -----------------------------------------------------------------------------------------

    def _guest_resets(self) -> None:
        """The guest asked for a reset. It may ask again before the first is carried out: that is the same one."""
        if not self._reset_wanted:
            self._reset_wanted = True
            self._soon(self.reset(Cause.GUEST_RESET))

    def _on_stop(self, stop: Stop) -> None:
        if stop.kind in (StopKind.SHUTDOWN, StopKind.RESET):
            self._guest_resets()
        elif stop.kind is StopKind.POWEROFF:
            self._soon(self.request_shutdown(Cause.GUEST_SHUTDOWN))
        elif stop.kind is StopKind.CRASH:
            self._soon(self._panicked("crash"))
        else:
            self._soon(self._broken(stop))

    async def _broken(self, stop: Stop) -> None:
        async with self._control:
            if self.running:
                await self._halt(RunState.DEBUG if stop.kind is StopKind.DEBUG else RunState.INTERNAL_ERROR)
        text = describe_stop(self.native, self.memory, stop)
        self.log.event("vcpu-stopped", vcpu=stop.vcpu, kind=stop.kind.name.lower(), detail=stop.detail)
        if stop.kind is not StopKind.DEBUG:
            self.log.error("%s", text)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.log.error("%r", task.exception())
            if not self._exit.done():
                self._exit.set_result(ExitStatus(Cause.HOST_ERROR, 1))

    def _quit_key(self) -> None:
        self._soon(self.quit(Cause.HOST_UI))
