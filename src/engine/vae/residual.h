/* Residual blocks of an autoencoder, in bands of rows, so that a picture of full size never needs
 * more than a few maps of features in memory.
 *
 * A group norm needs sums over the whole map; all else is local. So a block first gathers the sums
 * band by band and then works band by band: norm, SiLU and filter on a few rows, with the rows
 * above and below that the filter reads. Where even its input and its middle result would not fit
 * together, the middle result is made twice, once for its sums and once for what becomes of it. The
 * bits are those of the whole map at once. */
#ifndef OMNI_VAE_RESIDUAL_H
#define OMNI_VAE_RESIDUAL_H

#include "engine/ops.h"

struct affine {
    struct tensor *w, *b; /* [C] */
};
struct filter {
    struct tensor *w, *b; /* [out, in, k, k], [out]; NULL w: not there */
};

struct resnet {
    struct affine norm1, norm2;
    struct filter conv1, conv2; /* 3x3 */
    struct filter shortcut;     /* 1x1, where the width changes */
};

/* How maps are cut. */
struct bands {
    int groups;   /* of every norm */
    int64_t hold; /* bytes: maps that are together below this are held, others made again */
    int64_t band; /* bytes of a band of one map, about */
};
#define BANDS_HOLD ((int64_t)832 << 20)
#define BANDS_BAND ((int64_t)16 << 20)

/* A map [B, H, W, C]: x itself, or what `up` makes of x doubled. */
struct map {
    struct tensor *x;
    const struct filter *up;
    /* Of a map that is being overwritten from the top: rows are new up to `done`, and `above`
     * [B, n, W, C] holds the n rows before as they were. */
    struct tensor *above;
    int64_t done;
};

/* act(norm(x)) through a 3x3 filter, whole result. */
struct tensor *norm_conv(const struct bands *k, struct ops *o, const struct affine *a,
                         const struct filter *f, const struct tensor *x);
/* The block's result in place of its input, which is what lies in the scope of `mark`. */
struct tensor *run_resnet(const struct bands *k, struct ops *o, const struct resnet *r,
                          ops_mark mark, struct map x);
/* The other way: filtered by `down` in steps of two, padded where the filter ends. */
struct tensor *halve(const struct bands *k, struct ops *o, const struct filter *down,
                     const struct tensor *x);
/* `x` doubled and filtered by `up`: whole in its place where the block `next` can have it so, else
 * a map that is made as it is read. */
struct map double_map(const struct bands *k, struct ops *o, const struct filter *up,
                      const struct resnet *next, ops_mark mark, struct tensor *x);

#endif
