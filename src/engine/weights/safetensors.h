/* One .safetensors file: an 8-byte length, that many bytes of JSON, then the data.
 *
 * The header is not trusted: lengths, JSON, dtype words, shapes, products, offsets, order and gaps
 * are all checked against each other and against the file's size before an entry exists. */
#ifndef OMNI_SAFETENSORS_H
#define OMNI_SAFETENSORS_H

#include <stddef.h>

#include "base/err.h"
#include "engine/weights/weights.h"

/* The format allows 100 MB of header; real ones stay under 8 MB, so that a hostile one cannot make
 * the reader allocate gigabytes. */
#define SAFETENSORS_HEADER_LIMIT ((size_t)32 << 20)

struct safetensors {
    char *path;
    struct weights_entry
        *entries; /* in file order; names and copies are owned, data may be mapped */
    size_t count;
    void **copies; /* [count]: aligned copies of misaligned tensors, else NULL */
    void *map;     /* the mapping, NULL when the bytes are the caller's */
    size_t map_size;
};

/* Maps a file. The size is checked now; a file that somebody truncates later kills its reader with
 * SIGBUS, as any mapping does: checkpoints are replaced by rename, never in place. */
int safetensors_open(const char *path, struct safetensors *out, struct err *e);
/* The same over bytes that outlive `out`; `path` is what messages call them. */
int safetensors_parse(const char *path, const void *bytes, size_t size, struct safetensors *out,
                      struct err *e);
void safetensors_close(struct safetensors *s);

#endif
