/* layout.h: numbers that assembly and C share. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define MAX_CPUS      16
#define AP_TRAMPOLINE 0x8000

/* Selectors: user ones as Linux has them, since some hosts run level 3 on their own selectors. */
#define KERNEL_CS32   0x08
#define KERNEL_CS     0x10
#define KERNEL_DS     0x18
#define USER_DS       0x2b
#define USER_CS       0x33
#define TSS_SEL       0x38
#define BOOT_GDT_SIZE 0x38
#define GDT_SIZE      0x48
#define IDT_SIZE      4096

/* A CPU's block: found from any of its stack pointers by masking. */
#define CPU_SHIFT       14
#define CPU_SIZE        (1 << CPU_SHIFT)
#define CPU_GDT         0
#define CPU_TSS         0x80
#define CPU_CATCH       0x100
#define USER_STACK_SIZE 8192 /* the upper half; level 0 has the rest */

#define TSS_RSP0  4
#define TSS_IOMAP 0x66
#define TSS_SIZE  0x68

#define TRAP_STUB_SIZE 16
#define CPL0_MAGIC     0x43504c30 /* "CPL0" */

#define CR0_PE         0x1
#define CR0_MP         0x2
#define CR0_ET         0x10
#define CR0_NE         0x20
#define CR0_WP         0x10000
#define CR0_PG         0x80000000
#define CR4_PAE        0x20
#define CR4_OSFXSR     0x200
#define CR4_OSXMMEXCPT 0x400
#define MSR_EFER       0xc0000080
#define EFER_LME       0x100
#define RFLAGS_FIXED   0x2
#define RFLAGS_IF      0x200

#endif
