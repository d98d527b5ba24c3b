/* uart_host.c: the host's side of the serial port: bytes in and out, modem lines, saved state. Any thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "uart.h"

enum {
    TX_RING = 64 * 1024, /* bytes the host may be behind: a kernel's whole boot log */
    RX_RING = 4 * 1024,  /* bytes the guest may be behind: a pasted page */
    STATE_VERSION = 1,
};

/* ---- rings --------------------------------------------------------------------------------------------------------- */

uint32_t core_uart_ring_put(struct ring *r, const uint8_t *data, uint32_t len) {
    uint32_t n = len < r->size - r->count ? len : r->size - r->count;
    uint32_t at = (r->head + r->count) % r->size;
    uint32_t first = n < r->size - at ? n : r->size - at;
    memcpy(r->bytes + at, data, first);
    memcpy(r->bytes, data + first, n - first);
    r->count += n;
    return n;
}

uint32_t core_uart_ring_peek(const struct ring *r, uint8_t *data, uint32_t max) {
    uint32_t n = max < r->count ? max : r->count;
    uint32_t first = n < r->size - r->head ? n : r->size - r->head;
    memcpy(data, r->bytes + r->head, first);
    memcpy(data + first, r->bytes, n - first);
    return n;
}

uint32_t core_uart_ring_take(struct ring *r, uint8_t *data, uint32_t max) {
    uint32_t n = core_uart_ring_peek(r, data, max);
    r->head = (r->head + n) % r->size;
    r->count -= n;
    return n;
}

void core_uart_destroy(struct core_chip *chip) {
    struct uart *u = (struct uart *)chip;
    pthread_mutex_destroy(&u->lock);
    pthread_mutex_destroy(&u->gather_lock);
    free(u->to_host.bytes);
    free(u->to_guest.bytes);
    free(u);
}

/* ---- saved state: registers and FIFOs; the rings are the host's side (core_uart_peek, core_uart_restore) ------------- */

struct uart_state {
    uint8_t version, ier, lcr, mcr, scr, fcr, dll, dlm, overrun, msr_delta, modem, tx_empty_news, rx_count, tx_count;
    uint8_t rx[FIFO], rx_error[FIFO], tx[FIFO];
};

int core_uart_state_size(struct core_chip *chip) {
    (void)chip;
    return sizeof(struct uart_state);
}

int core_uart_save(struct core_chip *chip, uint8_t *state) {
    struct uart *u = (struct uart *)chip;
    pthread_mutex_lock(&u->lock);
    struct uart_state s = {.version = STATE_VERSION,
                           .ier = u->ier,
                           .lcr = u->lcr,
                           .mcr = u->mcr,
                           .scr = u->scr,
                           .fcr = u->fcr,
                           .dll = u->dll,
                           .dlm = u->dlm,
                           .overrun = u->overrun,
                           .msr_delta = u->msr_delta,
                           .modem = u->modem,
                           .tx_empty_news = u->tx_empty_news,
                           .rx_count = u->rx_count,
                           .tx_count = u->tx_count};
    memcpy(s.rx, u->rx, u->rx_count);
    memcpy(s.rx_error, u->rx_error, u->rx_count);
    memcpy(s.tx, u->tx, u->tx_count);
    pthread_mutex_unlock(&u->lock);
    memcpy(state, &s, sizeof s);
    return 0;
}

static bool state_is_possible(const struct uart_state *s) {
    uint8_t errors = 0;
    for (uint32_t i = 0; i < FIFO; i++) {
        errors |= s->rx_error[i];
    }
    return s->version == STATE_VERSION && !(s->ier & ~IER_MASK) && !(s->mcr & ~MCR_MASK) && !(s->fcr & ~0xc1) &&
           (s->fcr & FCR_ENABLE || !s->fcr) && !(s->overrun & ~LSR_OE) && !(s->msr_delta & ~MSR_DELTA) &&
           !(s->modem & ~MSR_LINES) && s->tx_empty_news <= 1 && s->tx_count <= FIFO &&
           s->rx_count <= (s->fcr & FCR_ENABLE ? FIFO : 1) && !(errors & ~(LSR_FE | LSR_BI)) &&
           !(s->tx_count && s->tx_empty_news);
}

int core_uart_load(struct core_chip *chip, const uint8_t *state) {
    struct uart *u = (struct uart *)chip;
    struct uart_state s;
    memcpy(&s, state, sizeof s);
    if (!state_is_possible(&s)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&u->lock);
    u->ier = s.ier, u->lcr = s.lcr, u->mcr = s.mcr, u->scr = s.scr, u->fcr = s.fcr, u->dll = s.dll, u->dlm = s.dlm;
    u->overrun = s.overrun, u->msr_delta = s.msr_delta, u->modem = s.modem, u->tx_empty_news = s.tx_empty_news;
    u->rx_count = s.rx_count, u->tx_count = s.tx_count;
    memcpy(u->rx, s.rx, FIFO);
    memcpy(u->rx_error, s.rx_error, FIFO);
    memcpy(u->tx, s.tx, FIFO);
    core_uart_drive(u);
    pthread_mutex_unlock(&u->lock);
    return 0;
}

/* ---- the host's side ------------------------------------------------------------------------------------------------ */

core_chip *core_uart_new(void) {
    struct uart *u = calloc(1, sizeof *u);
    if (!u) {
        return NULL;
    }
    core_chip_init(&u->chip, &core_uart_ops);
    pthread_mutex_init(&u->lock, NULL);
    pthread_mutex_init(&u->gather_lock, NULL);
    u->to_host = (struct ring){.bytes = malloc(TX_RING), .size = TX_RING};
    u->to_guest = (struct ring){.bytes = malloc(RX_RING), .size = RX_RING};
    if (!u->to_host.bytes || !u->to_guest.bytes) {
        core_uart_destroy(&u->chip);
        return NULL;
    }
    u->modem = MSR_LINES & ~MSR_RI; /* a peer is there: CTS, DSR, DCD */
    core_uart_reset(&u->chip);
    return &u->chip;
}

/* Take up to `max` bytes that the guest sent, in order. How many; a notification follows if some are left. */
int core_uart_take(core_chip *uart, uint8_t *data, int max) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    uint32_t n = core_uart_ring_take(&u->to_host, data, max > 0 ? (uint32_t)max : 0);
    if (u->tx_count) {
        core_uart_transmit(u);
        core_uart_drive(u);
    }
    if (u->to_host.count) {
        core_chip_notify(&u->chip);
    }
    pthread_mutex_unlock(&u->lock);
    return (int)n;
}

/* Send bytes to the guest. How many were accepted; if not all, a notification follows when there is room again. */
int core_uart_feed(core_chip *uart, const uint8_t *data, int len) {
    struct uart *u = (struct uart *)uart;
    if (len <= 0) {
        return 0;
    }
    pthread_mutex_lock(&u->lock);
    uint32_t n = core_uart_ring_put(&u->to_guest, data, (uint32_t)len);
    core_uart_refill(u);
    n += core_uart_ring_put(&u->to_guest, data + n, (uint32_t)len - n);
    u->host_waits = n < (uint32_t)len;
    core_uart_drive(u);
    pthread_mutex_unlock(&u->lock);
    return (int)n;
}

/* Bytes that core_uart_feed would accept now; after 0 a notification follows when there is room again. */
int core_uart_space(core_chip *uart) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    uint32_t n = u->to_guest.size - u->to_guest.count;
    u->host_waits |= n == 0;
    pthread_mutex_unlock(&u->lock);
    return (int)n;
}

/* Bytes that core_uart_take would give now. */
int core_uart_pending(core_chip *uart) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    uint32_t n = u->to_host.count;
    pthread_mutex_unlock(&u->lock);
    return (int)n;
}

/* A byte that the guest wrote into a full transmitter and still waits with. 0, or -EAGAIN while it is full. */
int core_uart_push(core_chip *uart, uint8_t byte) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    bool done = core_uart_write_data(u, byte);
    core_uart_drive(u);
    pthread_mutex_unlock(&u->lock);
    return done ? 0 : -EAGAIN;
}

/* The peer holds the line low for longer than a character: a zero with BI and FE. */
void core_uart_break(core_chip *uart) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    if (!(u->mcr & MCR_LOOP)) {
        core_uart_receive(u, 0, LSR_BI | LSR_FE);
    }
    core_uart_drive(u);
    pthread_mutex_unlock(&u->lock);
}

/* The peer drives CTS, DSR, RI, DCD: bits 4..7 as in MSR. */
void core_uart_modem(core_chip *uart, uint8_t lines) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    uint8_t before = core_uart_modem_lines(u);
    u->modem = lines & MSR_LINES;
    core_uart_modem_changed(u, before);
    core_uart_drive(u);
    pthread_mutex_unlock(&u->lock);
}

/* What the guest drives: DTR, RTS, OUT1, OUT2 in bits 0..3, none of them in loopback (8.8), and break in bit 6. */
uint8_t core_uart_lines(core_chip *uart) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    uint8_t lines = (u->mcr & MCR_LOOP ? 0 : u->mcr & 0x0f) | (u->lcr & LCR_BREAK);
    pthread_mutex_unlock(&u->lock);
    return lines;
}

/* A copy of what waits in a ring: towards the guest (`received`) or the host. For saving. How many bytes. */
int core_uart_peek(core_chip *uart, int received, uint8_t *data, int max) {
    struct uart *u = (struct uart *)uart;
    pthread_mutex_lock(&u->lock);
    uint32_t n = core_uart_ring_peek(received ? &u->to_guest : &u->to_host, data, max > 0 ? (uint32_t)max : 0);
    pthread_mutex_unlock(&u->lock);
    return (int)n;
}

/* Replace what waits in a ring. 0, or -EINVAL when it is too much. */
int core_uart_restore(core_chip *uart, int received, const uint8_t *data, int len) {
    struct uart *u = (struct uart *)uart;
    struct ring *r = received ? &u->to_guest : &u->to_host;
    if (len < 0 || (uint32_t)len > r->size) {
        return -EINVAL;
    }
    pthread_mutex_lock(&u->lock);
    r->head = r->count = 0;
    core_uart_ring_put(r, data, (uint32_t)len);
    if (!received && len) {
        core_chip_notify(&u->chip);
    }
    pthread_mutex_unlock(&u->lock);
    return 0;
}
