/* Normalizers: what happens to a text before it is cut into words. */
#ifndef OMNI_TEXT_NORMAL_H
#define OMNI_TEXT_NORMAL_H

#include <stddef.h>

#include "base/err.h"

enum normal_step {
    NORMAL_NFC,    /* canonical composition */
    NORMAL_SPACES, /* a run of White_Space becomes one blank */
    NORMAL_LOWER   /* small letters, each character by itself */
};

enum { NORMALS_MAX = 4 };

struct normal {
    enum normal_step steps[NORMALS_MAX];
    int count;
};

/* -ENOTSUP over NORMALS_MAX. */
int normal_add(struct normal *s, enum normal_step step, struct err *e);
/* Valid UTF-8 → *out, heap, caller frees; a copy where there are no steps. */
int normal_run(const struct normal *s, const char *text, size_t n, char **out, size_t *out_n,
               struct err *e);

#endif
