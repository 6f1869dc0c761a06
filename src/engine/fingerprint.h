/* A checkpoint's fingerprint: one sha256 for the files that decide what it draws. */
#ifndef OMNI_FINGERPRINT_H
#define OMNI_FINGERPRINT_H

#include "base/err.h"
#include "base/file.h"
#include "engine/checkpoint.h"

/* Hashes names, sizes and contents of model_index.json (or of a single file and what lies
 * beside it) and of the files in every opened part's folder, the tokenizer's and the scheduler's,
 * in order of name. Of a file over 64 MiB it takes the
 * first MiB (names and shapes of all tensors) and 64 KiB at each 256th of its length: a second for
 * the largest checkpoints, and still another value for any training that moved the weights. */
int fingerprint(const struct checkpoint *c, char out[SHA256_HEX_SIZE], struct err *e);
/* The same of the folders `root`/NAME alone, in their order; one that is missing is passed over. */
int fingerprint_folders(const char *root, const char *const *names, int count,
                        char out[SHA256_HEX_SIZE], struct err *e);

#endif
