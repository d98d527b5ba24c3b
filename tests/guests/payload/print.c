/* print.c: formatted lines to the UART at 0x3f8 (PC16550D), whole lines at a time, one CPU at a time. */
#include "guest.h"

#define UART     0x3f8
#define LSR      (UART + 5)
#define LSR_THRE 0x20

static volatile uint32_t lock;

/* Write bytes to the UART; waits for room in its transmitter as long as it takes. A missing UART reads 0xff: ready. */
void k_puts(const char *text, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        uint8_t status;

        do
            __asm__ volatile("inb %w1, %0" : "=a"(status) : "d"(LSR));
        while (!(status & LSR_THRE));
        __asm__ volatile("outb %0, %w1" : : "a"(text[i]), "d"(UART));
    }
}

static uint64_t k_write(uint64_t text, uint64_t len, uint64_t unused) {
    (void)unused;
    k_puts((const char *)text, (uint32_t)len);
    return 0;
}

void print_flush(void) {
    struct cpu *cpu = this_cpu();

    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        pause();
    (void)at_cpl0(k_write, (uint64_t)cpu->line, cpu->line_len, 0);
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    cpu->line_len = 0;
}

static void put(char c) {
    struct cpu *cpu = this_cpu();

    if (cpu->line_len + 2 > sizeof(cpu->line))
        print_flush();
    cpu->line[cpu->line_len++] = c;
    if (c == '\n')
        print_flush();
}

static void put_number(uint64_t value, uint32_t base, uint32_t width) {
    char digits[20];
    uint32_t n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (width > n) {
        put('0');
        width--;
    }
    while (n)
        put(digits[--n]);
}

/* %s %c %d %u %x %lu %lx %%, with a width that pads with zeros. Nothing else. */
static void vprint(const char *format, va_list ap) {
    for (; *format; format++) {
        uint32_t width = 0;
        bool is_long = false;

        if (*format != '%') {
            put(*format);
            continue;
        }
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (uint32_t)(*format - '0');
        if (*format == 'l') {
            is_long = true;
            format++;
        }
        switch (*format) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
            break;
        case 'c': put((char)va_arg(ap, int)); break;
        case 'd': {
            int64_t v = is_long ? va_arg(ap, int64_t) : va_arg(ap, int);

            if (v < 0)
                put('-');
            put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, width);
            break;
        }
        case 'u':
        case 'x': {
            uint64_t v = is_long ? va_arg(ap, uint64_t) : va_arg(ap, unsigned int);

            put_number(v, *format == 'x' ? 16 : 10, width);
            break;
        }
        default: put(*format);
        }
    }
}

void print(const char *format, ...) {
    va_list ap;

    va_start(ap, format);
    vprint(format, ap);
    va_end(ap);
}

/* Say why a test failed; returns 1, for `return fail(...)`. */
int fail(const char *format, ...) {
    va_list ap;

    va_start(ap, format);
    print("payload: reason: ");
    vprint(format, ap);
    print("\n");
    va_end(ap);
    return 1;
}
