"""Interrupts arrive when asked for and allowed, NMIs once, and a halted CPU wakes for them."""

from __future__ import annotations

import threading

from guest import HALT, KICK, LIB, RAX, RBX, RCX, RSP, Machine, handler

START = 0x100000


class Controller:
    """Hands out vectors in order; counts how often it was asked."""

    def __init__(self, *vectors: int) -> None:
        self.vectors = list(vectors)
        self.asked = 0

    def __call__(self, _: object) -> int:
        self.asked += 1
        return self.vectors.pop(0) if self.vectors else -1


def request(machine: Machine) -> None:
    LIB.aioemu_vcpu_request_interrupt(machine.vcpu.handle)


def test_interrupt_waits_for_if() -> None:
    """With IF clear nothing is asked; the STI that opens the window delivers after one more instruction."""
    controller = Controller(0x50)
    with Machine(interrupt=controller) as machine:
        handler(machine, 0x50, "mov rbx, rax\nmov rcx, [rsp]\nhlt")
        machine.long("mov eax, 1\nmov eax, 2\nsti\nmov eax, 3\nmov eax, 4\nhlt")
        request(machine)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RCX]) == (3, START + 16)
        assert controller.asked == 1


def test_sti_hlt_does_not_lose_the_interrupt() -> None:
    """STI; HLT with a request pending: the CPU halts, then wakes at once and returns after the HLT."""
    with Machine(interrupt=Controller(0x50)) as machine:
        handler(machine, 0x50, "mov rcx, [rsp]\ninc rbx\niretq")
        machine.long("cli\nsti\nhlt\nmov eax, 7\ncli\nhlt")
        request(machine)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RAX], state.gpr[RBX], state.gpr[RCX]) == (7, 1, START + 3)


def test_mov_ss_holds_interrupts_for_one_instruction() -> None:
    """Between MOV SS and the load of RSP no interrupt comes."""
    with Machine(interrupt=Controller(0x50)) as machine:
        handler(machine, 0x50, "mov rcx, [rsp]\nhlt", ist=1)
        machine.long("mov ax, ss\nsti\nmov ss, ax\nmov rsp, 0x20000\nnop\nhlt")
        request(machine)
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RCX] >= START + 6


def test_shadow_survives_save_and_restore() -> None:
    """A stop right after STI still holds the interrupt back for one instruction when the state is set again."""
    with Machine(interrupt=Controller(0x50)) as machine:
        handler(machine, 0x50, "mov rcx, [rsp]\nhlt")
        machine.long("sti\nnop\nnop\nhlt")
        LIB.aioemu_vcpu_set_step(machine.vcpu.handle, 1)
        machine.vcpu.run()
        state = machine.vcpu.state()
        assert state.interrupt_shadow == 1
        LIB.aioemu_vcpu_set_step(machine.vcpu.handle, 0)
        state.interrupt_requested = 1
        machine.vcpu.set(state)
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RCX] == START + 2


def test_spurious_request_is_harmless_and_dropped() -> None:
    """The controller may say -1; it is asked once per request, and not at all after a cancel."""
    controller = Controller()
    with Machine(interrupt=controller) as machine:
        machine.long("sti\nnop\nnop\nnop\ncli\nhlt")
        request(machine)
        assert machine.vcpu.run().reason == HALT
        assert controller.asked == 1
        machine.long("sti\nnop\nnop\ncli\nhlt")
        request(machine)
        LIB.aioemu_vcpu_cancel_interrupt(machine.vcpu.handle)
        machine.vcpu.run()
        assert controller.asked == 1


def test_interrupts_from_another_thread_reach_a_busy_guest() -> None:
    """A guest in a tight loop takes 500 interrupts asked for asynchronously, each exactly once."""
    wanted = 500
    pending = threading.Semaphore(0)

    def interrupt(_: object) -> int:
        return 0x50 if pending.acquire(blocking=False) else -1

    with Machine(interrupt=interrupt) as machine:
        handler(machine, 0x50, "inc rbx\niretq")
        machine.long(f"sti\nagain: cmp rbx, {wanted}\njb again\ncli\nhlt")

        def device() -> None:
            seen = 0
            for _ in range(wanted):
                pending.release()
                request(machine)
                while pending._value and seen < 1 << 30:  # until it was taken
                    seen += 1

        thread = threading.Thread(target=device)
        thread.start()
        assert machine.vcpu.run().reason == HALT
        thread.join()
        assert machine.vcpu.state().gpr[RBX] == wanted


def test_nmi_ignores_if_and_nests_only_after_iret() -> None:
    """An NMI comes with IF clear; a second waits for the handler's IRET."""

    def pio_write(*_: object) -> None:
        LIB.aioemu_vcpu_request_nmi(machine.vcpu.handle)

    with Machine(pio_write=pio_write) as machine:
        handler(machine, 2, "inc rbx\ncmp rbx, 1\njne out\nout 0x80, al\njmp next\nnext: mov rcx, rbx\nout: iretq")
        machine.long("nop\njmp here\nhere: nop\nhlt")
        LIB.aioemu_vcpu_request_nmi(machine.vcpu.handle)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RCX], state.nmi_blocked) == (2, 1, 0)


def test_has_work_says_whether_a_halted_cpu_would_wake() -> None:
    """No for a halt with IF clear and an interrupt asked for; yes with IF set, or for an NMI."""
    with Machine(interrupt=Controller(0x50)) as machine:
        has_work = LIB.aioemu_vcpu_has_work
        handler(machine, 0x50, "hlt")
        handler(machine, 2, "mov ebx, 2\nhlt")
        machine.long("hlt")
        assert has_work(machine.vcpu.handle) == 1
        machine.vcpu.run()
        assert has_work(machine.vcpu.handle) == 0
        request(machine)
        assert has_work(machine.vcpu.handle) == 0
        state = machine.vcpu.state()
        state.rflags |= 0x200
        machine.vcpu.set(state)
        assert has_work(machine.vcpu.handle) == 1
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().rip > 0x200000
        LIB.aioemu_vcpu_request_nmi(machine.vcpu.handle)
        assert has_work(machine.vcpu.handle) == 1
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RBX] == 2


def test_kick_and_interrupt_together() -> None:
    """A kick with an interrupt due loses neither."""
    with Machine(interrupt=Controller(0x50)) as machine:
        handler(machine, 0x50, "inc rbx\niretq")
        machine.long("sti\nagain: test rbx, rbx\njz again\ncli\nhlt")
        request(machine)
        machine.vcpu.kick()
        assert machine.vcpu.run().reason == KICK
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RBX] == 1
        assert machine.vcpu.state().gpr[RSP] == 0x20000
