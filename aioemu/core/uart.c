/* uart.c: 16550A serial port (National PC16550D data sheet, sections in comments). Wholly served on the vCPU thread:
 * Python sees bytes, not registers. Not modelled: baud rate, parity, the time a character takes; so a character timeout
 * is due at once, and OUT2 does not gate the interrupt (boards that gate do it outside the chip). The guest is not
 * trusted; the host may read late: bytes wait in a ring, then in the transmitter, then the vCPU waits. None is lost. */
#include <string.h>

#include "uart.h"

static bool fifo_mode(const struct uart *u) {
    return u->fcr & FCR_ENABLE;
}

static uint32_t rx_room(const struct uart *u) {
    return (fifo_mode(u) ? FIFO : 1u) - u->rx_count;
}

static uint32_t trigger(const struct uart *u) {
    static const uint8_t levels[] = {1, 4, 8, 14};
    return fifo_mode(u) ? levels[u->fcr >> 6] : 1;
}

static uint8_t line_status(const struct uart *u) {
    uint8_t lsr = u->overrun;
    if (u->rx_count) {
        lsr |= LSR_DR | u->rx_error[0];
    }
    for (uint32_t i = 0; fifo_mode(u) && i < u->rx_count; i++) {
        lsr |= u->rx_error[i] ? LSR_FIFO_ERROR : 0;
    }
    return u->tx_count ? lsr : lsr | LSR_THRE | LSR_TEMT;
}

/* The modem lines as the guest sees them; in loopback its own outputs (8.8: DTR, RTS, OUT1, OUT2). */
uint8_t core_uart_modem_lines(const struct uart *u) {
    if (!(u->mcr & MCR_LOOP)) {
        return u->modem;
    }
    return (uint8_t)((u->mcr & 0x01) << 5 | (u->mcr & 0x02) << 3 | (u->mcr & 0x04) << 4 | (u->mcr & 0x08) << 4);
}

/* 8.6: the pending interrupt of the highest priority. */
static uint8_t pending(const struct uart *u) {
    if ((u->ier & IER_LINE) && (u->overrun || (u->rx_count && u->rx_error[0]))) {
        return IIR_LINE;
    }
    if ((u->ier & IER_RX) && u->rx_count) {
        return u->rx_count >= trigger(u) ? IIR_RX : IIR_TIMEOUT;
    }
    if ((u->ier & IER_TX) && u->tx_empty_news) {
        return IIR_TX;
    }
    return (u->ier & IER_MODEM) && u->msr_delta ? IIR_MODEM : IIR_NONE;
}

void core_uart_drive(struct uart *u) {
    core_chip_line(&u->chip, pending(u) != IIR_NONE);
}

void core_uart_receive(struct uart *u, uint8_t byte, uint8_t error) {
    if (rx_room(u)) {
        u->rx_error[u->rx_count] = error;
        u->rx[u->rx_count++] = byte;
        return;
    }
    u->overrun = LSR_OE; /* 8.4: with FIFOs the new character is lost, without the old one */
    if (!fifo_mode(u)) {
        u->rx[0] = byte;
        u->rx_error[0] = error;
    }
}

void core_uart_refill(struct uart *u) {
    uint8_t byte;
    while (!(u->mcr & MCR_LOOP) && rx_room(u) && core_uart_ring_take(&u->to_guest, &byte, 1)) {
        core_uart_receive(u, byte, 0);
    }
    if (u->host_waits && u->to_guest.count <= u->to_guest.size / 2) {
        u->host_waits = false;
        core_chip_notify(&u->chip);
    }
}

/* Move what the transmitter holds towards the host; an emptied transmitter is news for the guest. */
void core_uart_transmit(struct uart *u) {
    bool was_empty = u->to_host.count == 0;
    uint32_t moved = core_uart_ring_put(&u->to_host, u->tx, u->tx_count);
    if (moved) {
        u->tx_count -= (uint8_t)moved;
        memmove(u->tx, u->tx + moved, u->tx_count);
        u->tx_empty_news |= u->tx_count == 0;
        if (was_empty) {
            core_chip_notify(&u->chip);
        }
    }
}

static uint8_t read_data(struct uart *u) {
    uint8_t byte = u->rx[0];
    if (u->rx_count) {
        u->rx_count--;
        memmove(u->rx, u->rx + 1, u->rx_count);
        memmove(u->rx_error, u->rx_error + 1, u->rx_count);
    }
    core_uart_refill(u);
    return byte;
}

static uint8_t read_line_status(struct uart *u) {
    uint8_t lsr = line_status(u);
    u->overrun = 0;
    u->rx_error[0] = 0; /* 8.4: reading resets the error bits, of the character at the top */
    return lsr;
}

static uint8_t read_modem_status(struct uart *u) {
    uint8_t msr = core_uart_modem_lines(u) | u->msr_delta;
    u->msr_delta = 0;
    return msr;
}

static uint8_t read_identification(struct uart *u) {
    uint8_t id = pending(u);
    if (id == IIR_TX) {
        u->tx_empty_news = false; /* 8.6 table 5: reading IIR resets it, if it is the source */
    }
    return fifo_mode(u) ? id | 0xc0 : id;
}

static uint8_t read_register(struct uart *u, uint32_t offset) {
    bool dlab = u->lcr & LCR_DLAB;
    switch (offset) {
    case RBR_THR: return dlab ? u->dll : read_data(u);
    case IER: return dlab ? u->dlm : u->ier;
    case IIR_FCR: return read_identification(u);
    case LCR: return u->lcr;
    case MCR: return u->mcr;
    case LSR: return read_line_status(u);
    case MSR: return read_modem_status(u);
    default: return u->scr;
    }
}

/* False: the transmitter is full; whoever wrote must wait. */
bool core_uart_write_data(struct uart *u, uint8_t byte) {
    if (u->mcr & MCR_LOOP) {
        core_uart_receive(u, byte, 0);
        u->tx_empty_news = u->tx_count == 0;
        return true;
    }
    if (u->tx_count == FIFO) {
        return false;
    }
    u->tx_empty_news = false;
    u->tx[u->tx_count++] = byte;
    core_uart_transmit(u);
    return true;
}

static void write_interrupt_enable(struct uart *u, uint8_t value) {
    if (value & ~u->ier & IER_TX) {
        u->tx_empty_news = u->tx_count == 0; /* enabling with an empty transmitter interrupts at once */
    }
    u->ier = value & IER_MASK;
}

static void write_fifo_control(struct uart *u, uint8_t value) {
    bool toggled = (value ^ u->fcr) & FCR_ENABLE;
    if (toggled || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX))) {
        u->rx_count = 0;
    }
    /* 8.5: the other bits count only with bit 0. Bytes in the transmitter count as sent: time does not exist here. */
    u->fcr = value & FCR_ENABLE ? value & FCR_MASK & ~0x08 : 0;
    core_uart_refill(u);
}

/* 8.9: a changed line is news; RI only when it falls. */
void core_uart_modem_changed(struct uart *u, uint8_t before) {
    uint8_t after = core_uart_modem_lines(u);
    uint8_t changed = (before ^ after) >> 4;
    uint8_t teri = MSR_RI >> 4;
    u->msr_delta |= (changed & ~teri) | (changed & teri & (before >> 4));
}

static void write_modem_control(struct uart *u, uint8_t value) {
    uint8_t before = core_uart_modem_lines(u), lines = u->mcr;
    u->mcr = value & MCR_MASK;
    core_uart_modem_changed(u, before);
    core_uart_refill(u);
    if (lines != u->mcr) {
        core_chip_notify(&u->chip);
    }
}

static void write_line_control(struct uart *u, uint8_t value) {
    if ((value ^ u->lcr) & LCR_BREAK) {
        core_chip_notify(&u->chip);
    }
    u->lcr = value;
}

static bool write_register(struct uart *u, uint32_t offset, uint8_t value) {
    bool dlab = u->lcr & LCR_DLAB;
    switch (offset) {
    case RBR_THR:
        if (!dlab) {
            return core_uart_write_data(u, value);
        }
        u->dll = value;
        break;
    case IER:
        if (!dlab) {
            write_interrupt_enable(u, value);
        } else {
            u->dlm = value;
        }
        break;
    case IIR_FCR: write_fifo_control(u, value); break;
    case LCR: write_line_control(u, value); break;
    case MCR: write_modem_control(u, value); break;
    case SCR: u->scr = value; break;
    default: break; /* LSR and MSR are written in the factory only */
    }
    return true;
}

static int uart_access(struct core_chip *chip, struct core_part *part) {
    struct uart *u = (struct uart *)chip;
    int rc = CORE_DONE;
    part->size = 1;
    pthread_mutex_lock(&u->lock);
    if (!part->is_write) {
        part->value = read_register(u, part->offset & 7);
    } else if (!write_register(u, part->offset & 7, (uint8_t)part->value)) {
        part->value &= 0xff;
        part->reg = RBR_THR;
        rc = CORE_HANDOVER;
    }
    core_uart_drive(u);
    core_uart_gather_watch(u, part->offset & 7, part->is_write);
    bool change = u->gather_wanted != u->gathering;
    pthread_mutex_unlock(&u->lock);
    if (change) {
        core_uart_gather_apply(u);
    }
    return rc;
}

void core_uart_reset(struct core_chip *chip) {
    struct uart *u = (struct uart *)chip;
    pthread_mutex_lock(&u->lock);
    u->ier = u->lcr = u->mcr = u->scr = u->fcr = u->overrun = u->msr_delta = u->dlm = 0;
    u->dll = 12; /* 9600 baud; the sheet leaves it open */
    u->rx_count = 0;
    core_uart_transmit(u);
    u->tx_empty_news = false; /* what was sent before the reset still arrives */
    core_uart_refill(u);
    core_uart_drive(u);
    pthread_mutex_unlock(&u->lock);
}

const struct core_chip_ops core_uart_ops = {
    .name = "uart",
    .access = uart_access,
    .reset = core_uart_reset,
    .destroy = core_uart_destroy,
    .state_size = core_uart_state_size,
    .save = core_uart_save,
    .load = core_uart_load,
};
