/* Known answers of the model parts. Weights and inputs follow from names (tests/support/det.h); the
 * expected numbers were computed by huggingface's own classes on the CPU in fp32. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/known.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/backend.h"
#include "engine/models/flux2_transformer.h"
#include "engine/text/qwen3.h"
#include "engine/vae/vae.h"

/* ---- FLUX.2 transformer ---- */

enum { F_D = 32, F_M = 96, F_HEAD = 16, F_TEXT = 16, F_CHANNELS = 4 };

static void flux2_add_double(struct det_part *p, int i)
{
    static const char *const square[] = {"to_q",       "to_k",       "to_v",       "to_out.0",
                                         "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"};
    static const char *const norm[] = {"norm_q", "norm_k", "norm_added_q", "norm_added_k"};
    static const char *const ff[] = {"ff", "ff_context"};
    for (size_t k = 0; k < ARRAY_LEN(square); k++)
        det_part_add(p, SHAPE(F_D, F_D), "transformer_blocks.%d.attn.%s.weight", i, square[k]);
    for (size_t k = 0; k < ARRAY_LEN(norm); k++)
        det_part_add(p, SHAPE(F_HEAD), "transformer_blocks.%d.attn.%s.weight", i, norm[k]);
    for (size_t k = 0; k < ARRAY_LEN(ff); k++) {
        det_part_add(p, SHAPE(2 * F_M, F_D), "transformer_blocks.%d.%s.linear_in.weight", i, ff[k]);
        det_part_add(p, SHAPE(F_D, F_M), "transformer_blocks.%d.%s.linear_out.weight", i, ff[k]);
    }
}

static void flux2_add_single(struct det_part *p, int i)
{
    det_part_add(p, SHAPE(3 * F_D + 2 * F_M, F_D),
                 "single_transformer_blocks.%d.attn.to_qkv_mlp_proj.weight", i);
    det_part_add(p, SHAPE(F_D, F_D + F_M), "single_transformer_blocks.%d.attn.to_out.weight", i);
    det_part_add(p, SHAPE(F_HEAD), "single_transformer_blocks.%d.attn.norm_q.weight", i);
    det_part_add(p, SHAPE(F_HEAD), "single_transformer_blocks.%d.attn.norm_k.weight", i);
}

static struct det_part *flux2_part(void)
{
    struct det_part *p = det_part_new();
    det_part_add(p, SHAPE(F_D, F_CHANNELS), "x_embedder.weight");
    det_part_add(p, SHAPE(F_D, F_TEXT), "context_embedder.weight");
    det_part_add(p, SHAPE(F_D, 256), "time_guidance_embed.timestep_embedder.linear_1.weight");
    det_part_add(p, SHAPE(F_D, F_D), "time_guidance_embed.timestep_embedder.linear_2.weight");
    det_part_add(p, SHAPE(6 * F_D, F_D), "double_stream_modulation_img.linear.weight");
    det_part_add(p, SHAPE(6 * F_D, F_D), "double_stream_modulation_txt.linear.weight");
    det_part_add(p, SHAPE(3 * F_D, F_D), "single_stream_modulation.linear.weight");
    det_part_add(p, SHAPE(2 * F_D, F_D), "norm_out.linear.weight");
    det_part_add(p, SHAPE(F_CHANNELS, F_D), "proj_out.weight");
    for (int i = 0; i < 2; i++) {
        flux2_add_double(p, i);
        flux2_add_single(p, i);
    }
    return p;
}

static const char flux2_config[] =
    "{\"_class_name\": \"Flux2Transformer2DModel\", \"patch_size\": 1, \"in_channels\": 4, "
    "\"num_layers\": 2, \"num_single_layers\": 2, \"attention_head_dim\": 16, "
    "\"num_attention_heads\": 2, \"joint_attention_dim\": 16, \"timestep_guidance_channels\": 256, "
    "\"axes_dims_rope\": [4, 4, 4, 4], \"guidance_embeds\": false}";

/* (time, row, column, text index) of a grid of tokens. */
static float *grid(float *p, int time, int h, int w)
{
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, p += FLUX2_AXES)
            memcpy(p, (float[FLUX2_AXES]){(float)time, (float)y, (float)x, 0},
                   FLUX2_AXES * sizeof(*p));
    return p;
}

static void flux2_case(bool reference, const struct expected *e)
{
    struct bench b;
    struct err err = {0};
    struct flux2_transformer *t;
    bench_open(&b, flux2_part(), "diffusion_pytorch_model", flux2_config);
    if (flux2_transformer_load(&b.part, &t, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(weights_unused(b.part.weights, NULL, 0), 0);
    float positions[(6 + 20 + 4) * FLUX2_AXES] = {0};
    for (int i = 0; i < 6; i++)
        positions[i * FLUX2_AXES + 3] = (float)i;
    grid(grid(positions + 6 * FLUX2_AXES, 0, 4, 5), 10, 2, 2);
    int tokens = reference ? 24 : 20;
    struct tensor *cos, *sin;
    flux2_transformer_tables(t, b.o, positions, 6 + tokens, &cos, &sin);
    const struct tensor *parts[2] = {input(&b, "in.img", SHAPE(1, 20, 4)),
                                     input(&b, "in.ref", SHAPE(1, 4, 4))};
    struct tensor *image = op_concat(b.o, parts, reference ? 2 : 1, 1);
    struct tensor *text = flux2_transformer_text(t, b.o, input(&b, "in.txt", SHAPE(1, 6, 16)));
    check(&b, flux2_transformer_forward(t, b.o, image, text, cos, sin, 700, tokens), e);
    flux2_transformer_free(t);
    bench_close(&b);
}

static void flux2_transformer_gives_the_known_answer(void **state)
{
    (void)state;
    flux2_case(false, &(struct expected){80,
                                         0.116840,
                                         0.886822,
                                         {-1.122149f, 0.498258f, -1.132323f, 0.340479f, 0.637781f},
                                         {-0.683311f, -1.828555f, -0.260273f}});
}

static void flux2_transformer_reads_reference_tokens(void **state)
{
    (void)state;
    flux2_case(true, &(struct expected){96,
                                        0.117746,
                                        0.865997,
                                        {-1.070640f, 0.413544f, -1.164038f, 0.425143f, 0.616954f},
                                        {-0.109951f, -1.068156f, -0.326880f}});
}

static void flux2_transformer_with_a_wrong_shape_names_the_tensor(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct flux2_transformer *t = NULL;
    AUTO_STR struct str wide = {0};
    str_addf(&wide, "%s", flux2_config);
    memcpy(strstr(wide.data, "\"in_channels\": 4"), "\"in_channels\": 8", 16);
    bench_open(&b, flux2_part(), "diffusion_pytorch_model", wide.data);
    assert_int_equal(flux2_transformer_load(&b.part, &t, &err), -EINVAL);
    assert_non_null(strstr(err.text, "x_embedder.weight"));
    bench_close(&b);
}

/* ---- AutoencoderTiny ---- */

static void tiny_add_block(struct det_part *p, const char *half, int slot)
{
    for (int i = 0; i < 3; i++) {
        det_part_add(p, SHAPE(8, 8, 3, 3), "%s.layers.%d.conv.%d.weight", half, slot, 2 * i);
        det_part_add(p, SHAPE(8), "%s.layers.%d.conv.%d.bias", half, slot, 2 * i);
    }
}

static void tiny_add_conv(struct det_part *p, const char *half, int slot, int in, int out,
                          bool bias)
{
    det_part_add(p, SHAPE(out, in, 3, 3), "%s.layers.%d.weight", half, slot);
    if (bias)
        det_part_add(p, SHAPE(out), "%s.layers.%d.bias", half, slot);
}

/* Widths 8, 8; encoder blocks 1, 2; decoder blocks 2, 1; latent 4. */
static struct det_part *tiny_part(void)
{
    struct det_part *p = det_part_new();
    tiny_add_conv(p, "encoder", 0, 3, 8, true);
    tiny_add_block(p, "encoder", 1);
    tiny_add_conv(p, "encoder", 2, 8, 8, false);
    tiny_add_block(p, "encoder", 3);
    tiny_add_block(p, "encoder", 4);
    tiny_add_conv(p, "encoder", 5, 8, 4, true);
    tiny_add_conv(p, "decoder", 0, 4, 8, true);
    tiny_add_block(p, "decoder", 2);
    tiny_add_block(p, "decoder", 3);
    tiny_add_conv(p, "decoder", 5, 8, 8, false);
    tiny_add_block(p, "decoder", 6);
    tiny_add_conv(p, "decoder", 7, 8, 3, true);
    return p;
}

static const char tiny_config[] =
    "{\"_class_name\": \"AutoencoderTiny\", \"encoder_block_out_channels\": [8, 8], "
    "\"decoder_block_out_channels\": [8, 8], \"num_encoder_blocks\": [1, 2], "
    "\"num_decoder_blocks\": [2, 1], \"latent_channels\": 4}";

static void autoencoder_tiny_encodes_the_known_answer(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct vae v;
    bench_open(&b, tiny_part(), "diffusion_pytorch_model", tiny_config);
    if (vae_load(&b.part, &v, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(v.factor, 2);
    assert_int_equal(v.channels, 4);
    assert_int_equal(weights_unused(b.part.weights, NULL, 0), 0);
    struct tensor *image = op_permute(b.o, input(&b, "in.image", SHAPE(1, 3, 16, 24)), to_last);
    check(&b, op_permute(b.o, vae_encode(&v, b.o, image), to_first),
          &(struct expected){384,
                             -0.047471,
                             0.242659,
                             {-0.100498f, -0.273760f, 0.087303f, -0.342173f, -0.437267f},
                             {0.094950f, 0.089242f, 0.074220f}});
    vae_free(&v);
    bench_close(&b);
}

static void autoencoder_tiny_decodes_the_known_answer(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct vae v;
    bench_open(&b, tiny_part(), "diffusion_pytorch_model", tiny_config);
    if (vae_load(&b.part, &v, &err) != 0)
        fail_msg("%s", err.text);
    struct tensor *z = op_permute(b.o, input(&b, "in.z", SHAPE(1, 4, 8, 12)), to_last);
    check(&b, op_permute(b.o, vae_decode(&v, b.o, z), to_first),
          &(struct expected){1152,
                             1.566965,
                             1.690387,
                             {-0.368298f, -0.580084f, -0.517101f, -0.340955f, -0.123717f},
                             {-0.847058f, -0.570293f, -1.291241f}});
    vae_free(&v);
    bench_close(&b);
}

static void unknown_autoencoder_class_is_named(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct vae v;
    bench_open(&b, tiny_part(), "diffusion_pytorch_model",
               "{\"_class_name\": \"AutoencoderHuge\"}");
    assert_int_equal(vae_load(&b.part, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "AutoencoderHuge"));
    bench_close(&b);
}

/* ---- Qwen3 ---- */

static struct det_part *qwen3_part(const char *prefix)
{
    static const struct {
        const char *name;
        int rank;
        int64_t dims[2];
    } layer[] = {
        {"input_layernorm", 1, {48}},      {"post_attention_layernorm", 1, {48}},
        {"self_attn.q_proj", 2, {96, 48}}, {"self_attn.k_proj", 2, {32, 48}},
        {"self_attn.v_proj", 2, {32, 48}}, {"self_attn.o_proj", 2, {48, 96}},
        {"self_attn.q_norm", 1, {16}},     {"self_attn.k_norm", 1, {16}},
        {"mlp.gate_proj", 2, {80, 48}},    {"mlp.up_proj", 2, {80, 48}},
        {"mlp.down_proj", 2, {48, 80}},
    };
    struct det_part *p = det_part_new();
    det_part_add(p, SHAPE(300, 48), "%sembed_tokens.weight", prefix);
    det_part_add(p, SHAPE(48), "%snorm.weight", prefix);
    for (int i = 0; i < 4; i++)
        for (size_t k = 0; k < ARRAY_LEN(layer); k++)
            det_part_add(p, layer[k].rank, layer[k].dims, "%slayers.%d.%s.weight", prefix, i,
                         layer[k].name);
    return p;
}

static const char qwen3_config[] =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"hidden_size\": 48, \"num_attention_heads\": 6, "
    "\"num_key_value_heads\": 2, \"head_dim\": 16, \"intermediate_size\": 80, "
    "\"num_hidden_layers\": 4, \"vocab_size\": 300, \"rms_norm_eps\": 1e-6, "
    "\"rope_parameters\": {\"rope_theta\": 1000000.0, \"rope_type\": \"default\"}}";

static const int32_t qwen3_ids[14] = {5, 17, 299, 42, 0, 133, 17, 88, 250, 7, 61, 7, 7, 7};
static const int32_t qwen3_mask[14] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0};

static void qwen3_case(int layer, const struct expected *e)
{
    struct bench b;
    struct err err = {0};
    struct qwen3 *q;
    struct qwen3_taken taken = {.count = 1, .layer = {layer}};
    bench_open(&b, qwen3_part("model."), "model", qwen3_config);
    if (qwen3_load(&b.part, &taken, &q, &err) != 0)
        fail_msg("%s", err.text);
    check(&b, qwen3_encode(q, b.o, qwen3_ids, qwen3_mask, 14), e);
    qwen3_free(q);
    bench_close(&b);
}

static const struct expected qwen3_second = {
    672,
    0.239372,
    1.334444,
    {-0.894486f, 0.151930f, -3.656818f, 2.277069f, 0.792032f},
    {0.913352f, 0.737728f, -0.623480f}};
static const struct expected qwen3_third = {
    672,
    0.359460,
    1.820474,
    {-1.644538f, -0.610106f, -6.011888f, 3.239857f, 0.551901f},
    {0.998710f, 1.615720f, -0.576185f}};
static const struct expected qwen3_last = {
    672,
    0.184314,
    0.976706,
    {-0.393540f, -0.691817f, -2.368141f, 0.907204f, 0.416041f},
    {0.745611f, 0.814335f, -0.386799f}};

static void qwen3_gives_an_inner_hidden_state(void **state)
{
    (void)state;
    qwen3_case(2, &qwen3_second);
}

static void qwen3_counts_hidden_states_from_the_end(void **state)
{
    (void)state;
    qwen3_case(-2, &qwen3_third);
}

static void qwen3_normalises_the_last_hidden_state(void **state)
{
    (void)state;
    qwen3_case(4, &qwen3_last);
}

static void qwen3_joins_hidden_states_token_by_token(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct qwen3 *q;
    struct qwen3_taken taken = {.count = 2, .layer = {3, 2}};
    bench_open(&b, qwen3_part("model."), "model", qwen3_config);
    assert_int_equal(qwen3_load(&b.part, &taken, &q, &err), 0);
    struct tensor *both = qwen3_encode(q, b.o, qwen3_ids, qwen3_mask, 14);
    assert_int_equal(tensor_dim(both, 2), 96);
    check(&b, op_slice(b.o, both, 2, 0, 48), &qwen3_third);
    check(&b, op_slice(b.o, both, 2, 48, 48), &qwen3_second);
    qwen3_free(q);
    bench_close(&b);
}

static void qwen3_loads_names_without_prefix_and_only_needed_layers(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct qwen3 *q;
    struct qwen3_taken taken = {.count = 1, .layer = {2}};
    bench_open(&b, qwen3_part(""), "model", qwen3_config);
    assert_int_equal(qwen3_load(&b.part, &taken, &q, &err), 0);
    assert_int_equal(weights_unused(b.part.weights, NULL, 0), 2 * 11 + 1);
    qwen3_free(q);
    bench_close(&b);
}

static void qwen3_refuses_a_hidden_state_that_is_not_there(void **state)
{
    (void)state;
    struct bench b;
    struct err err = {0};
    struct qwen3 *q;
    struct qwen3_taken taken = {.count = 1, .layer = {9}};
    bench_open(&b, qwen3_part("model."), "model", qwen3_config);
    assert_int_equal(qwen3_load(&b.part, &taken, &q, &err), -EINVAL);
    assert_non_null(strstr(err.text, "hidden state 9"));
    bench_close(&b);
}

static void qwen3_options_that_would_change_the_numbers_are_refused_by_name(void **state)
{
    static const char *const cases[][2] = {
        {"\"hidden_act\": \"gelu\"", "hidden_act"},
        {"\"use_sliding_window\": true", "use_sliding_window"},
        {"\"layer_types\": [\"full_attention\", \"sliding_attention\"]", "sliding_attention"},
        {"\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}", "yarn"},
        {"\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 4.0}", "dynamic"},
        {"\"attention_bias\": true", "self_attn.q_proj.bias"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct bench b;
        struct err err = {0};
        struct qwen3 *q;
        struct qwen3_taken taken = {.count = 1, .layer = {2}};
        AUTO_STR struct str config = {0};
        str_addf(&config, "%.*s, %s}", (int)strlen(qwen3_config) - 1, qwen3_config, cases[i][0]);
        bench_open(&b, qwen3_part("model."), "model", config.data);
        assert_true(qwen3_load(&b.part, &taken, &q, &err) < 0);
        if (!strstr(err.text, cases[i][1]))
            fail_msg("'%s' is not named: %s", cases[i][1], err.text);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flux2_transformer_gives_the_known_answer),
        cmocka_unit_test(flux2_transformer_reads_reference_tokens),
        cmocka_unit_test(flux2_transformer_with_a_wrong_shape_names_the_tensor),
        cmocka_unit_test(autoencoder_tiny_encodes_the_known_answer),
        cmocka_unit_test(autoencoder_tiny_decodes_the_known_answer),
        cmocka_unit_test(unknown_autoencoder_class_is_named),
        cmocka_unit_test(qwen3_gives_an_inner_hidden_state),
        cmocka_unit_test(qwen3_counts_hidden_states_from_the_end),
        cmocka_unit_test(qwen3_normalises_the_last_hidden_state),
        cmocka_unit_test(qwen3_joins_hidden_states_token_by_token),
        cmocka_unit_test(qwen3_loads_names_without_prefix_and_only_needed_layers),
        cmocka_unit_test(qwen3_refuses_a_hidden_state_that_is_not_there),
        cmocka_unit_test(qwen3_options_that_would_change_the_numbers_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
