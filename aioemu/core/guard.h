/* guard.h: copying from and to memory that may be taken away meanwhile: the mapping of a file that somebody cuts off, or
 * of one whose pages the host cannot provide (SIGBUS). A signal's handler belongs to the whole process: guard.c takes it
 * once, and passes on what is not its own. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Whether copies of this thread are guarded: not where the program blocks SIGBUS, or took it for itself after us. */
bool guard_works(void);
/* False: not all of it was there; how much was copied is not known. */
bool guard_copy(void *to, const void *from, size_t size);
