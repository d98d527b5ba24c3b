/* tests.h: every test, `test_NAME`; main.c has the table. */
#ifndef TESTS_H
#define TESTS_H

#include "guest.h"

/* t_basic.c */
test_fn test_hello, test_info, test_acpi, test_cpuid, test_msr, test_flood, test_echo, test_memory, test_load, test_rmw,
    test_jit;
/* t_io.c */
test_fn test_script, test_storm, test_strio, test_mmio, test_fuzz_ports, test_fuzz_mmio, test_pci;
/* t_blk.c */
test_fn test_blk;
/* t_net.c */
test_fn test_net;
/* t_time.c */
test_fn test_timer, test_pit, test_pmtimer, test_rtc, test_uartirq;
/* t_smp.c */
test_fn test_smp, test_ipi, test_ipi_flood;
/* t_wire.c */
test_fn test_wire;
/* t_end.c: those that end the machine, or try to */
test_fn test_exit, test_poweroff, test_reset, test_panic, test_halt, test_triple, test_internal, test_jump,
    test_garbage;

#endif
