/* cdef.h: everything Python may call or read in the native core. Parsed by cffi, so plain declarations only. */

typedef struct core_machine core_machine;
typedef struct core_chip core_chip;

/* Address spaces of the guest's bus. */
enum core_space { CORE_PIO, CORE_MMIO };

/* How the core serves one direction of a register (DESIGN §4). */
enum core_read_mode { CORE_READ_MEMORY, CORE_READ_CLEAR, CORE_READ_SYNC };
enum core_write_mode { CORE_WRITE_MEMORY, CORE_WRITE_POSTED, CORE_WRITE_SYNC };

/* One register of a window: `width` bytes at `offset`; a write changes the bits of `writable` to those written
 * and clears the bits of `clear` where a one is written. */
typedef struct {
    uint32_t offset;
    uint8_t width;
    uint8_t read_mode;
    uint8_t write_mode;
    uint8_t unused;
    uint64_t reset;
    uint64_t writable;
    uint64_t clear;
} core_reg;

/* What the reactor is told. */
enum core_event_kind {
    CORE_EVENT_READ,   /* a vCPU waits: answer with core_answer */
    CORE_EVENT_WRITE,  /* a vCPU waits: answer with core_answer */
    CORE_EVENT_POSTED, /* a write that nobody waits for */
    CORE_EVENT_NOTIFY, /* a native chip has news: `tag` is the number given to core_notify_bind */
    CORE_EVENT_PAUSED, /* no vCPU runs any more */
    CORE_EVENT_STOPPED /* a vCPU left the guest for good and waits at the gate: `value` is a core_stop */
};

enum core_stop {
    CORE_STOP_SHUTDOWN = 1,   /* triple fault */
    CORE_STOP_RESET,          /* the guest asked for a reset */
    CORE_STOP_POWEROFF,       /* the guest asked for power off */
    CORE_STOP_CRASH,          /* the guest reported a crash (KVM_SYSTEM_EVENT_CRASH) */
    CORE_STOP_INTERNAL_ERROR, /* `offset` = suberror */
    CORE_STOP_FAIL_ENTRY,     /* `offset` = hardware reason */
    CORE_STOP_DEBUG,          /* break or step: `offset` = exception, `aux` = pc */
    CORE_STOP_HALTED,         /* halted for ever: no interrupt controller could wake it */
    CORE_STOP_HOST_ERROR      /* the accelerator failed: `offset` = errno */
};

typedef struct {
    uint32_t kind;
    uint32_t vcpu;
    uint32_t tag;  /* of the region (core_map) or of the notifier */
    uint32_t reg;  /* index of the register in its window */
    uint32_t size; /* bytes */
    uint32_t thread;
    uint64_t seq; /* give it back to core_answer */
    uint64_t offset;
    uint64_t value;
    uint64_t aux;
} core_event;

/* Exits to user space, by kind (one counter a vCPU and kind; names from core_exit_name). */
enum core_exit {
    CORE_EXIT_PIO_READ,
    CORE_EXIT_PIO_WRITE,
    CORE_EXIT_MMIO_READ,
    CORE_EXIT_MMIO_WRITE,
    CORE_EXIT_HLT,
    CORE_EXIT_INTR,
    CORE_EXIT_SYSTEM,
    CORE_EXIT_OTHER,
    CORE_EXIT_HANDED_OVER, /* of the above: answered by Python */
    CORE_EXIT_COUNT
};

typedef struct {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl, unusable;
} core_segment;

/* x86 processor state, the same for every accelerator. gpr: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 (hardware order). */
typedef struct {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    core_segment cs, ds, es, fs, gs, ss, tr, ldt;
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint32_t halted;        /* waits for an interrupt */
    uint32_t uninitialized; /* an application processor that waits for INIT/SIPI */
} core_cpu_state;

typedef struct {
    uint32_t function, index, flags, eax, ebx, ecx, edx;
} core_cpuid;

typedef struct {
    uint32_t index;
    uint64_t data;
} core_msr;

/* machine.c: the machine and its gate. Control thread only unless said otherwise. All return 0 or -errno. */
core_machine *core_machine_new(uint32_t max_vcpus);
void core_machine_free(core_machine *m);
int core_machine_event_fd(core_machine *m);
int core_machine_collect(core_machine *m, core_event *events, int max);
/* The same, but look for up to wait_ns before giving up with 0: for the moments when the next event is near. */
int core_machine_poll(core_machine *m, core_event *events, int max, uint32_t wait_ns);
int core_machine_start(core_machine *m);
int core_machine_resume(core_machine *m);
int core_machine_pause(core_machine *m);
int core_machine_is_paused(core_machine *m);
int core_machine_reset(core_machine *m);
int core_answer(core_machine *m, uint32_t thread, uint64_t seq, uint64_t value);
uint64_t core_clock_ns(core_machine *m);
void core_clock_stop(core_machine *m);
void core_clock_start(core_machine *m);
void core_clock_own(core_machine *m, int64_t now_ns);

/* accelerators */
int core_kvm_attach(core_machine *m, int kvm_fd, uint32_t flags);
enum core_kvm_flag { CORE_KVM_IRQCHIP = 1, CORE_KVM_PIT = 2 };
int core_kvm_supported_cpuid(int kvm_fd, core_cpuid *entries, int max);
int core_kvm_check(int kvm_fd, int capability);
int64_t core_kvm_ring0_rate(int kvm_fd);
int core_none_attach(core_machine *m);
const char *core_accel_name(core_machine *m);

/* vCPUs */
int core_vcpu_add(core_machine *m, uint32_t apic_id);
int core_vcpu_count(core_machine *m);
int core_vcpu_thread_id(core_machine *m, uint32_t vcpu);
int core_vcpu_get_state(core_machine *m, uint32_t vcpu, core_cpu_state *state);
int core_vcpu_set_state(core_machine *m, uint32_t vcpu, const core_cpu_state *state);
int core_vcpu_translate(core_machine *m, uint32_t vcpu, uint64_t gva, uint64_t *gpa);
int core_vcpu_set_cpuid(core_machine *m, uint32_t vcpu, const core_cpuid *entries, int count);
int core_vcpu_set_msrs(core_machine *m, uint32_t vcpu, const core_msr *msrs, int count);
int core_vcpu_get_msrs(core_machine *m, uint32_t vcpu, core_msr *msrs, int count);
int core_vcpu_inject_nmi(core_machine *m, uint32_t vcpu);
int core_vcpu_debug(core_machine *m, uint32_t vcpu, int single_step, const uint64_t *breakpoints, int count);
uint64_t core_vcpu_exits(core_machine *m, uint32_t vcpu, uint32_t kind);
uint64_t core_vcpu_first_entry_ns(core_machine *m, uint32_t vcpu);
const char *core_exit_name(uint32_t kind);

/* io.c: an io context; the reactor drives it as a reader of its fd, or a thread of its own (iothread.c) */
typedef struct core_io core_io;
core_io *core_io_new(void);
void core_io_free(core_io *io);
int core_io_fd(core_io *io);
void core_io_run(core_io *io, int64_t budget_ns);
void core_io_sync(core_io *io);
int core_io_set_poll(core_io *io, int64_t max_ns, uint32_t grow, uint32_t shrink, uint32_t max_batch);
int core_io_thread_start(core_io *io, const char *name);
void core_io_thread_stop(core_io *io);
int core_io_thread_id(core_io *io);

/* guest memory */
int core_ram_file(void); /* an empty file for it, in huge pages where that can be; -errno */
int core_ram_add(core_machine *m, uint64_t gpa, uint64_t size, int fd, uint64_t fd_offset, uint32_t flags);
enum core_ram_flag { CORE_RAM_READONLY = 1, CORE_RAM_PREALLOC = 2 };
int core_ram_remove(core_machine *m, uint64_t gpa);
/* Tell the accelerator that bytes were changed from outside the guest. Any thread. */
void core_ram_written(core_machine *m, uint64_t gpa, uint64_t size);
uint8_t *core_ram_ptr(core_machine *m, uint64_t gpa, uint64_t size);

/* the bus: regions never overlap; `tag` comes back in events. Safe while vCPUs run. */
int core_map(core_machine *m, int space, uint64_t base, uint64_t size, core_chip *chip, uint32_t tag);
int core_unmap(core_machine *m, int space, uint64_t base);
/* One part of an access from Python: *size shrinks to the bytes done; 1 = handed over in *handover, 0 = answered. */
int core_access(core_machine *m, int space, uint64_t address, uint32_t *size, int is_write, uint64_t *value,
                core_event *handover);
uint64_t core_region_hits(core_machine *m, int space, uint64_t base, int is_write);
int core_doorbell_add(core_machine *m, int space, uint64_t address, uint32_t size, int fd, int match, uint64_t value);
int core_doorbell_remove(core_machine *m, int space, uint64_t address, uint32_t size, int fd, int match,
                         uint64_t value);

/* interrupts: a line is the wired OR of its sources. Any thread. */
int core_irq_set(core_machine *m, uint32_t gsi, int level);
int core_irq_pulse(core_machine *m, uint32_t gsi);
int core_msi_send(core_machine *m, uint64_t address, uint32_t data);
int core_irqfd_add(core_machine *m, int fd, int resample_fd, uint32_t gsi);
int core_irqfd_remove(core_machine *m, int fd, uint32_t gsi);
int core_notify_bind(core_machine *m, core_chip *chip, uint32_t tag);
void core_notify_unbind(core_chip *chip);
/* Hold back a chip's news, or let them through again (at once, if there are any): many small ones become one. */
void core_notify_hold(core_chip *chip, int hold);

/* chips */
void core_chip_free(core_chip *chip);
void core_chip_reset(core_chip *chip);
int core_chip_wire(core_chip *chip, core_machine *m, int gsi);
int core_chip_state_size(core_chip *chip);
int core_chip_save(core_chip *chip, uint8_t *state, int size);
int core_chip_load(core_chip *chip, const uint8_t *state, int size);
/* window.c: a register window */
core_chip *core_window_new(uint32_t size, const core_reg *regs, int count);
uint8_t *core_window_bytes(core_chip *window);
uint64_t core_window_update(core_chip *window, uint32_t offset, uint32_t width, uint64_t keep, uint64_t set);
core_chip *core_raw_new(void);
/* One part of an access to a chip that need not be on a bus: as core_access; *reg is the register handed over. */
int core_chip_access(core_chip *chip, uint64_t offset, uint32_t *size, int is_write, uint64_t *value, uint32_t *reg);

/* uart.c: 16550A; take and feed are the host's side, any thread */
core_chip *core_uart_new(void);
int core_uart_take(core_chip *uart, uint8_t *data, int max);
int core_uart_feed(core_chip *uart, const uint8_t *data, int len);
int core_uart_space(core_chip *uart);
int core_uart_pending(core_chip *uart);
int core_uart_push(core_chip *uart, uint8_t byte);
void core_uart_break(core_chip *uart);
void core_uart_modem(core_chip *uart, uint8_t lines);
uint8_t core_uart_lines(core_chip *uart);
int core_uart_peek(core_chip *uart, int received, uint8_t *data, int max);
int core_uart_restore(core_chip *uart, int received, const uint8_t *data, int len);
/* uart_gather.c: the reactor ticks while it gathers */
void core_uart_gather_at(core_chip *uart, uint32_t port);
int core_uart_gathering(core_chip *uart);
void core_uart_gather_tick(core_chip *uart);
/* pmtimer.c: the ACPI power management timer, a free counter of 24 or 32 bits */
core_chip *core_pmtimer_new(int bits);
uint64_t core_pmtimer_ticks(core_chip *timer);
/* pcihost.c: both ways to the configuration space of PCI; functions by bus << 8 | device << 3 | function */
core_chip *core_pci_new(void);
core_chip *core_pci_ecam_new(core_chip *pci);
int core_pci_set(core_chip *pci, uint32_t bdf, core_chip *function);
/* msix.c: a function's MSI-X table and pending bits */
core_chip *core_msix_new(int vectors, uint32_t pba_offset);
void core_msix_control(core_chip *msix, int enabled, int masked);
int core_msix_notify(core_chip *msix, uint32_t vector);
int core_msix_enabled(core_chip *msix);
int core_msix_has(core_chip *msix, uint32_t vector);

/* ---- tcg: the software processor, and the PC's interrupt controllers and timers that come with it ---- */
enum core_tcg_flag { CORE_TCG_PIT = 1 }; /* with the 8254 and port 61H */
/* library: the engine's path. -ELIBACC: cannot be loaded; -ELIBBAD: not an engine of this version. */
int core_tcg_attach(core_machine *m, const char *library, uint32_t flags);
int core_tcg_supported_cpuid(core_cpuid *entries, int max);
enum core_intc_kind { CORE_LAPIC, CORE_IOAPIC, CORE_I8259, CORE_I8254, CORE_PORT61, CORE_ELCR };
/* index: the vCPU of a local APIC, 0 or 1 of an 8259. NULL: there is none. Owned by the machine. */
core_chip *core_tcg_chip(core_machine *m, int kind, uint32_t index);
/* The same chips without a processor: (cpus) local APICs on machine (m), whose clock they use. For tests. */
typedef struct core_intc core_intc;
core_intc *core_intc_new(core_machine *m, uint32_t cpus);
void core_intc_free(core_intc *intc);
core_chip *core_intc_chip(core_intc *intc, int kind, uint32_t index);
int core_intc_irq(core_intc *intc, uint32_t gsi, int level);
int core_intc_msi(core_intc *intc, uint64_t address, uint32_t data);
/* The vector that the processor would take now, acknowledged, or -1. */
int core_intc_acknowledge(core_intc *intc, uint32_t cpu);
/* Let due timers fire; the time of the next, 0 = none. */
int64_t core_intc_poll(core_intc *intc);
/* What was signalled to the processor since the last call: bits 0 interrupt, 1 NMI, 2 INIT, 3 SIPI; 15:8 its vector. */
uint32_t core_intc_signals(core_intc *intc, uint32_t cpu);
int core_intc_set_deadline(core_intc *intc, uint32_t cpu, uint64_t deadline);
int core_intc_set_base(core_intc *intc, uint32_t cpu, uint64_t base);

/* ---- virtio: a device's transport state, its faces on a bus, and its queues ---- */
enum core_virtio_kind { CORE_VIRTIO_MMIO, CORE_VIRTIO_PCI };
/* `reg` of what a face hands over: writes of the status, of the configuration, and of 0 (the driver takes the selected
 * queue back) or 1 (it resets that queue). */
enum core_virtio_handover { CORE_VIRTIO_STATUS, CORE_VIRTIO_CONFIG, CORE_VIRTIO_QUEUE_OFF };
core_chip *core_virtio_new(uint32_t device_id, uint64_t features, const uint16_t *sizes, uint32_t queues,
                           uint32_t config_size);
core_chip *core_virtio_face_new(core_chip *virtio, int kind);
void core_virtio_wire_pci(core_chip *virtio, core_chip *msix, core_chip *function);
void core_virtio_intx_off(core_chip *virtio, int off);
uint32_t core_virtio_set_status(core_chip *virtio, uint32_t value);
uint32_t core_virtio_status(core_chip *virtio);
uint64_t core_virtio_features(core_chip *virtio);
const char *core_virtio_error(core_chip *virtio);
void core_virtio_break(core_chip *virtio);
int core_virtio_next_kick(core_chip *virtio);
void core_virtio_kick(core_chip *virtio, uint32_t queue);
int core_virtio_ready(core_chip *virtio, uint32_t queue);
int core_virtio_kick_fd(core_chip *virtio, uint32_t queue, int fd);
int core_virtio_selected(core_chip *virtio);
int core_virtio_queue_off(core_chip *virtio, uint32_t queue, int reset);
int core_virtio_set_config(core_chip *virtio, uint32_t offset, const uint8_t *data, uint32_t size, int tell);
int core_virtio_get_config(core_chip *virtio, uint32_t offset, uint8_t *data, uint32_t size);
int core_virtio_check(core_chip *virtio, const uint8_t *state, int size);
/* vring.c: chains are named by slot and epoch, so one that is completed late is recognised. Any thread. */
typedef struct {
    uint64_t gpa;
    uint32_t size;
    uint32_t writable;
} core_vseg;
typedef struct {
    uint64_t readable, writable; /* bytes */
    uint32_t slot, epoch, segments, id, descriptors;
} core_vchain_info;
int core_vq_pop(core_chip *virtio, uint32_t queue, core_vchain_info *info);
int core_vq_segments(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, core_vseg *segments, int max);
int64_t core_vq_read(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t offset, uint8_t *data,
                     uint64_t size);
int64_t core_vq_write(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t offset,
                      const uint8_t *data, uint64_t size);
int core_vq_push(core_chip *virtio, uint32_t queue, uint32_t slot, uint32_t epoch, uint64_t written);
int core_vq_flush(core_chip *virtio, uint32_t queue);
int64_t core_ram_discard(core_machine *m, uint64_t gpa, uint64_t size);
int64_t core_virtio_discard(core_chip *virtio, uint64_t gpa, uint64_t size);
int core_vq_in_flight(core_chip *virtio, uint32_t queue, core_vchain_info *infos, int max);
int core_vq_restore(core_chip *virtio, uint32_t queue, uint32_t id, uint32_t descriptors, const core_vseg *segments,
                    uint32_t count);
/* ---- network: port.h says who may call what, and from where ---- */
typedef struct core_port core_port;
typedef struct core_io core_io;
/* What a port understands in a frame's header. */
enum core_port_takes {
    CORE_TAKES_CSUM = 1,
    CORE_TAKES_TSO4 = 2,
    CORE_TAKES_TSO6 = 4,
    CORE_TAKES_ECN = 8,
    CORE_TAKES_UFO = 16,
    CORE_TAKES_USO = 32,
    CORE_TAKES_ALL = 63
};
/* Why a frame was lost. */
enum core_drop {
    CORE_DROP_NO_PEER,    /* joined to nothing */
    CORE_DROP_LINK_DOWN,  /* one of the two ends is down */
    CORE_DROP_NO_DRIVER,  /* the guest does not drive its NIC, or that queue of it */
    CORE_DROP_NO_ROOM,    /* the receiver has no room and does not wait */
    CORE_DROP_QUEUE_FULL, /* a bounded queue in between is full */
    CORE_DROP_TOO_LONG,
    CORE_DROP_TOO_SHORT,
    CORE_DROP_BAD_HEADER,   /* a header that cannot be: offsets outside, segments of no size, unknown kinds */
    CORE_DROP_NO_OFFLOAD,   /* the receiver cannot take it, and it cannot be done in software */
    CORE_DROP_FILTERED,     /* by address, VLAN or a filter that was set */
    CORE_DROP_HOST,         /* the host refused it */
    CORE_DROP_IMPAIRED,     /* lost on purpose */
    CORE_DROP_BAD_CHECKSUM, /* damaged on the way */
    CORE_DROP_GUEST,        /* the guest took its buffer back, or gave one that cannot be */
    CORE_DROP_COUNT = 14
};
typedef struct {
    uint64_t out_frames, out_bytes, in_frames, in_bytes; /* passed on to the peer; taken from it */
    uint64_t drop_out[14], drop_in[14];                  /* by core_drop */
} core_port_counts;
const char *core_drop_name(uint32_t why);
const char *core_port_kind(core_port *port);
void core_port_stats(core_port *port, core_port_counts *counts);
/* (control) -EBUSY: one of them is joined already. */
int core_port_join(core_port *a, core_port *b);
void core_port_part(core_port *port);
core_port *core_port_peer(core_port *port);
/* (control) Whether this end is up; frames pass while both are. */
void core_port_set_up(core_port *port, int up);
int core_port_is_up(core_port *port);
int core_port_carrier(core_port *port); /* whether the other end is there and up */
uint32_t core_port_takes(core_port *port);
/* (control) The port's work is done in this io context from now on. */
int core_port_drive(core_port *port, core_io *io);
void core_port_free(core_port *port);
/* port_box.c: a port whose owner is a program: frames wait in a bounded box with an eventfd, and are sent by call. */
core_port *core_box_new(uint32_t frames, uint32_t takes, int waits);
int core_box_fd(core_port *box);
int core_box_take(core_port *box, uint8_t *header, uint8_t *frame, uint32_t room);
int core_box_send(core_port *box, const uint8_t *header, const uint8_t *frame, uint32_t size);
uint32_t core_box_waiting(core_port *box);

/* ---- user networking: libslirp, where it is there ---- */
typedef struct {
    int restricted, ipv4, ipv6;
    uint8_t net[4], mask[4], host[4], dhcp[4], dns[4];
    uint8_t prefix6[16], host6[16], dns6[16];
    uint8_t prefix6_len;
    const char *hostname, *tftp_server_name, *tftp, *bootfile, *domainname; /* or NULL */
    const char **dnssearch;                                                 /* ends with NULL; or NULL */
} core_slirp_options;
/* 0 and the library's version, -ELIBACC it is not there, -ELIBBAD its version is another. */
int core_slirp_check(char *version, int room);
core_port *core_slirp_new(const core_slirp_options *options, core_io *io, int *error);
int core_slirp_hostfwd(core_port *port, int udp, const uint8_t *host, uint32_t host_size, const uint8_t *guest,
                       uint32_t guest_size);
int core_slirp_hostfwd_remove(core_port *port, int udp, const uint8_t *host, uint32_t host_size);
int core_slirp_guestfwd(core_port *port, int kind, const char *target, const uint8_t *address, int number);
int core_slirp_info(core_port *port, char *text, int room);
int core_slirp_sockets(core_port *port);
void core_slirp_hold(core_port *port, int on);
/* netsock.c: a port whose other side is a socket */
core_port *core_netsock_new(core_io *io);
int core_netsock_news_fd(core_port *port); /* readable: the connection has ended, detach it */
/* Carry frames over (fd), which stays the caller's and open until detached; (to): where unconnected datagrams go. */
int core_netsock_attach(core_port *port, int fd, int stream, const uint8_t *to, uint32_t to_size);
int core_netsock_detach(core_port *port); /* why it had ended: -errno, or 0 */
int core_netsock_ended(core_port *port);
/* dump.c: what passes a port (directions: 1 what it sends, 2 what it is given), as pcap into (fd), which stays open. */
typedef struct core_dump core_dump;
core_dump *core_dump_new(core_port *port, int fd, uint32_t snap, int directions, int *error);
void core_dump_set(core_dump *d, int on);
int core_dump_counts(core_dump *d, uint64_t *frames, uint64_t *lost); /* 0, or why the file ended early */
int core_dump_free(core_dump *d, int port_is_there);                  /* waits until all is written: 0 or -errno */
