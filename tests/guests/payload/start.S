/*
 * start.S: from the PVH entry (32-bit, flat, no paging) to C at privilege level 3 in 64-bit mode.
 *
 * Work is done at level 3 because some KVM hosts run only that natively; level 0 holds the trap entry and what
 * traps ask for. All memory is mapped user-accessible. Not done here: the IDT, which C fills at level 3.
 */
#include "layout.h"

	.section .note.pvh, "a", @note
	.long 4, 8, 18                  /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad pvh_start

	.section .text.start, "ax"
	.code32
	.globl pvh_start
pvh_start:
	cli
	movl %ebx, start_info_addr
	xorl %ebp, %ebp                 /* CPU index 0 */
	lgdt boot_gdtr
	jmp enter_long_mode

	/* An application processor, already in 32-bit protected mode on boot_gdt. */
	.globl ap_start32
ap_start32:
	movl $KERNEL_DS, %eax           /* the real mode segment still ends at 64 KiB */
	movl %eax, %ds
	movl $1, %ebp
	lock xaddl %ebp, ap_tickets
	cmpl ap_limit, %ebp
	jae park
	jmp enter_long_mode
park:
	cli
	hlt
	jmp park

enter_long_mode:
	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %cr4, %eax
	orl $(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
	movl %eax, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $MSR_EFER, %ecx
	xorl %edx, %edx
	movl $EFER_LME, %eax
	wrmsr
	movl $(CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG), %eax
	movl %eax, %cr0
	ljmp $KERNEL_CS, $start64

	.code64
start64:
	movl %ebp, %ebx
	shlq $CPU_SHIFT, %rbx
	addq $cpu_blocks, %rbx          /* rbx = this CPU's block (layout.h) */
	leaq CPU_TSS(%rbx), %rdx
	leaq CPU_SIZE(%rbx), %rax
	subq $USER_STACK_SIZE, %rax
	movq %rax, TSS_RSP0(%rdx)
	movw $TSS_SIZE, TSS_IOMAP(%rdx)
	/* copy the GDT into the block and add the descriptor of its TSS */
	leaq CPU_GDT(%rbx), %rdi
	movq $boot_gdt, %rsi
	movl $(BOOT_GDT_SIZE / 8), %ecx
	rep movsq
	movq %rdx, %rax
	shlq $16, %rax
	movq $0x000000ffffff0000, %rcx
	andq %rcx, %rax
	movq $(0x0000890000000000 | (TSS_SIZE - 1)), %rcx
	orq %rcx, %rax
	movq %rdx, %rcx
	shrq $24, %rcx
	shlq $56, %rcx
	orq %rcx, %rax
	movq %rax, CPU_GDT + TSS_SEL(%rbx)
	movq %rdx, %rax
	shrq $32, %rax
	movq %rax, CPU_GDT + TSS_SEL + 8(%rbx)
	leaq CPU_SIZE(%rbx), %rsp
	subq $16, %rsp
	movw $(GDT_SIZE - 1), (%rsp)
	leaq CPU_GDT(%rbx), %rax
	movq %rax, 2(%rsp)
	lgdt (%rsp)
	movw $(IDT_SIZE - 1), (%rsp)
	movq $idt, 2(%rsp)
	lidt (%rsp)
	movl $TSS_SEL, %eax
	ltr %ax
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl %ebp, %edi                 /* argument: the CPU index */
	leaq CPU_SIZE - 8(%rbx), %rsp   /* as after a call */
	movq %rsp, %rax
	pushq $USER_DS
	pushq %rax
	pushq $RFLAGS_FIXED             /* interrupts off */
	pushq $USER_CS
	pushq $cpu_main
	iretq

	/* Trap entry: every vector pushes (error code, vector) and joins here. */
trap_common:
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rbx
	pushq %rbp
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	movq %rsp, %rbp
	andq $-16, %rsp
	call trap
	movq %rbp, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rbp
	popq %rbx
	popq %rdx
	popq %rcx
	popq %rax
	addq $16, %rsp
	iretq

	/* 256 entries of TRAP_STUB_SIZE bytes. Vectors 8, 10-14, 17, 21, 29 and 30 bring their own error code. */
	.balign TRAP_STUB_SIZE
	.globl trap_stubs
trap_stubs:
	.set vector, 0
	.rept 256
	.balign TRAP_STUB_SIZE
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	pushq $0
	.endif
	pushq $vector
	jmp trap_common
	.set vector, vector + 1
	.endr

	/* uint64_t at_cpl0(function, a, b, c): run a function at level 0. `ud2` is a trap that every host delivers. */
	.globl at_cpl0
at_cpl0:
	movq $CPL0_MAGIC, %r11
	ud2
	ret

	/* bool survives(function, a, b): call it; false when it faulted (the fault is then in this CPU's block). */
	.globl survives
survives:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, %rbx
	andq $-CPU_SIZE, %rbx
	pushq CPU_CATCH(%rbx)
	movq %rsp, CPU_CATCH(%rbx)
	movq %rdi, %rax
	movq %rsi, %rdi
	movq %rdx, %rsi
	subq $8, %rsp
	andq $-16, %rsp
	call *%rax
	movl $1, %eax
	.globl survives_resume          /* a fault resumes here with eax 0 */
survives_resume:
	movq %rsp, %rbx
	andq $-CPU_SIZE, %rbx
	movq CPU_CATCH(%rbx), %rsp
	popq CPU_CATCH(%rbx)
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	/* Copied to AP_TRAMPOLINE: an application processor starts here in real mode. */
	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl AP_TRAMPOLINE + ap_gdtr - ap_trampoline
	movl $(CR0_PE | CR0_ET), %eax
	movl %eax, %cr0
	ljmpl $KERNEL_CS32, $ap_start32
	.balign 4
ap_gdtr:
	.word BOOT_GDT_SIZE - 1
	.long boot_gdt
ap_trampoline_end:

	.data
	.balign 16
boot_gdt:
	.quad 0
	.quad 0x00cf9b000000ffff        /* KERNEL_CS32 */
	.quad 0x00af9b000000ffff        /* KERNEL_CS */
	.quad 0x00cf93000000ffff        /* KERNEL_DS */
	.quad 0x00cffb000000ffff        /* 32-bit user code, unused */
	.quad 0x00cff3000000ffff        /* USER_DS */
	.quad 0x00affb000000ffff        /* USER_CS */
boot_gdtr:
	.word BOOT_GDT_SIZE - 1
	.long boot_gdt
	.balign 8
	.globl start_info_addr, ap_limit
start_info_addr:
	.quad 0
ap_tickets:
	.long 1
ap_limit:
	.long 1                         /* CPUs with a higher index stay parked */

	/* Identity map of 4 GiB in 2 MiB pages, user, writable, accessed, dirty; from 3 GiB on uncached. */
	.section .data.pages, "aw"
	.balign 4096
	.globl pml4, pdpt
pml4:
	.quad pdpt + 0x27
	.fill 511, 8, 0
pdpt:
	.quad pd + 0x27, pd + 0x1027, pd + 0x2027, pd + 0x3027
	.fill 508, 8, 0
pd:
	.set page, 0
	.rept 1536
	.quad page + 0xe7
	.set page, page + 0x200000
	.endr
	.rept 512
	.quad page + 0xff
	.set page, page + 0x200000
	.endr

	.bss
	.balign CPU_SIZE
	.globl cpu_blocks
cpu_blocks:
	.fill MAX_CPUS * CPU_SIZE
	.section .note.GNU-stack, "", @progbits
