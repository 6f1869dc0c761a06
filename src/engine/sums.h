/* The sha256 that is known of a file: published files have it beside them in the ways of
 * sha256sum(1), and the hub's cache calls large files by it. */
#ifndef OMNI_SUMS_H
#define OMNI_SUMS_H

#include "base/err.h"
#include "base/file.h"

struct known_sum {
    char sha256[SHA256_HEX_SIZE]; /* lower-case */
    char *source;                 /* what says so: a path, heap */
};

/* What is known of the file `path`: by its name in a blobs folder that it links to, by path.sha256,
 * or by SHA256SUMS in its folder or in the one above. 1 with *out filled (its source is the
 * caller's), 0 where nothing is known, or -errno with a sentence about a file of sums that is none.
 */
int sum_known(const char *path, struct known_sum *out, struct err *e);
/* Compares the file with it. -EDOM and a sentence with both when it is another. */
int sum_check(const char *path, const struct known_sum *known, struct err *e);

#endif
