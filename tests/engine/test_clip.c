/* CLIP's text model against known answers of transformers' class. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "../support/known.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "engine/text/clip.h"

enum { WIDTH = 32, MLP = 37, LAYERS = 3, VOCABULARY = 100, POSITIONS = 77, PROJECTION = 24 };
enum { TOKENS = 12 };

static const int32_t ids[TOKENS] = {98, 5, 17, 42, 0, 63, 17, 88, 99, 0, 0, 0};

static void add_pair(struct det_part *p, int rank, const int64_t *dims, const char *prefix,
                     const char *name)
{
    det_part_add(p, rank, dims, "%s%s.weight", prefix, name);
    det_part_add(p, 1, dims, "%s%s.bias", prefix, name);
}

static struct det_part *clip_part(const char *prefix)
{
    static const char *const square[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    struct det_part *p = det_part_new();
    det_part_add(p, SHAPE(VOCABULARY, WIDTH), "%sembeddings.token_embedding.weight", prefix);
    det_part_add(p, SHAPE(POSITIONS, WIDTH), "%sembeddings.position_embedding.weight", prefix);
    for (int i = 0; i < LAYERS; i++) {
        AUTO_STR struct str at = {0};
        str_addf(&at, "%sencoder.layers.%d.", prefix, i);
        add_pair(p, SHAPE(WIDTH), at.data, "layer_norm1");
        add_pair(p, SHAPE(WIDTH), at.data, "layer_norm2");
        add_pair(p, SHAPE(MLP, WIDTH), at.data, "mlp.fc1");
        add_pair(p, SHAPE(WIDTH, MLP), at.data, "mlp.fc2");
        str_add(&at, "self_attn.");
        for (size_t k = 0; k < ARRAY_LEN(square); k++)
            add_pair(p, SHAPE(WIDTH, WIDTH), at.data, square[k]);
    }
    add_pair(p, SHAPE(WIDTH), prefix, "final_layer_norm");
    det_part_add(p, SHAPE(PROJECTION, WIDTH), "text_projection.weight");
    return p;
}

static void clip_open(struct bench *b, struct clip_text **c, const char *prefix, const char *act,
                      int end)
{
    struct err e = {0};
    AUTO_STR struct str config = {0};
    str_addf(&config,
             "{\"architectures\": [\"CLIPTextModelWithProjection\"], \"hidden_size\": %d, "
             "\"intermediate_size\": %d, \"num_attention_heads\": 4, \"num_hidden_layers\": %d, "
             "\"vocab_size\": %d, \"projection_dim\": %d, \"hidden_act\": \"%s\", "
             "\"eos_token_id\": %d}",
             WIDTH, MLP, LAYERS, VOCABULARY, PROJECTION, act, end);
    bench_open(b, clip_part(prefix), "model", config.data);
    if (clip_text_load(&b->part, c, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(weights_unused(b->part.weights, NULL, 0), 0);
    assert_int_equal(clip_text_positions(*c), POSITIONS);
    assert_int_equal(clip_text_projection(*c), PROJECTION);
}

struct answers {
    struct expected penultimate, last, projected;
};

static const struct answers quick_gelu = {
    {384,
     -0.052329,
     1.699985,
     {0.542266f, -0.932294f, 0.021749f, -2.336116f, 3.396521f},
     {-3.005009f, -1.420398f, 1.810283f}},
    {384,
     -0.006503,
     0.981190,
     {0.166112f, 0.212409f, 0.490118f, -0.058286f, 1.404768f},
     {-1.634790f, -1.104027f, 1.441777f}},
    {24,
     0.306029,
     0.767909,
     {0.244038f, 0.587942f, 1.145002f, 0.245447f, -0.030277f},
     {0.585189f, -0.899776f, 1.005075f}}};
static const struct answers gelu = {{384,
                                     -0.051646,
                                     1.703713,
                                     {0.541081f, -0.933517f, 0.029093f, -2.344218f, 3.418234f},
                                     {-2.993790f, -1.438611f, 1.826632f}},
                                    {384,
                                     -0.006533,
                                     0.981318,
                                     {0.166962f, 0.212222f, 0.495561f, -0.054901f, 1.407090f},
                                     {-1.620435f, -1.107857f, 1.440502f}},
                                    {24,
                                     0.305016,
                                     0.768437,
                                     {0.255806f, 0.592212f, 1.134421f, 0.239779f, -0.032508f},
                                     {0.573101f, -0.904992f, 1.002093f}}};

static void check_case(const char *act, int end, const struct answers *a)
{
    struct bench b;
    struct clip_text *c;
    struct clip_states s;
    clip_open(&b, &c, "text_model.", act, end);
    clip_text_encode(c, b.o, ids, TOKENS, CLIP_PENULTIMATE | CLIP_LAST | CLIP_POOLED, &s);
    check(&b, s.penultimate, &a->penultimate);
    check(&b, s.last, &a->last);
    check(&b, s.pooled, &a->projected);
    clip_text_free(c);
    bench_close(&b);
}

static void quick_gelu_gives_the_known_states(void **state)
{
    (void)state;
    check_case("quick_gelu", 99, &quick_gelu);
}

static void gelu_gives_the_known_states(void **state)
{
    (void)state;
    check_case("gelu", 99, &gelu);
}

static void old_configs_with_a_wrong_end_token_pool_the_largest_id(void **state)
{
    (void)state;
    check_case("quick_gelu", 2, &quick_gelu);
}

static void penultimate_alone_is_the_same_without_the_last_layer(void **state)
{
    (void)state;
    struct bench b;
    struct clip_text *c;
    struct clip_states s;
    clip_open(&b, &c, "text_model.", "gelu", 99);
    clip_text_encode(c, b.o, ids, TOKENS, CLIP_PENULTIMATE, &s);
    check(&b, s.penultimate, &gelu.penultimate);
    assert_null(s.last);
    assert_null(s.pooled);
    clip_text_free(c);
    bench_close(&b);
}

static void names_without_prefix_are_read(void **state)
{
    (void)state;
    struct bench b;
    struct clip_text *c;
    clip_open(&b, &c, "", "gelu", 99);
    clip_text_free(c);
    bench_close(&b);
}

static void unknown_activation_is_named(void **state)
{
    (void)state;
    struct bench b;
    struct clip_text *c = NULL;
    struct err e = {0};
    bench_open(&b, clip_part(""), "model", "{\"hidden_act\": \"mish\"}");
    assert_int_not_equal(clip_text_load(&b.part, &c, &e), 0);
    assert_non_null(strstr(e.text, "mish"));
    assert_null(c);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quick_gelu_gives_the_known_states),
        cmocka_unit_test(gelu_gives_the_known_states),
        cmocka_unit_test(old_configs_with_a_wrong_end_token_pool_the_largest_id),
        cmocka_unit_test(penultimate_alone_is_the_same_without_the_last_layer),
        cmocka_unit_test(names_without_prefix_are_read),
        cmocka_unit_test(unknown_activation_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
