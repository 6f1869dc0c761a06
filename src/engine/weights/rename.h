/* Tensors under other names: files in the naming of a model's authors, seen under the names that
 * the loaders ask for (those of huggingface/diffusers and transformers).
 *
 * A naming is a table of rules. Nothing is copied where it can be helped: a new entry points into
 * the old one's data. */
#ifndef OMNI_RENAME_H
#define OMNI_RENAME_H

#include "base/err.h"
#include "engine/weights/file.h"

enum rename_change {
    RENAME_AS_IS,
    RENAME_THIRD,      /* rows of the first, second or third of three equal parts */
    RENAME_SWAP,       /* the two halves of the rows change places */
    RENAME_TRANSPOSE,  /* [a, b] → [b, a] */
    RENAME_FLAT,       /* dimensions of 1 behind the second go: a 1x1 filter as a matrix */
    RENAME_SINGLE_ROW, /* [n] → [1, n]; what has two dimensions stays */
    RENAME_DROP,       /* not needed */
};

struct rename_rule {
    /* `*` stands for a number. With '.' at its end a pattern fits whatever follows, else it fits
     * whole names. NULL: the end of the table. */
    const char *from;
    /* Numbers take the place of `*` in order; what followed `from` is added. */
    const char *to;
    enum rename_change change;
    int third; /* 0 … 2 */
    /* Where not NULL: what followed `from` is renamed by this table and must fit it. */
    const struct rename_rule *tail;
};

/* Puts in place of f's entries those that begin with `prefix`, without it, renamed. A tensor that
 * fits several rules is there several times; one that fits none keeps its name. -EINVAL for a
 * tensor that cannot be changed as its rule asks; `f` is still to be closed then. */
int weights_file_rename(struct weights_file *f, const char *prefix, const struct rename_rule *rules,
                        struct err *e);

#endif
