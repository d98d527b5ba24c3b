/* catch.c: an abort() or failed assertion inside the emulator ends the engine's operation, not the process.
 *
 * The emulator is built with abort and __assert_fail renamed to functions here, which unwind to the operation (run,
 * create, ...) this thread is in; and with fprintf renamed to one that prints nothing, since a guest can cause it. An
 * abort while translating is an instruction the emulator decodes but does not know: the guest gets the exception for an
 * undefined one (core.c). After any other the operation declares the engine dead: its data may be half changed. Not
 * caught: signals. A thread that is in no operation aborts as usual.
 */
#include "aioemu/priv.h"

#include <stddef.h>
#include <stdio.h>

/* The renaming is for the others. */
#undef abort
extern void abort(void) __attribute__((noreturn));
void aioemu_abort(void) __attribute__((noreturn));
void aioemu_assert_fail(const char *what, const char *file, unsigned line, const char *function)
    __attribute__((noreturn));
int aioemu_fprintf(FILE *stream, const char *format, ...);

/* Per thread because abort() has no argument to carry it. */
static _Thread_local struct aioemu_catch *innermost;

void aioemu_catch_push(struct aioemu_catch *frame) {
    frame->what = "abort";
    frame->outer = innermost;
    innermost = frame;
}

void aioemu_catch_pop(struct aioemu_catch *frame) {
    innermost = frame->outer;
}

void aioemu_abort(void) {
    if (!innermost) {
        abort();
    }
    siglongjmp(innermost->env, 1);
}

void aioemu_assert_fail(const char *what, const char *file, unsigned line, const char *function) {
    (void)file;
    (void)line;
    (void)function;
    if (innermost) {
        innermost->what = what;
    }
    aioemu_abort();
}

int aioemu_fprintf(FILE *stream, const char *format, ...) {
    (void)stream;
    (void)format;
    return 0;
}
