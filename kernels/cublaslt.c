/* Linear layers by cuBLASLt. It thinks in columns: our row-major y[rows, n] is its n × rows matrix
 * D = op(A)·op(B) with A = w, k × n, transposed, and B = x, k × rows; a bias runs along D's rows.
 *
 * A shape's choice (descriptors and algorithm) is made once and kept. Its epilogue is fused where
 * it means exactly ours: RELU always; GELU, which is the tanh form, only where x and w are narrow,
 * as its tanh may be the fast one; with e4m3 a result in fp32 would want a bias in bf16. Split sums
 * may not be added up in the type of the result. */
#include <stdlib.h>
#include <string.h>

#include "kernels/vendor_tables.h"

#ifdef VENDOR_CUBLASLT

#define SETS       64
#define WAYS       4
#define CANDIDATES 8

enum { NO_BIAS, BIAS_FITS, BIAS_STANDS_CROOKED }; /* not at 16 bytes: not fused */

/* All that a choice depends on; compared as bytes, so it has no padding. The number of items is no
 * part of it, their distances are: one item gets the choice of many. */
struct key {
    int64_t rows, n, k, x_row, w_row, y_row;
    uint8_t type, y_type, bias, bias_type, act;
    uint8_t align_x, align_w, align_y;
};

struct choice {
    struct key key;
    uint64_t used; /* 0: free */
    bool supported, measured;
    struct vendor_left left;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
};

struct lt {
    struct cublaslt_table f;
    cublasLtHandle_t handle;
    uint64_t tick;
    struct choice choices[SETS][WAYS];
};

static const cudaDataType types[] = {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F, CUDA_R_8F_E4M3};
static const float one = 1, zero = 0;

/* ---- opening ---- */

struct lt *lt_new(const struct cublaslt_table *table)
{
    struct lt *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->f = *table;
    if (t->f.Create(&t->handle) == CUBLAS_STATUS_SUCCESS)
        return t;
    free(t);
    return NULL;
}

struct lt *lt_open(void **library, char *text, size_t size)
{
#define NAME(name) #name,
    static const char *const names[] = {CUBLASLT_FUNCTIONS(NAME)};
#undef NAME
    struct cublaslt_table table;
    if (!vendor_library("libcublasLt.so." VENDOR_TEXT(CUBLAS_VER_MAJOR), "cublasLt", names,
                        sizeof(names) / sizeof(*names), &table, library))
        return NULL;
    struct lt *t = lt_new(&table);
    if (t)
        vendor_version("cuBLASLt", t->f.GetVersion(), text, size);
    return t;
}

static void choice_clear(struct lt *t, struct choice *c)
{
    if (c->desc)
        t->f.MatmulDescDestroy(c->desc);
    for (int i = 0; i < 3; i++) {
        cublasLtMatrixLayout_t layout = i == 0 ? c->a : i == 1 ? c->b : c->d;
        if (layout)
            t->f.MatrixLayoutDestroy(layout);
    }
    *c = (struct choice){0};
}

void lt_free(struct lt *t)
{
    if (!t)
        return;
    for (int i = 0; i < SETS * WAYS; i++)
        choice_clear(t, &t->choices[i / WAYS][i % WAYS]);
    t->f.Destroy(t->handle);
    free(t);
}

int lt_remembered(const struct lt *t)
{
    int n = 0;
    for (int i = 0; i < SETS * WAYS; i++)
        n += t->choices[i / WAYS][i % WAYS].used != 0;
    return n;
}

/* ---- the choice ---- */

/* The largest power of two, 16 at most, that divides an address and the distances of rows and
 * items, in bytes. */
static uint8_t alignment(const void *p, int64_t row, int64_t item, enum vendor_type type)
{
    uintptr_t size = vendor_type_size(type);
    uintptr_t bits = (uintptr_t)p | (uintptr_t)row * size | (uintptr_t)item * size | 16;
    return (uint8_t)(bits & -bits);
}

static struct key key_of(const struct vendor_linear *l)
{
    struct key key;
    memset(&key, 0, sizeof(key));
    key.rows = l->rows;
    key.n = l->n;
    key.k = l->k;
    key.x_row = l->rows > 1 ? l->x_row : l->k;
    key.w_row = l->w_row;
    key.y_row = l->rows > 1 ? l->y_row : l->n;
    key.type = (uint8_t)l->type;
    key.y_type = (uint8_t)l->y_type;
    key.bias = !l->has_bias ? NO_BIAS : (uintptr_t)l->bias % 16 ? BIAS_STANDS_CROOKED : BIAS_FITS;
    key.bias_type = l->has_bias ? (uint8_t)l->bias_type : 0;
    key.act = (uint8_t)l->act;
    key.align_x = alignment(l->x, key.x_row, l->x_item, l->type);
    key.align_w = alignment(l->w, l->w_row, 0, l->type);
    key.align_y = alignment(l->y, key.y_row, l->y_item, l->y_type);
    return key;
}

static cublasLtEpilogue_t epilogue(bool bias, enum activation act)
{
    int bits = bias ? CUBLASLT_EPILOGUE_BIAS : 0;
    bits |= act == ACT_RELU ? CUBLASLT_EPILOGUE_RELU : 0;
    bits |= act == ACT_GELU_TANH ? CUBLASLT_EPILOGUE_GELU : 0;
    return bits ? (cublasLtEpilogue_t)bits : CUBLASLT_EPILOGUE_DEFAULT;
}

static bool describe(struct lt *t, struct choice *c)
{
    const struct key *k = &c->key;
    cublasOperation_t transposed = CUBLAS_OP_T;
    uint64_t rows = (uint64_t)k->rows, n = (uint64_t)k->n, depth = (uint64_t)k->k;
    return !t->f.MatmulDescCreate(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) &&
           !t->f.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                        sizeof(transposed)) &&
           !t->f.MatrixLayoutCreate(&c->a, types[k->type], depth, n, k->w_row) &&
           !t->f.MatrixLayoutCreate(&c->b, types[k->type], depth, rows, k->x_row) &&
           !t->f.MatrixLayoutCreate(&c->d, types[k->y_type], n, rows, k->y_row);
}

static bool set_epilogue(struct lt *t, struct choice *c, bool bias, enum activation act)
{
    cublasLtEpilogue_t e = epilogue(bias, act);
    const void *aligned = bias ? (const void *)(uintptr_t)16 : NULL; /* stands for the real one */
    return !t->f.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof(e)) &&
           !t->f.MatmulDescSetAttribute(c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &aligned,
                                        sizeof(aligned));
}

static bool set_preference(struct lt *t, const struct key *k, cublasLtMatmulPreference_t p)
{
    size_t workspace = VENDOR_WORKSPACE;
    uint32_t sums = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t a = k->align_w, b = k->align_x, d = k->align_y;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } rows[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof(sums)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof(a)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof(b)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &d, sizeof(d)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d, sizeof(d)},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (t->f.MatmulPreferenceSetAttribute(p, rows[i].name, rows[i].value, rows[i].size))
            return false;
    return true;
}

/* The heuristics' candidates that fit, best first: their number. */
static int candidates(struct lt *t, struct choice *c, cublasLtMatmulAlgo_t list[CANDIDATES])
{
    cublasLtMatmulPreference_t p;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0, kept = 0;
    if (t->f.MatmulPreferenceCreate(&p))
        return 0;
    if (!set_preference(t, &c->key, p) ||
        t->f.MatmulAlgoGetHeuristic(t->handle, c->desc, c->a, c->b, c->d, c->d, p, CANDIDATES,
                                    found, &count))
        count = 0;
    for (int i = 0; i < count; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS && found[i].workspaceSize <= VENDOR_WORKSPACE)
            list[kept++] = found[i].algo;
    t->f.MatmulPreferenceDestroy(p);
    return kept;
}

/* From everything in one pass to the bare product: the first that the library has. */
static void choose(struct lt *t, struct choice *c)
{
    cublasLtMatmulAlgo_t list[CANDIDATES];
    enum activation act = (enum activation)c->key.act;
    bool wanted = c->key.bias != NO_BIAS;
    bool bias = c->key.bias == BIAS_FITS && c->key.bias_type == c->key.y_type &&
                !(c->key.type == VENDOR_E4M3 && c->key.y_type == VENDOR_F32);
    bool fusable = act == ACT_RELU || (act == ACT_GELU_TANH && c->key.type != VENDOR_F32);
    fusable = fusable && bias == wanted; /* the bias comes before the activation */
    const struct {
        bool usable, bias;
        enum activation act;
    } ways[] = {{fusable, bias, act}, {bias, true, ACT_NONE}, {true, false, ACT_NONE}};
    for (size_t i = 0; describe(t, c) && i < sizeof(ways) / sizeof(*ways); i++) {
        if (ways[i].usable && set_epilogue(t, c, ways[i].bias, ways[i].act) &&
            candidates(t, c, list)) {
            c->supported = true;
            c->algo = list[0];
            c->left.bias = wanted && !ways[i].bias;
            c->left.act = act != ways[i].act;
            return;
        }
        struct choice again = {.key = c->key, .used = c->used};
        choice_clear(t, c);
        *c = again;
    }
}

/* The remembered choice of a key, or a new one in the place of its set that was used longest ago.
 */
static struct choice *find(struct lt *t, const struct key *key)
{
    struct choice *set = t->choices[vendor_hash(key, sizeof(*key)) % SETS], *oldest = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].used && memcmp(&set[i].key, key, sizeof(*key)) == 0) {
            set[i].used = ++t->tick;
            return &set[i];
        }
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    choice_clear(t, oldest);
    oldest->key = *key;
    oldest->used = ++t->tick;
    choose(t, oldest);
    return oldest;
}

/* ---- running ---- */

static bool set_pointer(struct lt *t, const struct choice *c, cublasLtMatmulDescAttributes_t name,
                        const void *value)
{
    return !t->f.MatmulDescSetAttribute(c->desc, name, &value, sizeof(value));
}

static bool set_pointers(struct lt *t, const struct choice *c, const struct vendor_linear *l)
{
    bool bias = l->has_bias && !c->left.bias;
    return (!bias || set_pointer(t, c, CUBLASLT_MATMUL_DESC_BIAS_POINTER, l->bias)) &&
           (l->type != VENDOR_E4M3 ||
            set_pointer(t, c, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, l->w_scale));
}

/* One product an item: the same call alone and in a batch. */
static bool multiply(struct lt *t, const struct choice *c, const cublasLtMatmulAlgo_t *algo,
                     const struct vendor_linear *l, void *workspace, void *stream)
{
    size_t x_step = (size_t)l->x_item * vendor_type_size(l->type);
    size_t y_step = (size_t)l->y_item * vendor_type_size(l->y_type);
    for (int64_t i = 0; i < l->items; i++) {
        const char *x = (const char *)l->x + (size_t)i * x_step;
        char *y = (char *)l->y + (size_t)i * y_step;
        if (l->type == VENDOR_E4M3 &&
            !set_pointer(t, c, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, l->x_scale + i))
            return false;
        if (t->f.Matmul(t->handle, c->desc, &one, l->w, c->a, x, c->b, &zero, y, c->d, y, c->d,
                        algo, workspace, VENDOR_WORKSPACE, (cudaStream_t)stream))
            return false;
    }
    return true;
}

#define MEASURE_RUNS 5

/* Seconds of a few runs of `algo` after one that warms up; negative: it does not run. */
static double measure(struct vendor *v, const struct choice *c, const cublasLtMatmulAlgo_t *algo,
                      const struct vendor_linear *l, void *workspace, void *stream)
{
    struct vendor_linear item = *l;
    item.items = 1;
    if (!multiply(v->lt, c, algo, &item, workspace, stream) ||
        !v->clock.start(v->clock.ctx, stream))
        return -1;
    bool ran = true;
    for (int i = 0; i < MEASURE_RUNS; i++)
        ran = multiply(v->lt, c, algo, &item, workspace, stream) && ran;
    double seconds = v->clock.stop(v->clock.ctx, stream);
    return ran ? seconds : -1;
}

/* The choice that the file knows, or else the fastest of the candidates, which goes there. */
static void measured_choice(struct vendor *v, struct choice *c, const struct vendor_linear *l,
                            void *workspace, void *stream)
{
    struct lt *t = v->lt;
    cublasLtMatmulAlgo_t list[CANDIDATES], written;
    cublasLtMatmulHeuristicResult_t check;
    uint64_t key = vendor_hash(&c->key, sizeof(c->key));
    _Static_assert(sizeof(written) == CHOICE_SIZE, "an algorithm is a value of the file");
    c->measured = true;
    if (choices_find(v->choices, key, (uint8_t *)&written)) {
        if (!t->f.MatmulAlgoCheck(t->handle, c->desc, c->a, c->b, c->d, c->d, &written, &check) &&
            check.workspaceSize <= VENDOR_WORKSPACE)
            c->algo = written;
        return;
    }
    int count = candidates(t, c, list);
    double best = -1;
    for (int i = 0; i < count; i++) {
        double seconds = measure(v, c, &list[i], l, workspace, stream);
        if (seconds >= 0 && (best < 0 || seconds < best)) {
            best = seconds;
            c->algo = list[i];
        }
    }
    if (best >= 0)
        choices_add(v->choices, key, (const uint8_t *)&c->algo);
}

bool lt_linear(struct vendor *v, const struct vendor_linear *l, void *workspace, void *stream,
               struct vendor_left *left)
{
    struct lt *t = v->lt;
    struct key key = key_of(l);
    struct choice *c = find(t, &key);
    *left = c->left;
    if (!c->supported || !l->y)
        return c->supported;
    if (!set_pointers(t, c, l))
        return false;
    if (v->choices && !c->measured)
        measured_choice(v, c, l, workspace, stream);
    return multiply(t, c, &c->algo, l, workspace, stream);
}

#else

struct lt *lt_open(void **library, char *text, size_t size)
{
    (void)library;
    (void)text;
    (void)size;
    return NULL;
}

void lt_free(struct lt *t)
{
    (void)t;
}

bool lt_linear(struct vendor *v, const struct vendor_linear *l, void *workspace, void *stream,
               struct vendor_left *left)
{
    (void)v;
    (void)l;
    (void)workspace;
    (void)stream;
    (void)left;
    return false;
}

#endif
