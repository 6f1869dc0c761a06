/* Checkpoint files: what is well-formed is read, what is not is refused with a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/weights.h"
#include "../support/scratch.h"

/* ---- a folder that lives as long as a test ---- */

static struct backend *backend;

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(scratch_name(folder, "omnifs-weights-XXXXXX")) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return file_remove_tree(AT_FDCWD, folder);
}

/* `folder`/name; good until the third next call. */
static const char *in_folder(const char *name)
{
    static char paths[3][160];
    static int turn;
    turn = (turn + 1) % 3;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

static void write_text(const char *name, const char *text)
{
    assert_int_equal(file_write_atomic(AT_FDCWD, in_folder(name), text, strlen(text), NULL), 0);
}

/* Header length, header, data. */
static void put(struct str *s, const char *header, const void *data, size_t size)
{
    uint64_t n = strlen(header);
    str_addn(s, &n, sizeof n);
    str_add(s, header);
    str_addn(s, data, size);
}

static void write_tensors(const char *name, const char *header, const void *data, size_t size)
{
    AUTO_STR struct str s = {0};
    put(&s, header, data, size);
    assert_int_equal(file_write_atomic(AT_FDCWD, in_folder(name), s.data, s.len, NULL), 0);
}

static struct weights *open_part(const char *path, const char *stem)
{
    struct weights *w = NULL;
    struct err e = {0};
    if (weights_open(path, stem, &w, &e))
        fail_msg("%s", e.text);
    return w;
}

static void assert_refused(const char *path, const char *stem, const char *part_of_message)
{
    struct weights *w = NULL;
    struct err e = {0};
    assert_true(weights_open(path, stem, &w, &e) < 0);
    if (!strstr(e.text, part_of_message))
        fail_msg("expected '%s' in: %s", part_of_message, e.text);
}

/* ---- well-formed files ---- */

static const float six[] = {1, -2, 0.5f, 0, 3.25f, 65504};

static void a_file_lists_its_tensors_by_name(void **state)
{
    (void)state;
    write_tensors("a.safetensors",
                  "{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                  "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[16,24]},"
                  "\"e\":{\"dtype\":\"BF16\",\"shape\":[3,0],\"data_offsets\":[24,24]}}   ",
                  six, 24);
    struct weights *w = open_part(in_folder("a.safetensors"), NULL);
    assert_int_equal(weights_count(w), 3);
    assert_string_equal(weights_at(w, 0)->name, "a");
    assert_string_equal(weights_at(w, 0)->stored, "I64");
    assert_false(weights_at(w, 0)->usable);
    assert_int_equal(weights_at(w, 0)->rank, 0);
    const struct weights_entry *b = weights_find(w, "b");
    assert_true(b->usable && b->dtype == DTYPE_F32 && b->rank == 2 && b->dims[1] == 2);
    assert_memory_equal(b->data, six, 16);
    assert_int_equal(weights_find(w, "e")->bytes, 0);
    assert_null(weights_find(w, "c"));
    assert_null(weights_at(w, 3));
    assert_int_equal(weights_parameters(w), 5);
    assert_int_equal(weights_bytes(w), 24);
    weights_close(w);
}

static void misaligned_data_serves_as_any_other(void **state)
{
    (void)state;
    char data[17] = {7};
    memcpy(data + 1, six, 16);
    for (int pad = 0; pad < 8; pad++) { /* the header's length decides where the data starts */
        char header[200];
        snprintf(header, sizeof header,
                 "{\"flag\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]},"
                 "\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[1,17]}}%*s",
                 pad, "");
        write_tensors("odd.safetensors", header, data, sizeof data);
        struct weight_loader l = {.weights = open_part(in_folder("odd.safetensors"), NULL),
                                  .backend = backend,
                                  .compute = DTYPE_F32};
        float values[4];
        struct tensor *t = weight_table(&l, 2, 2, "w"); /* which is read where it lies */
        assert_non_null(t);
        assert_int_equal((uintptr_t)t->data % 4, 0);
        assert_memory_equal(t->data, six, 16);
        assert_int_equal(weight_to_f32(&l, values, 4, "w"), 0);
        assert_memory_equal(values, six, 16);
        weight_loader_free(&l);
        weights_close(l.weights);
    }
}

static void the_shipped_checkpoint_is_read(void **state)
{
    (void)state;
    struct weights *w = open_part("models/omni-mini/transformer", "diffusion_pytorch_model");
    const struct weights_entry *t = weights_find(w, "x_embedder.weight");
    assert_non_null(t);
    assert_true(t->rank == 2 && t->dims[0] == 320 && t->dims[1] == 64);
    assert_true(weights_parameters(w) > 3 * 1000 * 1000);
    weights_close(w);
}

/* ---- which file of a folder ---- */

#define ONE_TENSOR(name) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"

static void a_folder_is_searched_for_the_stem_and_its_variants(void **state)
{
    (void)state;
    assert_refused(folder, "model", "no model.safetensors");
    static const char *const names[] = {"model.fp16.safetensors", "model.safetensors"};
    for (int i = 0; i < 2; i++) { /* full precision wins once it is there */
        write_tensors(names[i], i ? ONE_TENSOR("full") : ONE_TENSOR("half"), six, 4);
        struct weights *w = open_part(folder, "model");
        assert_string_equal(weights_path(w), in_folder(names[i]));
        assert_string_equal(weights_at(w, 0)->name, i ? "full" : "half");
        weights_close(w);
    }
}

static void shards_of_every_spelling_are_joined(void **state)
{
    (void)state;
    static const char *const sets[][3] = {
        {"m.safetensors.index.json", "m-00001-of-00002.safetensors",
         "m-00002-of-00002.safetensors"},
        {"m.safetensors.index.fp16.json", "m.fp16-00001-of-00002.safetensors",
         "m.fp16-00002-of-00002.safetensors"},
        {"m.safetensors.fp16.index.json", "m-00001-of-00002.fp16.safetensors",
         "m-00002-of-00002.fp16.safetensors"},
        {"m.fp16.safetensors.index.json", "m.fp16-00001-of-00002.safetensors",
         "m.fp16-00002-of-00002.safetensors"},
    };
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        char index[300];
        snprintf(index, sizeof index,
                 "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"y\":\"%s\",\"x\":\"%s\"}}",
                 sets[i][2], sets[i][1]);
        write_text(sets[i][0], index);
        write_tensors(sets[i][1], ONE_TENSOR("x"), six, 4);
        write_tensors(sets[i][2], ONE_TENSOR("y"), six + 1, 4);
        struct weights *w = open_part(folder, "m");
        assert_int_equal(weights_count(w), 2);
        assert_string_equal(weights_at(w, 0)->name, "x");
        assert_string_equal(weights_at(w, 1)->file, in_folder(sets[i][2]));
        assert_memory_equal(weights_at(w, 1)->data, six + 1, 4);
        weights_close(w);
        unlink(in_folder(sets[i][0]));
    }
}

static void faults_of_an_index_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *index, *message;
    } faults[] = {
        {"{}", "weight_map is missing"},
        {"{\"weight_map\":{}}", "weight_map is missing or empty"},
        {"{\"weight_map\":{\"x\":", "not valid JSON"},
        {"[1]", "weight_map is missing"},
        {"{\"weight_map\":{\"x\":3}}", "(not a text)"},
        {"{\"weight_map\":{\"x\":\"absent.safetensors\"}}", "absent.safetensors: No such file"},
        {"{\"weight_map\":{\"x\":\"one.safetensors\",\"z\":\"one.safetensors\"}}",
         "'z' should be in"},
        {"{\"weight_map\":{\"x\":\"../one.safetensors\"}}", "same folder"},
        {"{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "same folder"},
        {"{\"weight_map\":{\"x\":\"\"}}", "same folder"},
        {"{\"weight_map\":{\"x\":\"one.safetensors\",\"x\":\"one.safetensors\"}}", "duplicate"},
        {"{\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"two.safetensors\"}}", "is in both"},
        {"{\"weight_map\":{\"x\":\"three.safetensors\",\"y\":\"one.safetensors\"}}",
         "'x' should be in"},
    };
    write_tensors("one.safetensors", ONE_TENSOR("x"), six, 4);
    write_tensors("two.safetensors", ONE_TENSOR("x"), six, 4);
    write_tensors("three.safetensors", ONE_TENSOR("y"), six, 4);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        write_text("m.safetensors.index.json", faults[i].index);
        assert_refused(folder, "m", faults[i].message);
    }
}

/* ---- hostile headers ---- */

static void hostile_headers_are_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *header; /* over 8 bytes of data */
        const char *message;
    } faults[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", "not valid JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "duplicate"},
        {"{\"a\":3}", "dtype '(missing)'"},
        {"{\"a\":{\"dtype\":\"F3\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "dtype 'F3' is unknown"},
        {"{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "shape must be an array"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
         "at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2.0],\"data_offsets\":[0,8]}}", "shape[1]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}",
         "more elements than any file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,8]}}",
         "does not fill"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "does not fill its 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "must be [begin, end]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
         "must be [begin, end]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", "must be [begin"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "belong to no tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "leaves a hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "overlaps"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,99999999999999999999]}}",
         "not valid JSON"},
        {"[]", "no JSON object follows"},
    };
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        write_tensors("bad.safetensors", faults[i].header, six, 8);
        assert_refused(in_folder("bad.safetensors"), NULL, faults[i].message);
    }
}

static void wrong_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        const char *message;
    } faults[] = {
        {0, "no JSON object"},
        {1, "no JSON object"},
        {1000, "truncated"},
        {UINT64_C(100) << 20, "over the limit"},
        {UINT64_MAX, "over the limit"},
        {UINT64_MAX - 7, "over the limit"},
    };
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        char file[20];
        memcpy(file, &faults[i].length, 8);
        memcpy(file + 8, "{}          ", 12);
        assert_int_equal(file_write_atomic(AT_FDCWD, in_folder("l.safetensors"), file, 20, NULL),
                         0);
        assert_refused(in_folder("l.safetensors"), NULL, faults[i].message);
    }
    write_text("l.safetensors", "");
    assert_refused(in_folder("l.safetensors"), NULL, "is empty");
    write_text("l.safetensors", "123456789");
    assert_refused(in_folder("l.safetensors"), NULL, "too few");
    assert_refused(in_folder("gone.safetensors"), NULL, "No such file");
    assert_refused("/dev/null", NULL, "not a regular file");
}

static void every_truncation_of_a_file_is_refused(void **state)
{
    (void)state;
    AUTO_STR struct str s = {0};
    put(&s,
        "{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
        six, 12);
    for (size_t n = 0; n <= s.len; n++) {
        AUTO_FREE char *exact = malloc(n + 1); /* so that a sanitizer sees a read past n */
        memcpy(exact, s.data, n);
        struct weights_file t;
        struct err e = {0};
        int code = safetensors_parse("cut", exact, n, &t, &e);
        assert_int_equal(code, n == s.len ? 0 : -EINVAL);
        if (!code)
            weights_file_close(&t);
    }
}

/* ---- the loader ---- */

static void write_loader_file(void)
{
    static const uint16_t half[] = {0x3C00, 0xC000, 0x0001, 0x7BFF}; /* 1, -2, 2^-24, 65504 */
    static const uint16_t brain[] = {0x3F80, 0xC000, 0x0000, 0x477F};
    static const double wide[] = {0.1, -1e300};
    char data[4 * 4 + 8 + 8 + 16 + 8] = {0};
    memcpy(data, six, 16);
    memcpy(data + 16, half, 8);
    memcpy(data + 24, brain, 8);
    memcpy(data + 32, wide, 16);
    write_tensors("p.safetensors",
                  "{\"block.0.f32\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                  "\"block.0.f16\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[16,24]},"
                  "\"block.1.bf16\":{\"dtype\":\"BF16\",\"shape\":[4,1],\"data_offsets\":[24,32]},"
                  "\"f64\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[32,48]},"
                  "\"i64\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[48,56]}}",
                  data, sizeof data);
}

static struct weight_loader loader(const char *prefix)
{
    write_loader_file();
    return (struct weight_loader){.weights = open_part(in_folder("p.safetensors"), NULL),
                                  .backend = backend,
                                  .compute = DTYPE_F32,
                                  .prefix = prefix};
}

static void finish(struct weight_loader *l)
{
    weight_loader_free(l);
    weights_close(l->weights);
}

static void weights_come_by_prefix_and_formatted_name(void **state)
{
    (void)state;
    struct weight_loader l = loader("block.");
    struct tensor *a = weight(&l, SHAPE(2, 2), "%d.f32", 0);
    struct tensor *b = weight(&l, SHAPE(4, 1), "%d.%s", 1, "bf16");
    assert_null(weight_optional(&l, SHAPE(9), "%d.bias", 0));
    assert_int_equal(l.err.code, 0);
    assert_int_equal(tensor_dtype(a), DTYPE_F32);
    assert_int_equal(tensor_dtype(b), DTYPE_BF16);
    assert_int_equal(tensor_dim(b, 0), 4);
    assert_int_equal(l.parameters, 8);
    assert_int_equal(l.count, 2);
    const char *unused[8];
    assert_int_equal(weights_unused(l.weights, unused, 8), 3);
    assert_string_equal(unused[0], "block.0.f16");
    assert_int_equal(weights_unused(l.weights, NULL, 0), 3);
    finish(&l);
}

static void a_missing_or_misshapen_weight_sticks_with_a_sentence(void **state)
{
    (void)state;
    struct weight_loader l = loader(NULL);
    assert_null(weight(&l, SHAPE(2, 3), "block.0.f32"));
    assert_int_equal(l.err.code, -EINVAL);
    assert_non_null(strstr(l.err.text, "'block.0.f32' has shape [2, 2], expected [2, 3]"));
    assert_null(weight(&l, SHAPE(4), "block.0.f16")); /* nothing more once it failed */
    float x[4];
    assert_int_equal(weight_to_f32(&l, x, 4, "block.0.f16"), -EINVAL);
    assert_non_null(strstr(l.err.text, "[2, 3]"));
    l.err = (struct err){0};
    assert_null(weight(&l, SHAPE(7), "block.%d.none", 3));
    assert_int_equal(l.err.code, -ENOENT);
    assert_non_null(strstr(l.err.text, "'block.3.none' is missing, expected with shape [7]"));
    assert_non_null(strstr(l.err.text, "p.safetensors"));
    l.err = (struct err){0};
    assert_null(weight(&l, SHAPE(4, 1), "block.0.f16")); /* another rank is another shape */
    assert_int_equal(l.err.code, -EINVAL);
    l.err = (struct err){0};
    assert_null(weight(&l, SHAPE(1), "i64"));
    assert_non_null(strstr(l.err.text, "stored as I64, which is not supported"));
    l.err = (struct err){0};
    assert_null(weight(&l, SHAPE(1), "%0300d", 1));
    assert_non_null(strstr(l.err.text, "name"));
    finish(&l);
}

static void every_float_type_converts_to_fp32(void **state)
{
    (void)state;
    struct weight_loader l = loader(NULL);
    static const float half[] = {1, -2, 0x1p-24f, 65504}, brain[] = {1, -2, 0, 65280};
    float x[4];
    assert_int_equal(weight_to_f32(&l, x, 4, "block.0.f32"), 0);
    assert_memory_equal(x, six, 16);
    assert_int_equal(weight_to_f32(&l, x, 4, "block.0.f16"), 0);
    assert_memory_equal(x, half, 16);
    assert_int_equal(weight_to_f32(&l, x, 4, "block.1.bf16"), 0);
    assert_memory_equal(x, brain, 16);
    assert_int_equal(weight_to_f32(&l, x, 2, "f64"), 0);
    assert_true(x[0] == 0.1f);
    assert_int_equal(weight_to_f32(&l, x, 1, "i64"), -ENOTSUP);
    l.err = (struct err){0};
    assert_int_equal(weight_to_f32(&l, x, 3, "f64"), -EINVAL);
    assert_non_null(strstr(l.err.text, "has 2 values, expected 3"));
    l.err = (struct err){0};
    assert_int_equal(weight_to_f32(&l, x, 3, "g64"), -ENOENT);
    finish(&l);
}

static void a_plan_sees_shapes_but_no_data(void **state)
{
    (void)state;
    struct weight_loader l = loader(NULL);
    l.shapes_only = true;
    struct tensor *t = weight(&l, SHAPE(2, 2), "block.0.f32");
    assert_non_null(t);
    assert_null(t->data);
    float x[4] = {9, 9, 9, 9};
    assert_int_equal(weight_to_f32(&l, x, 4, "block.0.f16"), 0);
    assert_true(x[0] == 0 && x[3] == 0);
    assert_int_equal(l.parameters, 8);
    finish(&l);
}

static int make_backend(void **state)
{
    (void)state;
    return cpu_backend_new(1, &backend, NULL);
}

static int drop_backend(void **state)
{
    (void)state;
    backend_free(backend);
    return 0;
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_lists_its_tensors_by_name),
        IN_FOLDER(misaligned_data_serves_as_any_other),
        cmocka_unit_test(the_shipped_checkpoint_is_read),
        IN_FOLDER(a_folder_is_searched_for_the_stem_and_its_variants),
        IN_FOLDER(shards_of_every_spelling_are_joined),
        IN_FOLDER(faults_of_an_index_are_named),
        IN_FOLDER(hostile_headers_are_refused_with_the_reason),
        IN_FOLDER(wrong_lengths_are_refused),
        cmocka_unit_test(every_truncation_of_a_file_is_refused),
        IN_FOLDER(weights_come_by_prefix_and_formatted_name),
        IN_FOLDER(a_missing_or_misshapen_weight_sticks_with_a_sentence),
        IN_FOLDER(every_float_type_converts_to_fp32),
        IN_FOLDER(a_plan_sees_shapes_but_no_data),
    };
    return cmocka_run_group_tests(tests, make_backend, drop_backend);
}
