/* Errors: one sentence a user can act on, and an errno-like code.
 *
 * A function that can fail returns 0 or a negative errno and fills the caller's `struct err` with
 * what was found, what was expected, and where. Nothing in a library prints, exits or aborts on
 * input. */
#ifndef OMNIFS_BASE_ERR_H
#define OMNIFS_BASE_ERR_H

#include <stdarg.h>

#if defined(__GNUC__)
#define ERR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define ERR_PRINTF(f, a)
#endif

struct err {
    int code;       /* 0, or a negative errno (-EINVAL, -ENOENT, -ENOMEM, -ECANCELED …) */
    char text[480]; /* one sentence, no trailing newline, always NUL-terminated */
};

/* Fills `e` (may be NULL) and returns `code`, which must be negative:
 *     return err_set(e, -EINVAL, "%s: width %d is over %d", where, w, max);
 * Control characters of hostile text in the result are replaced by '?'. */
int err_set(struct err *e, int code, const char *fmt, ...) ERR_PRINTF(3, 4);
int err_setv(struct err *e, int code, const char *fmt, va_list ap) ERR_PRINTF(3, 0);

/* Puts "prefix: " before the sentence already in `e`; returns e->code. For callers that know
 * where (a file, a line) when the callee knew only what. */
int err_prefix(struct err *e, const char *fmt, ...) ERR_PRINTF(2, 3);

/* "not enough memory" with -ENOMEM. */
int err_nomem(struct err *e);

#endif
