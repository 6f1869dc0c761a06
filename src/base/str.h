/* Strings: a growing byte buffer with a sticky out-of-memory flag, and strict number parsing. */
#ifndef OMNIFS_BASE_STR_H
#define OMNIFS_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Zero-initialise: `struct str s = {0};`. `data` is always NUL-terminated once something was added;
 * use str_cstr() where an empty buffer must still be a string. After an allocation failure `failed`
 * is set and further calls do nothing: check once at the end. */
struct str {
    char *data;
    size_t len, cap;
    bool failed;
};

void str_add(struct str *s, const char *text);
void str_addn(struct str *s, const void *bytes, size_t n);
void str_addc(struct str *s, char c);
void str_addf(struct str *s, const char *fmt, ...) ERR_PRINTF(2, 3);
const char *str_cstr(const struct str *s); /* never NULL */
char *str_take(struct str *s); /* the heap string (caller frees), NULL if failed; s is emptied */
void str_free(struct str *s);
#define AUTO_STR __attribute__((cleanup(str_free)))

/* Whole-string decimal numbers, no blanks, no trailing text. 0, or -EINVAL (not a number) or
 * -ERANGE. */
int parse_i64(const char *text, int64_t *out);
int parse_u64(const char *text, uint64_t *out);
int parse_f64(const char *text, double *out); /* finite only; '.' whatever the locale */
/* "512", "64K", "1.5G", "2GiB", "10 MB": bytes, binary multiples. */
int parse_bytes(const char *text, uint64_t *out);
/* yes/no, true/false, on/off, 1/0. */
int parse_bool(const char *text, bool *out);

/* a + b and a * b into *out; false on overflow (sizes from files and users). */
static inline bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Trims ASCII blanks in place; returns the start within `s`. */
char *str_trim(char *s);
/* Edit distance (a swap of neighbours is one edit; ASCII case-insensitive), capped at `max` + 1:
 * for "did you mean". */
int str_distance(const char *a, const char *b, int max);
/* The entry of `names` (NULL-terminated) nearest to `word` within 2 edits, 1 in words of up to four
 * letters, or NULL. */
const char *str_nearest(const char *word, const char *const *names);
/* Is [s, s+n) well-formed UTF-8 without NUL, surrogates and overlong forms? */
bool utf8_valid(const char *s, size_t n);
/* "1.2 GB" style, decimal digits kept to 3; into out[24]; returns out. */
char *format_bytes(uint64_t bytes, char *out);

#endif
