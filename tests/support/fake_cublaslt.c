#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_vendor.h"

/* ---- numbers ---- */

static double small_float(unsigned bits, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    unsigned mantissa = bits & ((1u << mantissa_bits) - 1);
    unsigned exponent = bits >> mantissa_bits & ((1u << exponent_bits) - 1);
    double sign = bits >> (exponent_bits + mantissa_bits) ? -1 : 1;
    if (exponent_bits == 4 && (bits & 0x7F) == 0x7F)
        return NAN;
    if (!exponent)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp((1u << mantissa_bits) + mantissa, (int)exponent - bias - mantissa_bits);
}

double fake_load(const void *base, int64_t index, enum vendor_type type)
{
    if (type == VENDOR_F32)
        return ((const float *)base)[index];
    if (type == VENDOR_E4M3)
        return small_float(((const uint8_t *)base)[index], 4, 3);
    uint16_t bits = ((const uint16_t *)base)[index];
    if (type == VENDOR_F16)
        return small_float(bits, 5, 10);
    uint32_t wide = (uint32_t)bits << 16;
    float v;
    memcpy(&v, &wide, sizeof(v));
    return v;
}

/* Rounded to even; exponents are taken to fit. */
static uint16_t to_f16(double value)
{
    int exponent;
    if (value == 0)
        return 0;
    frexp(fabs(value), &exponent);
    exponent = exponent < -13 ? -14 : exponent - 1;
    unsigned units = (unsigned)nearbyint(ldexp(fabs(value), 10 - exponent));
    unsigned sign = value < 0 ? 1u << 15 : 0;
    return (uint16_t)(sign + (units < 1024 ? units : units + (unsigned)(exponent + 14) * 1024));
}

static uint16_t to_bf16(double value)
{
    float v = (float)value;
    uint32_t wide;
    memcpy(&wide, &v, sizeof(wide));
    return (uint16_t)((wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
}

void fake_store(void *base, int64_t index, enum vendor_type type, double value)
{
    if (type == VENDOR_F32)
        ((float *)base)[index] = (float)value;
    else
        ((uint16_t *)base)[index] = type == VENDOR_F16 ? to_f16(value) : to_bf16(value);
}

#ifdef VENDOR_CUBLASLT

struct fake_cublaslt fake_cublaslt;

struct layout {
    cudaDataType type;
    int64_t rows, cols, ld;
};

struct product {
    cublasComputeType_t compute;
    cublasOperation_t a, b;
    uint32_t epilogue;
    const void *bias;
    const float *a_scale, *b_scale;
};

struct preference {
    size_t workspace;
    uint32_t sums, a, b, d;
};

/* ---- descriptors ---- */

static cublasStatus_t create(cublasLtHandle_t *handle)
{
    static int context;
    *handle = (cublasLtHandle_t)(void *)&context;
    return fake_cublaslt.creation_fails ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(cublasLtHandle_t handle)
{
    (void)handle;
    return CUBLAS_STATUS_SUCCESS;
}

static size_t version(void)
{
    return 130100;
}

static cublasStatus_t kept(void **out, const void *value, size_t size)
{
    *out = malloc(size);
    memcpy(*out, value, size);
    fake_cublaslt.alive++;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t dropped(void *p)
{
    free(p);
    fake_cublaslt.alive--;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t product_create(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                     cudaDataType_t scale)
{
    struct product p = {.compute = compute, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    return scale == CUDA_R_32F ? kept((void **)out, &p, sizeof(p)) : CUBLAS_STATUS_INVALID_VALUE;
}

static cublasStatus_t product_destroy(cublasLtMatmulDesc_t d)
{
    return dropped(d);
}

static cublasStatus_t product_set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name,
                                  const void *value, size_t size)
{
    struct product *p = (struct product *)(void *)d;
    const struct {
        cublasLtMatmulDescAttributes_t name;
        void *field;
        size_t size;
    } fields[] = {
        {CUBLASLT_MATMUL_DESC_TRANSA, &p->a, sizeof(p->a)},
        {CUBLASLT_MATMUL_DESC_TRANSB, &p->b, sizeof(p->b)},
        {CUBLASLT_MATMUL_DESC_EPILOGUE, &p->epilogue, sizeof(p->epilogue)},
        {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof(p->bias)},
        {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p->a_scale, sizeof(p->a_scale)},
        {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p->b_scale, sizeof(p->b_scale)},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (fields[i].name == name && fields[i].size == size) {
            memcpy(fields[i].field, value, size);
            return CUBLAS_STATUS_SUCCESS;
        }
    return CUBLAS_STATUS_INVALID_VALUE;
}

static cublasStatus_t layout_create(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                    uint64_t cols, int64_t ld)
{
    struct layout l = {type, (int64_t)rows, (int64_t)cols, ld};
    return ld < (int64_t)rows ? CUBLAS_STATUS_INVALID_VALUE : kept((void **)out, &l, sizeof(l));
}

static cublasStatus_t layout_destroy(cublasLtMatrixLayout_t l)
{
    return dropped(l);
}

static cublasStatus_t preference_create(cublasLtMatmulPreference_t *out)
{
    struct preference p = {0};
    return kept((void **)out, &p, sizeof(p));
}

static cublasStatus_t preference_destroy(cublasLtMatmulPreference_t p)
{
    return dropped(p);
}

static cublasStatus_t preference_set(cublasLtMatmulPreference_t d,
                                     cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                     size_t size)
{
    struct preference *p = (struct preference *)(void *)d;
    uint32_t unused;
    void *field = name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES     ? (void *)&p->workspace
                  : name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK ? &p->sums
                  : name == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES ? &p->a
                  : name == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES ? &p->b
                  : name == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES ? &p->d
                                                                       : &unused;
    memcpy(field, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- algorithms ---- */

static cublasStatus_t search(cublasLtHandle_t handle, cublasLtMatmulDesc_t d,
                             cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                             cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                             cublasLtMatmulPreference_t preference, int requested,
                             cublasLtMatmulHeuristicResult_t *results, int *count)
{
    struct product *p = (struct product *)(void *)d;
    struct preference *wish = (struct preference *)(void *)preference;
    (void)handle;
    (void)a;
    (void)b;
    (void)c;
    (void)out;
    fake_cublaslt.searches++;
    fake_cublaslt.sums = wish->sums;
    fake_cublaslt.align_a = wish->a;
    fake_cublaslt.align_b = wish->b;
    fake_cublaslt.align_d = wish->d;
    *count = 0;
    if (fake_cublaslt.refused && p->epilogue == fake_cublaslt.refused)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < requested && i < fake_cublaslt.candidates; i++) {
        results[i] = (cublasLtMatmulHeuristicResult_t){
            .state = CUBLAS_STATUS_SUCCESS, .workspaceSize = i ? 0 : fake_cublaslt.workspace};
        results[i].algo.data[0] = (uint64_t)i + 1;
        ++*count;
    }
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check(cublasLtHandle_t handle, cublasLtMatmulDesc_t d,
                            cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                            cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                            const cublasLtMatmulAlgo_t *algo,
                            cublasLtMatmulHeuristicResult_t *result)
{
    (void)handle;
    (void)d;
    (void)a;
    (void)b;
    (void)c;
    (void)out;
    *result = (cublasLtMatmulHeuristicResult_t){.algo = *algo};
    return algo->data[0] && algo->data[0] <= (uint64_t)fake_cublaslt.candidates
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* ---- the product ---- */

static enum vendor_type type_of(cudaDataType t)
{
    return t == CUDA_R_32F    ? VENDOR_F32
           : t == CUDA_R_16BF ? VENDOR_BF16
           : t == CUDA_R_16F  ? VENDOR_F16
                              : VENDOR_E4M3;
}

static double finish(const struct product *p, double sum, int64_t row, enum vendor_type type)
{
    if (p->epilogue & CUBLASLT_EPILOGUE_BIAS)
        sum += fake_load(p->bias, row, type);
    if (p->epilogue & CUBLASLT_EPILOGUE_RELU)
        sum = sum > 0 ? sum : 0;
    if (p->epilogue & CUBLASLT_EPILOGUE_GELU)
        sum *= 0.5 * (1 + tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
    return sum;
}

/* One row of op(A) times one column of op(B). Odd algorithms add from the front, even ones from the
 * back in fp32: their bits differ. */
static double dot(const struct product *p, const void *a, const struct layout *la, const void *b,
                  const struct layout *lb, int64_t i, int64_t j, int64_t depth, bool backwards)
{
    enum vendor_type a_type = type_of(la->type), b_type = type_of(lb->type);
    int64_t a_step = p->a == CUBLAS_OP_T ? 1 : la->ld, b_step = p->b == CUBLAS_OP_T ? lb->ld : 1;
    int64_t a_from = p->a == CUBLAS_OP_T ? i * la->ld : i;
    int64_t b_from = p->b == CUBLAS_OP_T ? j : j * lb->ld;
    float sum = 0;
    for (int64_t t = 0; t < depth; t++) {
        int64_t k = backwards ? depth - 1 - t : t;
        sum += (float)(fake_load(a, a_from + k * a_step, a_type) *
                       fake_load(b, b_from + k * b_step, b_type));
    }
    return sum * (p->a_scale ? *p->a_scale : 1) * (p->b_scale ? *p->b_scale : 1);
}

static cublasStatus_t multiply(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, const void *alpha,
                               const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                               cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                               cublasLtMatrixLayout_t c_layout, void *out,
                               cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                               void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    const struct product *p = (const struct product *)(void *)d;
    const struct layout *la = (void *)a_layout, *lb = (void *)b_layout, *ld = (void *)d_layout;
    int64_t depth = p->a == CUBLAS_OP_T ? la->rows : la->cols;
    (void)handle;
    (void)stream;
    if ((uintptr_t)workspace % 256 != 0 || workspace_bytes > VENDOR_WORKSPACE ||
        *(const float *)alpha != 1 || *(const float *)beta != 0 || c != out ||
        c_layout != d_layout || (p->a == CUBLAS_OP_T ? la->cols : la->rows) != ld->rows ||
        (p->b == CUBLAS_OP_T ? lb->rows : lb->cols) != ld->cols ||
        (p->b == CUBLAS_OP_T ? lb->cols : lb->rows) != depth)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (fake_cublaslt.broken && (int)algo->data[0] == fake_cublaslt.broken)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    enum vendor_type type = type_of(ld->type);
    for (int64_t j = 0; j < ld->cols; j++)
        for (int64_t i = 0; i < ld->rows; i++) {
            double sum = dot(p, a, la, b, lb, i, j, depth, algo->data[0] % 2 == 0);
            fake_store(out, i + j * ld->ld, type, finish(p, sum, i, type));
        }
    fake_cublaslt.products++;
    fake_cublaslt.algorithm = (int)algo->data[0];
    fake_cublaslt.epilogue = p->epilogue;
    fake_cublaslt.compute = p->compute;
    fake_cublaslt.m = ld->rows;
    fake_cublaslt.n = ld->cols;
    fake_cublaslt.k = depth;
    fake_cublaslt.lda = la->ld;
    fake_cublaslt.ldb = lb->ld;
    fake_cublaslt.ldd = ld->ld;
    return CUBLAS_STATUS_SUCCESS;
}

const struct cublaslt_table fake_cublaslt_table = {
    .Create = create,
    .Destroy = destroy,
    .GetVersion = version,
    .MatmulDescCreate = product_create,
    .MatmulDescDestroy = product_destroy,
    .MatmulDescSetAttribute = product_set,
    .MatrixLayoutCreate = layout_create,
    .MatrixLayoutDestroy = layout_destroy,
    .MatmulPreferenceCreate = preference_create,
    .MatmulPreferenceDestroy = preference_destroy,
    .MatmulPreferenceSetAttribute = preference_set,
    .MatmulAlgoGetHeuristic = search,
    .MatmulAlgoCheck = check,
    .Matmul = multiply,
};

#endif
