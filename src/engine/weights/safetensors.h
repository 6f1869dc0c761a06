/* One .safetensors file: an 8-byte length, that many bytes of JSON, then the data.
 *
 * The header is not trusted: lengths, JSON, dtype words, shapes, products, offsets, order and gaps
 * are all checked against each other and against the file's size before an entry exists. */
#ifndef OMNI_SAFETENSORS_H
#define OMNI_SAFETENSORS_H

#include <stddef.h>

#include "base/err.h"
#include "engine/weights/file.h"

/* The format allows 100 MB of header; real ones stay under 8 MB, so that a hostile one cannot make
 * the reader allocate gigabytes. */
#define SAFETENSORS_HEADER_LIMIT ((size_t)32 << 20)

/* Reads a header over bytes that outlive `out`; `path` is what messages call them.
 * weights_file_close() ends it. */
int safetensors_parse(const char *path, const void *bytes, size_t size, struct weights_file *out,
                      struct err *e);

#endif
