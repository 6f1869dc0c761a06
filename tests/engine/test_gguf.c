/* GGUF files: what the gguf package wrote is read the same, and damage ends in a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/weights/gguf.h"
#include "engine/weights/weights.h"
#include "../support/det.h"
#include "../support/scratch.h"
#include "../support/tensors.h"

#define FILE_NAME "tests/engine/golden/gguf/small.gguf"
#define EXPECTED  "tests/engine/golden/gguf/small.f32"

static const struct {
    const char *name;
    int64_t rows, columns;
} tensors[] = {{"q.Q8_0", 3, 64},  {"q.Q4_0", 3, 64},  {"q.Q4_1", 3, 64},  {"q.Q5_0", 3, 64},
               {"q.Q5_1", 3, 64},  {"q.Q2_K", 3, 512}, {"q.Q3_K", 3, 512}, {"q.Q4_K", 3, 512},
               {"q.Q5_K", 3, 512}, {"q.Q6_K", 3, 512}, {"f.F32", 4, 6},    {"f.F16", 4, 6}};

static char *contents(const char *path, size_t *size)
{
    char *data = NULL;
    struct err e = {0};
    if (file_read(AT_FDCWD, path, 1 << 20, &data, size, &e) != 0)
        fail_msg("%s", e.text);
    return data;
}

static void every_block_format_expands_to_the_reference_values(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = {0};
    size_t size, at = 0;
    AUTO_FREE float *expected = (float *)contents(EXPECTED, &size);
    if (weights_open(FILE_NAME, "", &w, &e) != 0)
        fail_msg("%s", e.text);
    struct weight_loader l = {.weights = w};
    for (size_t i = 0; i < ARRAY_LEN(tensors); i++) {
        int64_t n = tensors[i].rows * tensors[i].columns;
        AUTO_FREE float *values = calloc((size_t)n, sizeof(float));
        const struct weights_entry *t = weights_find(w, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->rank, 2);
        assert_int_equal(t->dims[0], tensors[i].rows);
        assert_int_equal(t->dims[1], tensors[i].columns);
        assert_string_equal(t->stored, tensors[i].name + 2);
        assert_int_equal(weight_to_f32(&l, values, n, "%s", tensors[i].name), 0);
        for (int64_t k = 0; k < n; k++)
            assert_float_equal(values[k], expected[at + (size_t)k], 1e-6);
        at += (size_t)n;
    }
    assert_int_equal(at * sizeof(float), size);
    weights_close(w);
}

static void a_quantized_weight_serves_in_products(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = {0};
    size_t size;
    AUTO_FREE float *expected = (float *)contents(EXPECTED, &size);
    struct backend *b;
    assert_int_equal(cpu_backend_new(1, &b, &e), 0);
    assert_int_equal(weights_open(FILE_NAME, "", &w, &e), 0);
    struct weight_loader l = {.weights = w, .backend = b, .compute = DTYPE_F32};
    struct tensor *t = weight(&l, SHAPE(3, 64), "q.Q4_0");
    if (!t)
        fail_msg("%s", l.err.text);
    struct ops *o = ops_new(b, DTYPE_F32, 1 << 20, &e);
    float one[64] = {0}, y[3];
    one[5] = 1; /* picks column 5 */
    struct tensor *x = op_from_host(o, DTYPE_F32, SHAPE(1, 64), one);
    assert_int_equal(op_to_host(o, op_linear(o, x, t, NULL, ACT_NONE), y, sizeof y), 0);
    for (int i = 0; i < 3; i++)
        assert_float_equal(y[i], expected[3 * 64 + 64 * i + 5], 1e-6);
    ops_free(o);
    weight_loader_free(&l);
    weights_close(w);
    backend_free(b);
}

/* ---- blocks that stay blocks ---- */

/* x[items, rows, K] · wᵀ in memory of exactly the planned size; heap. */
static float *product(struct backend *b, enum dtype compute, const struct tensor *w, int64_t items,
                      int64_t rows)
{
    struct err e = {0};
    int64_t n = tensor_dim(w, 0), k = tensor_dim(w, 1);
    size_t x_count = (size_t)(items * rows * k), y_count = (size_t)(items * rows * n);
    AUTO_FREE float *x = malloc(x_count * sizeof(float));
    float *y = calloc(y_count, sizeof(float));
    det_input("x", x, x_count);
    struct ops *plan = ops_new_plan(b, compute, &e), *o = NULL;
    for (int run = 0; run < 2; run++) {
        struct ops *now = run ? o : plan;
        struct tensor *in = op_from_host(now, DTYPE_F32, SHAPE(items, rows, k), x);
        op_to_host(now, op_linear(now, in, w, NULL, ACT_SILU), y, y_count * sizeof(float));
        if (ops_error(now, &e))
            fail_msg("%s", e.text);
        if (!run)
            o = ops_new(b, compute, ops_peak(plan), &e);
    }
    assert_int_equal(ops_peak(plan), ops_peak(o));
    ops_free(plan);
    ops_free(o);
    return y;
}

static void every_block_format_multiplies_from_its_blocks(void **state)
{
    (void)state;
    struct weights *w;
    struct err e = {0};
    size_t size, at = 0;
    AUTO_FREE float *expected = (float *)contents(EXPECTED, &size);
    struct backend *b;
    assert_int_equal(cpu_backend_new(1, &b, &e), 0);
    assert_int_equal(weights_open(FILE_NAME, "", &w, &e), 0);
    for (size_t i = 0; i < 5; i++) {
        const struct weights_entry *t = weights_find(w, tensors[i].name);
        int64_t n = tensors[i].rows, k = tensors[i].columns;
        struct tensor *kept, *wide;
        assert_int_equal(tensor_weight_shape(b, DTYPE_F32, 2, t->dims, &kept, &e), 0);
        kept->blocks = (struct tensor_blocks){t->expand, 0, t->bytes / (size_t)n, true};
        assert_int_equal(b->ops->weight_prepare(b, kept, t->data, DTYPE_F32, &e), 0);
        assert_int_equal(b->ops->weight_bytes(kept), t->bytes);
        assert_int_equal(
            tensor_weight_new(b, DTYPE_F32, 2, t->dims, expected + at, DTYPE_F32, &wide, &e), 0);
        AUTO_FREE float *x = product(b, DTYPE_F32, kept, 1, 3);
        AUTO_FREE float *y = product(b, DTYPE_F32, wide, 1, 3);
        for (int64_t j = 0; j < 3 * n; j++)
            assert_float_equal(x[j], y[j], 1e-4);
        tensor_weight_free(kept);
        tensor_weight_free(wide);
        at += (size_t)(n * k);
    }
    weights_close(w);
    backend_free(b);
}

#define ROWS    2084 /* no multiple of the columns that are expanded at a time */
#define COLUMNS 2048

static void write_large(const char *path)
{
    struct tensors t = {0};
    struct named_tensor *big = tensors_add(&t, "big.weight", 2, (const int64_t[]){ROWS, COLUMNS});
    det_input("big", big->data, ROWS * COLUMNS);
    tensors_write(&t, STORED_Q8_0, path);
    tensors_free(&t);
}

/* Products of a loader's weight, again and again while it changes its form. */
static void check_forms(struct weights *w, struct backend *b, enum dtype compute)
{
    static const int64_t sizes[][2] = {{1, 1}, {1, 40}, {2, 70}};
    struct weight_loader l = {.weights = w, .backend = b, .compute = compute, .in_blocks = true};
    struct tensor *t = weight(&l, SHAPE(ROWS, COLUMNS), "big.weight");
    const struct weights_entry *entry = weights_find(w, "big.weight");
    struct err e = {0};
    assert_non_null(t);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        AUTO_FREE float *kept = NULL;
        for (int form = 0; form < 3; form++) {
            bool keeps = form != 1;
            assert_int_equal(weight_loader_keep_blocks(&l, keeps, &e), 0);
            assert_int_equal(weight_loader_wake(&l, &e), 0);
            assert_int_equal(weight_loader_bytes(&l, true),
                             keeps ? entry->bytes : ROWS * COLUMNS * dtype_size(compute));
            assert_true((t->data == entry->data) == keeps);
            float *y = product(b, compute, t, sizes[i][0], sizes[i][1]);
            if (form)
                assert_memory_equal(y, kept,
                                    (size_t)(sizes[i][0] * sizes[i][1] * ROWS) * sizeof(float));
            free(form ? y : NULL);
            kept = form ? kept : y;
        }
    }
    weight_loader_free(&l);
}

static void blocks_that_stay_give_the_bits_of_expanded_ones(void **state)
{
    (void)state;
    char folder[64], path[96];
    struct backend *b;
    struct weights *w;
    struct err e = {0};
    assert_non_null(mkdtemp(scratch_name(folder, "omni-gguf-XXXXXX")));
    snprintf(path, sizeof path, "%s/big.gguf", folder);
    write_large(path);
    assert_int_equal(weights_open(path, "", &w, &e), 0);
    assert_int_equal(cpu_backend_new(2, &b, &e), 0);
    check_forms(w, b, DTYPE_F32);
    check_forms(w, b, DTYPE_BF16);
    backend_free(b);
    weights_close(w);
    file_remove_tree(AT_FDCWD, folder);
}

static void every_truncation_is_an_error(void **state)
{
    (void)state;
    size_t size;
    AUTO_FREE char *file = contents(FILE_NAME, &size);
    for (size_t n = 0; n + 32 < size; n++) { /* the last bytes pad the last tensor */
        AUTO_FREE char *cut = malloc(n + 1);
        memcpy(cut, file, n);
        struct weights_file f;
        struct err e = {0};
        assert_true(gguf_parse("cut.gguf", cut, n, &f, &e) < 0);
        assert_true(e.text[0] != '\0');
    }
}

static void every_damaged_byte_of_the_header_is_survived(void **state)
{
    (void)state;
    size_t size;
    AUTO_FREE char *file = contents(FILE_NAME, &size);
    for (size_t i = 0; i < 1000; i++)
        for (int bit = 0; bit < 8; bit++) {
            struct weights_file f;
            struct err e = {0};
            file[i] ^= (char)(1 << bit);
            if (gguf_parse("odd.gguf", file, size, &f, &e) == 0)
                weights_file_close(&f);
            else
                assert_true(e.text[0] != '\0');
            file[i] ^= (char)(1 << bit);
        }
}

static void put(struct str *s, const void *bytes, size_t n)
{
    str_addn(s, bytes, n);
}

/* A file of one tensor "t" [256] of a type, with zeros for data. */
static void put_file(struct str *s, uint32_t type, size_t bytes)
{
    static const char zeros[512];
    uint64_t words[] = {1, 0, 1};
    put(s, "GGUF\3\0\0\0", 8);
    put(s, words, sizeof words);
    put(s, "t", 1);
    put(s, (uint32_t[]){1}, 4);
    put(s, (uint64_t[]){256}, 8);
    put(s, &type, 4);
    put(s, (uint64_t[]){0}, 8);
    put(s, zeros, (32 - s->len % 32) % 32);
    put(s, zeros, bytes);
}

static void types_that_cannot_be_computed_are_listed_and_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        size_t bytes;
        const char *name;
    } rows[] = {{20, 144, "IQ4_NL"}, {23, 136, "IQ4_XS"}, {39, 136, "MXFP4"}, {35, 66, "TQ2_0"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_STR struct str s = {0};
        char path[SCRATCH_SIZE];
        struct weights *w;
        struct err e = {0};
        put_file(&s, rows[i].type, rows[i].bytes);
        close(mkstemp(scratch_name(path, "omnifs-gguf-XXXXXX")));
        assert_int_equal(file_write_atomic(AT_FDCWD, path, s.data, s.len, NULL), 0);
        if (weights_open(path, "", &w, &e) != 0)
            fail_msg("%s", e.text);
        struct weight_loader l = {.weights = w};
        assert_string_equal(weights_find(w, "t")->stored, rows[i].name);
        assert_null(weight(&l, SHAPE(256), "t"));
        assert_int_equal(l.err.code, -ENOTSUP);
        assert_non_null(strstr(l.err.text, rows[i].name));
        assert_non_null(strstr(l.err.text, "Q2_K to Q6_K"));
        weights_close(w);
        unlink(path);
    }
}

static void a_type_of_no_version_is_refused_with_its_number(void **state)
{
    (void)state;
    AUTO_STR struct str s = {0};
    struct weights_file f;
    struct err e = {0};
    put_file(&s, 77, 256);
    assert_int_equal(gguf_parse("new.gguf", s.data, s.len, &f, &e), -ENOTSUP);
    assert_non_null(strstr(e.text, "type 77"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_format_expands_to_the_reference_values),
        cmocka_unit_test(a_quantized_weight_serves_in_products),
        cmocka_unit_test(every_block_format_multiplies_from_its_blocks),
        cmocka_unit_test(blocks_that_stay_give_the_bits_of_expanded_ones),
        cmocka_unit_test(types_that_cannot_be_computed_are_listed_and_refused_by_name),
        cmocka_unit_test(a_type_of_no_version_is_refused_with_its_number),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(every_damaged_byte_of_the_header_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
