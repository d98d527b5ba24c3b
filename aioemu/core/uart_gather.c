/* uart_gather.c: a guest that polls LSR before each byte it sends leaves the guest twice a byte. Where the accelerator can
 * gather writes, the bytes themselves need not: they arrive with the next poll. On only while the guest really polls,
 * off as soon as it wants the transmitter interrupt, falls silent, or the host is so late that a write might wait. */
#include "uart.h"

enum {
    POLLED_MIN = 32, /* bytes in a row, each after a poll: a line of text */
};

/* Decide after each access of the guest; the caller holds u->lock. */
void core_uart_gather_watch(struct uart *u, uint32_t offset, bool is_write) {
    u->gather_active = true;
    if (offset == LSR && !is_write) {
        u->polled_now = true;
    } else if (offset == RBR_THR && is_write && !(u->lcr & LCR_DLAB)) {
        u->polled = u->polled_now ? u->polled + 1 : 0;
        u->polled_now = false;
    }
    uint32_t bound = u->gathering ? u->to_host.size / 4 * 3 : u->to_host.size / 2;
    u->gather_wanted = u->gather_port && u->polled >= POLLED_MIN && !(u->ier & IER_TX) && !(u->mcr & MCR_LOOP) &&
                       u->to_host.count < bound;
}

/* Bring the accelerator in line with what is wanted. Without u->lock: it may take a while. */
void core_uart_gather_apply(struct uart *u) {
    const struct core_machine *m = u->chip.machine;
    if (!m || !m->accel || !m->accel->gather) {
        return;
    }
    pthread_mutex_lock(&u->gather_lock);
    bool wanted = u->gather_wanted;
    if (wanted != u->gathering) {
        int rc = m->accel->gather(u->chip.machine, CORE_PIO, u->gather_port, 1, wanted);
        if (rc == 0) {
            u->gathering = wanted;
            core_chip_notify(&u->chip); /* the host's timer starts, or makes its last round */
        } else {
            u->gather_port = 0; /* this host cannot: never ask again */
        }
    }
    pthread_mutex_unlock(&u->gather_lock);
}

/* Allow gathering of what is written to the data register at `port`; 0 = never. Before the guest runs. */
void core_uart_gather_at(core_chip *uart, uint32_t port) {
    ((struct uart *)uart)->gather_port = port;
}

int core_uart_gathering(core_chip *uart) {
    struct uart *u = (struct uart *)uart;
    return u->gathering;
}

/* The host's timer: deliver what was gathered, and stop gathering when the guest has been silent since the last call. */
void core_uart_gather_tick(core_chip *uart) {
    struct uart *u = (struct uart *)uart;
    if (uart->machine && uart->machine->accel && uart->machine->accel->gather_flush) {
        uart->machine->accel->gather_flush(uart->machine);
    }
    pthread_mutex_lock(&u->lock);
    if (!u->gather_active) {
        u->polled = 0;
        u->gather_wanted = false;
    }
    u->gather_active = false;
    pthread_mutex_unlock(&u->lock);
    core_uart_gather_apply(u);
}
