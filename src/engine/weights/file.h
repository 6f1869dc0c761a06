/* One file of weights, whatever its format: a list of named tensors over a mapping. */
#ifndef OMNI_WEIGHTS_FILE_H
#define OMNI_WEIGHTS_FILE_H

#include <stddef.h>

#include "base/err.h"
#include "engine/weights/weights.h"

struct weights_file {
    char *path;
    struct weights_entry
        *entries; /* in file order; names and copies are owned, data may be mapped */
    size_t count;
    void **copies; /* [copy_count]: data that renaming changed (rename.h) */
    size_t copy_count;
    void *map; /* the mapping, NULL when the bytes are the caller's */
    size_t map_size;
};

/* Maps a file and reads its header, GGUF or safetensors by its first bytes. The size is checked
 * now; a file that somebody truncates later kills its reader with SIGBUS, as any mapping does:
 * checkpoints are replaced by rename, never in place. */
int weights_file_open(const char *path, struct weights_file *out, struct err *e);
void weights_file_close(struct weights_file *f);

#endif
