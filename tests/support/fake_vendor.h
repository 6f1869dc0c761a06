/* Plain code behind the tables of kernels/vendor_tables.h: descriptors are kept as they are set,
 * and a call computes what the descriptors say, in double precision over host memory. */
#ifndef OMNIFS_TEST_FAKE_VENDOR_H
#define OMNIFS_TEST_FAKE_VENDOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "kernels/vendor_tables.h"

/* Numbers in memory: F32, BF16, F16 and (reading only) E4M3; writing rounds. */
double fake_load(const void *base, int64_t index, enum vendor_type type);
void fake_store(void *base, int64_t index, enum vendor_type type, double value);

#ifdef VENDOR_CUBLASLT
struct fake_cublaslt {
    /* set by a test */
    int candidates;      /* answers of the heuristics */
    uint32_t refused;    /* an epilogue that the heuristics do not know; 0: none */
    size_t workspace;    /* of the first candidate */
    int broken;          /* the algorithm that does not run; 0: none */
    bool creation_fails; /* no context */
    /* seen */
    int alive, searches, products, algorithm; /* descriptors; calls; of the last product */
    uint32_t epilogue;
    int64_t m, n, k, lda, ldb, ldd;
    cublasComputeType_t compute;
    uint32_t sums, align_a, align_b, align_d;
};
extern struct fake_cublaslt fake_cublaslt;
extern const struct cublaslt_table fake_cublaslt_table;
#endif

#ifdef VENDOR_CUDNN
struct fake_cudnn {
    /* set by a test */
    int engines;                      /* answers of the heuristics */
    cudnnBackendNumericalNote_t note; /* of the first engine; TYPE_COUNT: none */
    int64_t workspace;                /* of the first plan */
    int most_operations;              /* graphs with more are not supported; 0: any */
    bool broken;                      /* no plan runs */
    /* seen */
    int alive, searches, runs, engine; /* descriptors; calls; of the last run */
    int operations;                    /* of the last run */
    void *stream;
};
extern struct fake_cudnn fake_cudnn;
extern const struct cudnn_table fake_cudnn_table;
#endif

#if defined(VENDOR_CUBLASLT) && defined(VENDOR_CUDNN)
/* Both behind a vendor, with three algorithms of each; no fields where one does not open. */
static inline struct vendor *fake_vendor_new(void)
{
    fake_cublaslt = (struct fake_cublaslt){.candidates = 3};
    fake_cudnn = (struct fake_cudnn){.engines = 3, .note = CUDNN_NUMERICAL_NOTE_TYPE_COUNT};
    struct vendor *v = calloc(1, sizeof(*v));
    if (!v)
        return NULL;
    pthread_mutex_init(&v->lock, NULL);
    v->lt = lt_new(&fake_cublaslt_table);
    v->nn = nn_new(&fake_cudnn_table);
    return v;
}
#endif

#endif
