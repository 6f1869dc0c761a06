/* One GGUF file (versions 2 and 3): key-value pairs, tensor infos, aligned data. Source:
 * ggml-org/ggml, docs/gguf.md. Quantized tensors are entries with `expand`, the others as in any
 * file. The header is not trusted: counts, lengths, types, offsets and sizes are checked against
 * the file before an entry exists. */
#ifndef OMNI_GGUF_H
#define OMNI_GGUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "engine/weights/file.h"

bool gguf_is(const void *bytes, size_t size);
/* Reads a header over bytes that outlive `out`. weights_file_close() ends it. */
int gguf_parse(const char *path, const void *bytes, size_t size, struct weights_file *out,
               struct err *e);

#endif
