/* intc.h: the PC's interrupt controllers and timers, for an accelerator that has none of its own (tcg).
 *
 * Local APIC per processor, I/O APIC, 8259 pair, 8254 and port 0x61, all behind one lock that is held for the length
 * of one register access. Functions here are called with the lock held unless they say otherwise. The guest and
 * every caller of irq/msi may be on any thread; neither can make these functions loop or fail beyond -errno.
 */
#pragma once

#include "core.h"

enum {
    INTC_MAX_CPUS = 64,
    INTC_NEVER = 0,
    IOAPIC_PINS = 24,
    IOAPIC_TIMER_PIN = 2, /* where the PC wires the 8254 (and ISA line 0): MP specification 1.4, figure 3-3 */
    LAPIC_TICK_NS = 1,    /* the timer counts at 1 GHz; CPUID leaf 15H says so */
    LAPIC_LVTS = 6,
    LAPIC_FIRST_VECTOR = 16, /* 0-15 are illegal */
    LAPIC_MASKED = 1u << 16, /* of a vector table entry */
    LAPIC_MODE_SHIFT = 17,   /* of the timer's entry: 0 one-shot, 1 periodic, 2 TSC deadline */
    LAPIC_ERROR_SEND_VECTOR = 1u << 5,
    LAPIC_ERROR_RECEIVED_VECTOR = 1u << 6,
    LAPIC_ERROR_REGISTER = 1u << 7,
    TIMER_FLOOR_NS = 50 * 1000, /* the shortest period a guest's periodic timer gets: bounds what it costs the host */
};

/* Vectors of bits 0..255, as IRR, ISR and TMR. */
struct vector_set {
    uint32_t word[8];
};

/* SDM vol. 3, table 11-1; fields hold the registers' own layout. */
enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_COUNTERS, LVT_LINT0, LVT_LINT1, LVT_ERROR };

struct lapic {
    struct core_chip chip;
    struct core_intc *intc;
    uint32_t index;
    uint64_t base; /* IA32_APIC_BASE */
    uint32_t id, tpr, ldr, dfr, svr, esr, icr_low, icr_high, initial_count, divide;
    uint32_t errors; /* since the last write to ESR */
    uint32_t lvt[LAPIC_LVTS];
    struct vector_set isr, irr, tmr;
    bool extint;           /* an I/O APIC pin in ExtINT mode asked this processor to ask the 8259 */
    int64_t started_ns;    /* when the count began */
    int64_t next_ns;       /* when the timer expires next, INTC_NEVER = off */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE, 0 = disarmed */
};

struct ioapic {
    struct core_chip chip;
    struct core_intc *intc;
    uint32_t select, id;
    uint32_t levels; /* bit n: line n is asserted */
    uint64_t entry[IOAPIC_PINS];
};

/* One 8259A. Names of the data sheet's command words and registers. */
struct i8259 {
    struct core_chip chip;
    struct core_intc *intc;
    bool secondary;
    uint8_t irr, imr, isr, lines, elcr;
    uint8_t vector_base, icw3, lowest; /* lowest: the line of lowest priority */
    uint8_t expect;                    /* next ICW at the data port: 2, 3, 4, or 0 = OCW1 */
    bool icw4_follows, single, level_mode, auto_eoi, rotate_in_aeoi, special_nested, special_mask;
    bool read_isr, poll;
};

/* Edge/level control of the pair: ports 4D0H and 4D1H (EISA). */
struct elcr {
    struct core_chip chip;
    struct core_intc *intc;
};

struct i8254_channel {
    uint32_t reload; /* 1..65536, or 1..10000 in BCD */
    uint8_t mode, access, bcd;
    uint8_t low;     /* first byte of a count that is being written */
    uint8_t latched; /* bytes of `latch` still to read: 0, 1 or 2 */
    uint8_t status;  /* valid if status_latched */
    uint16_t latch;
    bool second_write, second_read, status_latched;
    bool gate, armed;    /* armed: the count was written (modes 1 and 5: and the gate rose) */
    bool loaded;         /* the count was written */
    uint64_t base_ticks; /* counted before started_ns */
    int64_t started_ns;
};

struct i8254 {
    struct core_chip chip;
    struct core_intc *intc;
    struct i8254_channel channel[3];
    uint64_t edges;  /* of channel 0's output that were passed on */
    int64_t next_ns; /* when the next one is due */
};

/* Port 61H: gate of channel 2, its output, the refresh toggle. */
struct port61 {
    struct core_chip chip;
    struct core_intc *intc;
    uint8_t control;
};

/* Who drives a line; the wires OR them. */
enum intc_source { INTC_MACHINE, INTC_EVENTFD, INTC_SOURCES };

enum intc_signal { INTC_INTERRUPT, INTC_NMI, INTC_INIT, INTC_SIPI };

struct core_intc {
    pthread_mutex_t lock;
    struct core_machine *machine;
    uint32_t cpu_count;
    struct lapic *cpu[INTC_MAX_CPUS];
    uint32_t lowest_turn; /* where the next search for the lowest priority begins */
    struct ioapic ioapic;
    struct i8259 pic[2];
    struct elcr elcr;
    struct i8254 pit;
    struct port61 port61;
    bool pic_out;
    uint32_t driven[INTC_SOURCES]; /* bit n: the source asserts line n */
    /* What a processor must look at; lock held, must not call back. Vector only for INTC_SIPI. */
    void (*signal)(void *opaque, uint32_t cpu, enum intc_signal what, uint8_t vector);
    /* A level-triggered interrupt of this line was finished; lock held. May be NULL. */
    void (*finished)(void *opaque, uint32_t gsi);
    /* A timer was armed; lock held. */
    void (*armed)(void *opaque, int64_t deadline_ns);
    void *opaque;
};

/* ---- intc.c: the whole. _irq, _msi, _reset and _acknowledge take the lock themselves. ---- */
void intc_open(struct core_intc *intc, struct core_machine *m);
void intc_close(struct core_intc *intc);
int intc_add_cpu(struct core_intc *intc, uint32_t apic_id);
int intc_map(struct core_intc *intc, bool with_timer);
int intc_irq(struct core_intc *intc, uint32_t gsi, bool level);
void intc_drive(struct core_intc *intc, enum intc_source source, uint32_t gsi, bool level); /* lock held */
int intc_msi(struct core_intc *intc, uint64_t address, uint32_t data);
/* Let the timers that are due fire; when the next one is due, or INTC_NEVER. Lock held. */
int64_t intc_poll(struct core_intc *intc, int64_t now_ns);
void intc_reset(struct core_intc *intc);
core_chip *intc_chip(struct core_intc *intc, int kind, uint32_t index);
/* The vector that the processor takes now, acknowledged at its controller, or -1. Takes the lock. */
int intc_acknowledge(struct core_intc *intc, uint32_t cpu);

/* One interrupt message, as an IPI, an MSI or an I/O APIC entry says it. */
enum intc_mode { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_SIPI, MODE_EXTINT };

struct intc_message {
    uint8_t vector, mode, destination;
    bool logical, level;
};

/* Returns how many processors took it. */
int intc_deliver(struct core_intc *intc, const struct intc_message *message);
int intc_deliver_to(struct core_intc *intc, const struct intc_message *message, uint32_t cpu);
void intc_line0(struct core_intc *intc, bool level);
/* The 8259's output changed or a processor may see it differently now. */
void intc_pic_changed(struct core_intc *intc);
int64_t intc_now(struct core_intc *intc);
/* A timer is due at (deadline_ns). */
void intc_arm(struct core_intc *intc, int64_t deadline_ns);

/* ---- lapic.c, lapic_ipi.c, lapic_timer.c, lapic_state.c ---- */
void lapic_open(struct lapic *apic, struct core_intc *intc, uint32_t index, uint32_t id);
/* INIT: everything but id and base. */
void lapic_reset(struct lapic *apic, bool power_on);
uint32_t lapic_read(struct lapic *apic, uint32_t offset);
void lapic_write(struct lapic *apic, uint32_t offset, uint32_t value);
bool lapic_matches(const struct lapic *apic, uint8_t destination, bool logical);
bool lapic_accept(struct lapic *apic, uint8_t vector, bool level);
uint32_t lapic_priority(const struct lapic *apic); /* PPR */
bool lapic_takes_pic(const struct lapic *apic);
bool lapic_pending(const struct lapic *apic);
int lapic_acknowledge(struct lapic *apic);
/* Ask the processor to look if there is something for it. */
void lapic_update(struct lapic *apic);
void lapic_set_tpr(struct lapic *apic, uint8_t tpr);
/* 0, or -EINVAL for what must be #GP. */
int lapic_set_base(struct lapic *apic, uint64_t base);
void lapic_local(struct lapic *apic, enum lapic_lvt lvt);
void lapic_error(struct lapic *apic, uint32_t bits);
bool lapic_is_on(const struct lapic *apic);
bool lapic_is_enabled(const struct lapic *apic); /* on, and by software too (SVR bit 8) */
/* The message in ICR goes out. */
void lapic_send(struct lapic *apic);

uint32_t lapic_timer_count(const struct lapic *apic, int64_t now_ns);
void lapic_timer_restart(struct lapic *apic, int64_t now_ns);
void lapic_timer_poll(struct lapic *apic, int64_t now_ns);
/* The timer's entry was (before). */
void lapic_timer_changed(struct lapic *apic, uint32_t before);
bool lapic_deadline_mode(const struct lapic *apic);
/* IA32_TSC_DEADLINE was written; `due_ns` is when the guest's counter gets there. */
void lapic_set_deadline(struct lapic *apic, uint64_t deadline, int64_t due_ns);

/* A table entry from a saved state: only its defined bits. */
void lapic_load_lvt(struct lapic *apic, enum lapic_lvt lvt, uint32_t value);
int lapic_state_size(struct core_chip *chip);
int lapic_save(struct core_chip *chip, uint8_t *state);
int lapic_load(struct core_chip *chip, const uint8_t *state);

/* ---- ioapic.c ---- */
void ioapic_open(struct ioapic *ioapic, struct core_intc *intc);
void ioapic_line(struct ioapic *ioapic, uint32_t pin, bool level);
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

/* ---- i8259.c ---- */
void i8259_open(struct i8259 *pic, struct core_intc *intc, bool secondary);
void i8259_line(struct i8259 *pic, uint32_t line, bool level);
bool i8259_output(const struct i8259 *pic);
/* The pair's INTA cycles: the vector. */
uint8_t i8259_acknowledge(struct core_intc *intc);
void elcr_open(struct elcr *elcr, struct core_intc *intc);

/* ---- i8254.c, i8254_state.c, port61.c ---- */
void i8254_open(struct i8254 *pit, struct core_intc *intc);
void i8254_poll(struct i8254 *pit, int64_t now_ns);
void i8254_gate(struct i8254_channel *c, bool gate, int64_t now_ns);
bool i8254_out(const struct i8254_channel *c, int64_t now_ns);
int64_t i8254_next_edge(const struct i8254 *pit, int64_t now_ns);
int i8254_state_size(struct core_chip *chip);
int i8254_save(struct core_chip *chip, uint8_t *state);
int i8254_load(struct core_chip *chip, const uint8_t *state);
void port61_open(struct port61 *port, struct core_intc *intc);
