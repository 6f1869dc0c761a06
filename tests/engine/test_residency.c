/* Weights are in memory as it allows: none before a request needs them, text encoders and the rest
 * by turns where both do not fit, and what is drawn is the same. Run from the repository root. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/det.h"
#include "../support/golden.h"
#include "../support/tensors.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/residency.h"

#define MODEL "models/omni-mini"

static struct omni_model *load(uint64_t memory, enum omni_precision precision)
{
    struct omni_load_options options = {.device = "cpu", .precision = precision, .memory = memory};
    struct omni_model *m = NULL;
    struct err e = {0};
    if (omni_model_load(MODEL, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    return m;
}

static struct omni_request request(const char *prompt)
{
    return (struct omni_request){.prompt = prompt,
                                 .width = 64,
                                 .height = 64,
                                 .frames = 1,
                                 .steps = 2,
                                 .guidance = 4,
                                 .seed = 3};
}

static struct picture draw(struct omni_model *m, const char *prompt)
{
    struct omni_request r = request(prompt);
    struct omni_result y;
    struct err e = {0};
    if (omni_generate(m, &r, 1, NULL, &y, NULL, &e) != 0)
        fail_msg("%s", e.text);
    return y.picture;
}

/* The least memory that the request can do with. */
static uint64_t least(enum omni_precision precision)
{
    struct omni_model *m = load(0, precision);
    struct omni_request r = request("a red apple");
    struct err e = {0};
    uint64_t planned;
    assert_int_equal(omni_plan(m, &r, 1, &planned, &e), 0);
    planned += omni_model_info(m)->least_weight_bytes;
    omni_model_free(m);
    return planned;
}

/* Bytes of the text encoders' weights, or of the rest, that have data at the moment. */
static uint64_t held(const struct omni_model *m, bool encoder)
{
    uint64_t sum = 0;
    for (int i = 0; i < m->checkpoint.part_count; i++)
        if (encoder == (strcmp(m->checkpoint.parts[i].name, "text_encoder") == 0))
            sum += weight_loader_bytes(&m->checkpoint.parts[i].loader, true);
    return sum;
}

static uint64_t all(const struct omni_model *m)
{
    return omni_model_info(m)->weight_bytes;
}

static void assert_same(struct picture a, struct picture b)
{
    assert_memory_equal(a.rgb, b.rgb, picture_frame_bytes(&a));
    picture_free(&a);
    picture_free(&b);
}

static void opening_a_model_takes_no_memory_for_weights(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32);
    struct omni_request r = request("a red apple");
    struct err e = {0};
    uint64_t planned;
    assert_true(all(m) > 1000000);
    assert_int_equal(omni_plan(m, &r, 1, &planned, &e), 0);
    assert_int_equal(omni_model_info(m)->resident_bytes, 0);
    assert_int_equal(held(m, true) + held(m, false), 0);
    struct picture p = draw(m, "a red apple");
    picture_free(&p);
    assert_int_equal(omni_model_info(m)->resident_bytes, all(m));
    assert_int_equal(held(m, true) + held(m, false), all(m));
    omni_model_free(m);
}

static void short_memory_draws_the_same_with_the_halves_by_turns(void **state)
{
    (void)state;
    for (int p = OMNI_FP32; p <= OMNI_BF16; p++) {
        struct omni_model *ample = load(0, (enum omni_precision)p);
        struct omni_model *scarce = load(least((enum omni_precision)p), (enum omni_precision)p);
        assert_same(draw(ample, "a red apple"), draw(scarce, "a red apple"));
        assert_int_equal(held(scarce, true), 0);
        assert_true(held(scarce, false) > 0);
        assert_int_equal(omni_model_info(scarce)->resident_bytes, held(scarce, false));
        assert_true(held(ample, true) > 0);
        assert_same(draw(ample, "a green star"), draw(scarce, "a green star"));
        assert_same(draw(ample, "a red apple"), draw(scarce, "a red apple"));
        assert_int_equal(held(scarce, true), 0);
        omni_model_free(ample);
        omni_model_free(scarce);
    }
}

static void work_that_fits_beside_no_weights_is_refused_before_any(void **state)
{
    (void)state;
    struct omni_model *m = load(least(OMNI_FP32) - 1, OMNI_FP32);
    struct omni_request r = request("a red apple");
    struct omni_result y;
    struct err e = {0};
    assert_int_equal(omni_generate(m, &r, 1, NULL, &y, NULL, &e), -ENOMEM);
    assert_non_null(strstr(e.text, "this request needs "));
    assert_int_equal(omni_model_info(m)->resident_bytes, 0);
    omni_model_free(m);
    m = load(least(OMNI_FP32), OMNI_FP32); /* one byte more */
    assert_int_equal(omni_generate(m, &r, 1, NULL, &y, NULL, &e), 0);
    picture_free(&y.picture);
    omni_model_free(m);
}

static void a_prompt_that_is_known_wakes_no_text_encoder(void **state)
{
    (void)state;
    struct omni_model *m = load(least(OMNI_FP32), OMNI_FP32);
    struct picture first = draw(m, "a red apple");
    assert_int_equal(held(m, true), 0);
    m->memory = 0; /* would let it wake and stay */
    assert_same(first, draw(m, "a red apple"));
    assert_int_equal(held(m, true), 0);
    omni_model_free(m);
}

/* ---- quantized matrices in their blocks ---- */

#define KLEIN "tests/engine/golden/klein-base"
#define WIDE  256
#define MLP   (33 * WIDE) /* so that the only block's matrices are too large to be packed */

static void add_matrix(struct tensors *s, const char *name, int64_t rows, int64_t columns)
{
    struct named_tensor *t = tensors_add(s, name, 2, (int64_t[]){rows, columns});
    det_weight(name, 2, t->dims, t->data);
}

/* A transformer that goes with the golden text encoder and autoencoder. */
static void write_wide_transformer(const char *path)
{
    static const char block[] = "single_transformer_blocks.0.attn.";
    static const struct {
        const char *name;
        int64_t rows, columns;
    } matrices[] = {
        {"x_embedder.weight", WIDE, 16},
        {"context_embedder.weight", WIDE, 144},
        {"time_guidance_embed.timestep_embedder.linear_1.weight", WIDE, 256},
        {"time_guidance_embed.timestep_embedder.linear_2.weight", WIDE, WIDE},
        {"double_stream_modulation_img.linear.weight", 6 * WIDE, WIDE},
        {"double_stream_modulation_txt.linear.weight", 6 * WIDE, WIDE},
        {"single_stream_modulation.linear.weight", 3 * WIDE, WIDE},
        {"norm_out.linear.weight", 2 * WIDE, WIDE},
        {"proj_out.weight", 16, WIDE},
        {"single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight", 3 * WIDE + 2 * MLP, WIDE},
        {"single_transformer_blocks.0.attn.to_out.weight", WIDE, WIDE + MLP},
    };
    static const char *const norms[] = {"norm_q.weight", "norm_k.weight"};
    struct tensors s = {0};
    for (size_t i = 0; i < ARRAY_LEN(matrices); i++)
        add_matrix(&s, matrices[i].name, matrices[i].rows, matrices[i].columns);
    for (size_t i = 0; i < ARRAY_LEN(norms); i++) {
        AUTO_STR struct str name = {0};
        str_addf(&name, "%s%s", block, norms[i]);
        struct named_tensor *t = tensors_add(&s, str_cstr(&name), 1, (int64_t[]){16});
        det_weight(str_cstr(&name), 1, t->dims, t->data);
    }
    tensors_write(&s, STORED_Q8_0, path);
    tensors_free(&s);
}

static struct omni_model *load_from(const char *path, uint64_t memory,
                                    enum omni_precision precision)
{
    struct omni_load_options options = {.device = "cpu", .precision = precision, .memory = memory};
    struct omni_model *m = NULL;
    struct err e = {0};
    if (omni_model_load(path, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    return m;
}

/* One byte less than all weights, expanded, and the work take. */
static uint64_t not_quite_all(const char *path, enum omni_precision precision)
{
    struct omni_model *m = load_from(path, 0, precision);
    struct omni_request r = request("a red apple");
    struct err e = {0};
    uint64_t planned;
    assert_int_equal(omni_plan(m, &r, 1, &planned, &e), 0);
    planned += all(m) - 1;
    omni_model_free(m);
    return planned;
}

static void a_model_in_blocks_draws_what_it_draws_expanded(void **state)
{
    char folder[64], path[96];
    (void)state;
    golden_build(KLEIN, "tests/engine/golden/tokenizer-qwen", folder);
    snprintf(path, sizeof path, "%s/klein-base.gguf", folder);
    write_wide_transformer(path);
    for (int p = OMNI_FP32; p <= OMNI_BF16; p++) {
        enum omni_precision precision = (enum omni_precision)p;
        struct omni_model *expanded = load_from(path, 0, precision);
        struct omni_model *scarce = load_from(path, not_quite_all(path, precision), precision);
        for (int i = 0; i < 2; i++) {
            const char *prompt = i ? "a green star" : "a red apple";
            assert_same(draw(expanded, prompt), draw(scarce, prompt));
            assert_false(omni_model_info(expanded)->in_blocks);
            assert_true(omni_model_info(scarce)->in_blocks);
            assert_true(held(scarce, false) < held(expanded, false));
        }
        omni_model_free(expanded);
        omni_model_free(scarce);
    }
    file_remove_tree(AT_FDCWD, folder);
}

static bool second_time(void *ctx)
{
    return ++*(int *)ctx > 1;
}

static void waking_that_is_cancelled_goes_on_next_time(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32), *other = load(0, OMNI_FP32);
    struct omni_request r = request("a red apple");
    struct omni_result y;
    struct err e = {0};
    int asked = 0;
    struct omni_callbacks cb = {.ctx = &asked, .cancelled = second_time};
    assert_int_equal(omni_generate(m, &r, 1, &cb, &y, NULL, &e), -ECANCELED);
    assert_true(omni_model_info(m)->resident_bytes < all(m));
    assert_same(draw(m, "a red apple"), draw(other, "a red apple"));
    omni_model_free(m);
    omni_model_free(other);
}

static void the_halves_are_together_all_weights(void **state)
{
    (void)state;
    struct omni_model *m = load(0, OMNI_FP32);
    struct picture p = draw(m, "a red apple");
    picture_free(&p);
    uint64_t encoder = held(m, true), rest = held(m, false);
    assert_true(encoder > 0 && rest > 0);
    assert_int_equal(encoder + rest, all(m));
    assert_int_equal(omni_model_info(m)->least_weight_bytes, encoder > rest ? encoder : rest);
    assert_true(residency_fits(m, UINT64_MAX / 2));
    m->memory = encoder + rest + 10;
    assert_true(residency_fits(m, 10));
    assert_false(residency_fits(m, 11));
    m->memory = (encoder > rest ? encoder : rest) + 10;
    assert_true(residency_fits_by_turns(m, 10));
    assert_false(residency_fits_by_turns(m, 11));
    omni_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_model_takes_no_memory_for_weights),
        cmocka_unit_test(short_memory_draws_the_same_with_the_halves_by_turns),
        cmocka_unit_test(work_that_fits_beside_no_weights_is_refused_before_any),
        cmocka_unit_test(a_model_in_blocks_draws_what_it_draws_expanded),
        cmocka_unit_test(a_prompt_that_is_known_wakes_no_text_encoder),
        cmocka_unit_test(waking_that_is_cancelled_goes_on_next_time),
        cmocka_unit_test(the_halves_are_together_all_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
