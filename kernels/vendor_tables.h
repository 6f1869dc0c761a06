/* The libraries' functions as tables, so that a test can stand plain code behind them, and what
 * cublaslt.c, cudnn.c and vendor.c share. Types and numbers are those of NVIDIA's headers; where a
 * machine has none, the tables are missing and nothing is available. */
#ifndef OMNI_KERNELS_VENDOR_TABLES_H
#define OMNI_KERNELS_VENDOR_TABLES_H

#include <pthread.h>

#include "kernels/choices.h"
#include "kernels/vendor.h"

#if defined(__has_include)
#if __has_include(<cublasLt.h>)
#define VENDOR_CUBLASLT 1
#include <cublasLt.h>
#endif
#if __has_include(<cudnn.h>)
#define VENDOR_CUDNN 1
#include <cudnn.h>
#endif
#endif

#ifdef VENDOR_CUBLASLT
#define CUBLASLT_FUNCTIONS(F)                                                                      \
    F(Create)                                                                                      \
    F(Destroy)                                                                                     \
    F(GetVersion)                                                                                  \
    F(MatmulDescCreate)                                                                            \
    F(MatmulDescDestroy)                                                                           \
    F(MatmulDescSetAttribute)                                                                      \
    F(MatrixLayoutCreate)                                                                          \
    F(MatrixLayoutDestroy)                                                                         \
    F(MatmulPreferenceCreate)                                                                      \
    F(MatmulPreferenceDestroy)                                                                     \
    F(MatmulPreferenceSetAttribute)                                                                \
    F(MatmulAlgoGetHeuristic)                                                                      \
    F(MatmulAlgoCheck)                                                                             \
    F(Matmul)
struct cublaslt_table {
#define FIELD(name) __typeof__(&cublasLt##name) name;
    CUBLASLT_FUNCTIONS(FIELD)
#undef FIELD
};
#endif

#ifdef VENDOR_CUDNN
#define CUDNN_FUNCTIONS(F)                                                                         \
    F(Create)                                                                                      \
    F(Destroy)                                                                                     \
    F(SetStream)                                                                                   \
    F(GetVersion)                                                                                  \
    F(BackendCreateDescriptor)                                                                     \
    F(BackendDestroyDescriptor)                                                                    \
    F(BackendSetAttribute)                                                                         \
    F(BackendGetAttribute)                                                                         \
    F(BackendFinalize)                                                                             \
    F(BackendExecute)
struct cudnn_table {
#define FIELD(name) __typeof__(&cudnn##name) name;
    CUDNN_FUNCTIONS(FIELD)
#undef FIELD
};
#endif

struct vendor {
    pthread_mutex_t lock; /* over the two parts */
    struct lt *lt;        /* NULL: not there */
    struct nn *nn;
    void *lt_library, *nn_library;
    struct vendor_clock clock; /* start NULL: none */
    struct choices *choices;   /* NULL: the heuristics' first */
    double least_attention;    /* multiply-adds a product that are worth a plan */
    char text[96];
};

#ifdef VENDOR_CUBLASLT
/* A context over `table` (copied); NULL when the library has none for this device. */
struct lt *lt_new(const struct cublaslt_table *table);
int lt_remembered(const struct lt *t); /* shapes whose choice is known */
#endif
struct lt *lt_open(void **library, char *text, size_t size);
void lt_free(struct lt *t);
bool lt_linear(struct vendor *v, const struct vendor_linear *l, void *workspace, void *stream,
               struct vendor_left *left);

#ifdef VENDOR_CUDNN
struct nn *nn_new(const struct cudnn_table *table);
/* Builds plans for a device that is only described (a finalized descriptor of its properties) and
 * runs none: for machines without one. */
struct nn *nn_new_described(const struct cudnn_table *table, cudnnBackendDescriptor_t device);
int nn_remembered(const struct nn *d);
#endif
struct nn *nn_open(void **library, char *text, size_t size);
void nn_free(struct nn *d);
bool nn_conv(struct nn *d, const struct vendor_conv *c, void *workspace, void *stream,
             struct vendor_left *left);
bool nn_attention(struct nn *d, const struct vendor_attention *a, void *workspace, void *stream);

#define VENDOR_TEXT_(x) #x
#define VENDOR_TEXT(x)  VENDOR_TEXT_(x)

/* Opens `file` from where the system looks or from CUDA's folder, and fills the `count` pointers of
 * `table` with prefix + names[i]. False: it is not there or lacks one of them; *library is to be
 * closed where it is not NULL. */
bool vendor_library(const char *file, const char *prefix, const char *const *names, size_t count,
                    void *table, void **library);
/* "NAME 13.1.0" of 130100. */
void vendor_version(const char *name, size_t version, char *text, size_t size);

/* FNV-1a over the bytes of a key. */
static inline uint64_t vendor_hash(const void *key, size_t size)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const uint8_t *)key)[i]) * 0x100000001b3u;
    return h;
}

static inline size_t vendor_type_size(enum vendor_type t)
{
    return t == VENDOR_F32 ? 4 : t == VENDOR_E4M3 ? 1 : 2;
}

#endif
