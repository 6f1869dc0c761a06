/* The few facts about Unicode that tokenizers need beyond regular expressions. */
#ifndef OMNI_UNICODE_H
#define OMNI_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* White_Space=yes of PropList.txt, and everything else, as members of a regex class. */
#define UNICODE_SPACE_CLASS                                                                        \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"    \
    "\\x{205F}\\x{3000}"
#define UNICODE_NOT_SPACE_CLASS                                                                    \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-"         \
    "\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"        \
    "\\x{3001}-\\x{10FFFF}"

/* How many bytes of White_Space `text` (valid UTF-8) begins, or ends, with. */
size_t unicode_leading_space(const char *text, size_t n);
size_t unicode_trailing_space(const char *text, size_t n);

/* Canonical composition (NFC) of valid UTF-8; *out is heap, caller frees. -EINVAL when marks are
 * piled up beyond any script's use, which would take quadratic time to order. */
int unicode_nfc(const char *text, size_t n, char **out, size_t *out_n, struct err *e);

/* Writes a code point below U+0800 as UTF-8; returns 1 or 2 bytes. */
size_t unicode_put_short(uint32_t point, char out[2]);

#endif
