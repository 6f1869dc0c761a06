#include "engine/rope.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"

static int64_t rope_pairs(const struct rope *r)
{
    int64_t pairs = 0;
    for (int a = 0; a < r->axes; a++)
        pairs += r->dims[a] / 2;
    return pairs;
}

static void fill(const struct rope *r, const float *positions, int64_t tokens, float *c, float *s)
{
    for (int64_t t = 0; t < tokens; t++)
        for (int a = 0; a < r->axes; a++)
            for (int k = 0; k < r->dims[a]; k += 2) {
                double angle =
                    (double)positions[t * r->axes + a] * pow(r->theta, -(double)k / r->dims[a]);
                *c++ = (float)cos(angle);
                *s++ = (float)sin(angle);
            }
}

void rope_tables(struct ops *o, const struct rope *r, const float *positions, int64_t tokens,
                 struct tensor **cos_out, struct tensor **sin_out)
{
    *cos_out = *sin_out = NULL;
    int64_t pairs = rope_pairs(r);
    AUTO_FREE float *table = NULL;
    if (!ops_planning(o)) {
        table = calloc((size_t)(tokens * pairs) * 2 + 1, sizeof(float));
        if (!table) {
            ops_fail(o, -ENOMEM, "not enough memory for the positions of %lld tokens",
                     (long long)tokens);
            return;
        }
        fill(r, positions, tokens, table, table + tokens * pairs);
    }
    *cos_out = op_from_host(o, DTYPE_F32, SHAPE(tokens, pairs), table);
    *sin_out =
        op_from_host(o, DTYPE_F32, SHAPE(tokens, pairs), table ? table + tokens * pairs : NULL);
}
