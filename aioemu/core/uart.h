/* uart.h: the 16550A's insides, shared by its two sides: uart.c (the guest's) and uart_host.c (the host's). */
#pragma once

#include "core.h"

enum {
    FIFO = 16, /* 8.5: both FIFOs of the chip */
};

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };                       /* table 2 */
enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8, IER_MASK = 0x0f }; /* 8.7 */
enum { IIR_MODEM = 0x0, IIR_NONE = 0x1, IIR_TX = 0x2, IIR_RX = 0x4, IIR_LINE = 0x6, IIR_TIMEOUT = 0xc };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_MASK = 0xc9 }; /* 8.5 */
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };                 /* 8.1 */
enum { MCR_LOOP = 0x10, MCR_MASK = 0x1f };                  /* 8.8 */
enum { LSR_DR = 1, LSR_OE = 2, LSR_FE = 8, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_FIFO_ERROR = 0x80 };
enum { MSR_RI = 0x40, MSR_DELTA = 0x0f, MSR_LINES = 0xf0 }; /* 8.9 */

struct ring {
    uint8_t *bytes;
    uint32_t size, head, count;
};

struct uart {
    struct core_chip chip;
    pthread_mutex_t lock;
    uint8_t ier, lcr, mcr, scr, fcr, dll, dlm;
    uint8_t overrun;    /* LSR_OE until LSR is read */
    uint8_t msr_delta;  /* until MSR is read */
    uint8_t modem;      /* MSR_LINES as the peer drives them */
    bool tx_empty_news; /* the transmitter interrupt: 8.6 */
    uint8_t rx[FIFO], rx_error[FIFO], rx_count;
    uint8_t tx[FIFO], tx_count;
    struct ring to_host, to_guest;
    bool host_waits; /* a feed was cut short: tell when there is room */
    /* uart_gather.c */
    pthread_mutex_t gather_lock;
    uint32_t gather_port, polled;
    bool polled_now, gather_active;
    _Atomic bool gather_wanted, gathering;
};

/* The caller holds u->lock for all of these. */
bool core_uart_write_data(struct uart *u, uint8_t byte); /* false: the transmitter is full */
void core_uart_receive(struct uart *u, uint8_t byte, uint8_t error);
void core_uart_refill(struct uart *u);
void core_uart_transmit(struct uart *u);
void core_uart_drive(struct uart *u);
uint8_t core_uart_modem_lines(const struct uart *u);
void core_uart_modem_changed(struct uart *u, uint8_t before);

void core_uart_gather_watch(struct uart *u, uint32_t offset, bool is_write);
void core_uart_gather_apply(struct uart *u); /* without u->lock */

uint32_t core_uart_ring_put(struct ring *r, const uint8_t *data, uint32_t len);
uint32_t core_uart_ring_peek(const struct ring *r, uint8_t *data, uint32_t max);
uint32_t core_uart_ring_take(struct ring *r, uint8_t *data, uint32_t max);

int core_uart_state_size(struct core_chip *chip);
int core_uart_save(struct core_chip *chip, uint8_t *state);
int core_uart_load(struct core_chip *chip, const uint8_t *state);
void core_uart_reset(struct core_chip *chip);
void core_uart_destroy(struct core_chip *chip);
extern const struct core_chip_ops core_uart_ops;
