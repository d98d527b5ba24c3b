/* args.c: the kernel command line as `test key=value ...`; numbers are decimal or 0x hexadecimal. */
#include "guest.h"

#define COMMAND_LINE_MAX 2048 /* as in the Linux boot protocol on x86 */

static char command_line[COMMAND_LINE_MAX];

/* Keep a copy: the original lies where the loader put it, perhaps under AP_TRAMPOLINE. */
void args_init(const char *cmdline) {
    uint32_t i = 0;

    for (; cmdline && cmdline[i] && i < COMMAND_LINE_MAX - 1; i++)
        command_line[i] = cmdline[i];
    command_line[i] = 0;
}

const char *arg_command_line(void) {
    return command_line;
}

bool same(const char *a, uint32_t len, const char *b) {
    uint32_t i = 0;

    for (; i < len; i++)
        if (!b[i] || a[i] != b[i])
            return false;
    return !b[i];
}

const char *arg_word(uint32_t n, uint32_t *len) {
    const char *p = command_line;

    for (;;) {
        while (*p == ' ')
            p++;
        if (!*p)
            return NULL;
        for (*len = 0; p[*len] && p[*len] != ' ';)
            (*len)++;
        if (n-- == 0)
            return p;
        p += *len;
    }
}

/* The text behind `key=`, or NULL. The last one given counts. */
static const char *value_of(const char *key, uint32_t *len) {
    const char *found = NULL, *word;
    uint32_t word_len, found_len = 0;

    for (uint32_t n = 1; (word = arg_word(n, &word_len)); n++)
        for (uint32_t i = 0; i < word_len; i++)
            if (word[i] == '=' && same(word, i, key)) {
                found = word + i + 1;
                found_len = word_len - i - 1;
                break;
            }
    *len = found_len;
    return found;
}

bool arg_is(const char *key, const char *value) {
    uint32_t len;
    const char *text = value_of(key, &len);

    return text && same(text, len, value);
}

const char *parse_number(const char *text, uint64_t *value) {
    uint32_t base = 10;
    const char *start;

    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    *value = 0;
    for (start = text;; text++) {
        uint32_t digit;

        if (*text >= '0' && *text <= '9')
            digit = (uint32_t)(*text - '0');
        else if (*text >= 'a' && *text <= 'f')
            digit = (uint32_t)(*text - 'a') + 10;
        else
            break;
        if (digit >= base)
            break;
        *value = *value * base + digit;
    }
    return text == start ? NULL : text;
}

uint64_t arg(const char *key, uint64_t otherwise) {
    uint32_t len;
    uint64_t value;
    const char *text = value_of(key, &len);

    return text && parse_number(text, &value) ? value : otherwise;
}
