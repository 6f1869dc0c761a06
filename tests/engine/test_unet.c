/* UNet2DConditionModel against known answers of diffusers' class. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../support/kl_part.h"
#include "../support/known.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "engine/models/unet.h"
#include "engine/random.h"
#include "engine/schedule/schedule.h"
#include "engine/vae/vae.h"

/* ---- generated weights ---- */

/* A UNet of two levels, 8 and 16 wide. */
struct shape {
    int layers;
    int transformers[2]; /* blocks of attention of each level; 0: it does not attend */
    int text, added;     /* widths; added 0: none */
    bool linear;         /* projections are matrices */
};

enum { TIME = 32 };
static const int width[2] = {8, 16};

static void add_pair(struct det_part *p, int rank, const int64_t *dims, const char *at,
                     const char *name)
{
    det_part_add(p, rank, dims, "%s%s.weight", at, name);
    det_part_add(p, 1, dims, "%s%s.bias", at, name);
}

static void add_resnet(struct det_part *p, int in, int out, const char *at)
{
    add_pair(p, SHAPE(in), at, "norm1");
    add_pair(p, SHAPE(out, in, 3, 3), at, "conv1");
    add_pair(p, SHAPE(out, TIME), at, "time_emb_proj");
    add_pair(p, SHAPE(out), at, "norm2");
    add_pair(p, SHAPE(out, out, 3, 3), at, "conv2");
    if (in != out)
        add_pair(p, SHAPE(out, in, 1, 1), at, "conv_shortcut");
}

static void add_attention(struct det_part *p, int w, int from, const char *at, const char *name)
{
    det_part_add(p, SHAPE(w, w), "%s%s.to_q.weight", at, name);
    det_part_add(p, SHAPE(w, from), "%s%s.to_k.weight", at, name);
    det_part_add(p, SHAPE(w, from), "%s%s.to_v.weight", at, name);
    det_part_add(p, SHAPE(w, w), "%s%s.to_out.0.weight", at, name);
    det_part_add(p, SHAPE(w), "%s%s.to_out.0.bias", at, name);
}

static void add_transformer(struct det_part *p, const struct shape *s, int w, int blocks,
                            const char *at)
{
    int rank = s->linear ? 2 : 4;
    add_pair(p, SHAPE(w), at, "norm");
    add_pair(p, rank, (int64_t[]){w, w, 1, 1}, at, "proj_in");
    add_pair(p, rank, (int64_t[]){w, w, 1, 1}, at, "proj_out");
    for (int i = 0; i < blocks; i++) {
        char name[128];
        snprintf(name, sizeof name, "%stransformer_blocks.%d.", at, i);
        add_pair(p, SHAPE(w), name, "norm1");
        add_attention(p, w, w, name, "attn1");
        add_pair(p, SHAPE(w), name, "norm2");
        add_attention(p, w, s->text, name, "attn2");
        add_pair(p, SHAPE(w), name, "norm3");
        add_pair(p, SHAPE(8 * w, w), name, "ff.net.0.proj");
        add_pair(p, SHAPE(w, 4 * w), name, "ff.net.2");
    }
}

static void add_block(struct det_part *p, const struct shape *s, const char *way, int level, int k,
                      int in, int out, int transformers)
{
    char name[128];
    snprintf(name, sizeof name, "%s_blocks.%d.resnets.%d.", way, level, k);
    add_resnet(p, in, out, name);
    snprintf(name, sizeof name, "%s_blocks.%d.attentions.%d.", way, level, k);
    if (transformers)
        add_transformer(p, s, out, transformers, name);
}

static void add_ends(struct det_part *p, const struct shape *s)
{
    add_pair(p, SHAPE(8, 4, 3, 3), "", "conv_in");
    add_pair(p, SHAPE(TIME, 8), "", "time_embedding.linear_1");
    add_pair(p, SHAPE(TIME, TIME), "", "time_embedding.linear_2");
    if (s->added) {
        add_pair(p, SHAPE(TIME, s->added), "", "add_embedding.linear_1");
        add_pair(p, SHAPE(TIME, TIME), "", "add_embedding.linear_2");
    }
    add_pair(p, SHAPE(16, 16, 3, 3), "", "up_blocks.0.upsamplers.0.conv");
    add_pair(p, SHAPE(8, 8, 3, 3), "", "down_blocks.0.downsamplers.0.conv");
    add_pair(p, SHAPE(8), "", "conv_norm_out");
    add_pair(p, SHAPE(4, 8, 3, 3), "", "conv_out");
}

static struct det_part *unet_part(const struct shape *s)
{
    struct det_part *p = det_part_new();
    int n = s->layers, left[16] = {8}, count = 1, wide = 16;
    int deepest = s->transformers[1] ? s->transformers[1] : 1;
    add_ends(p, s);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < n; k++) {
            add_block(p, s, "down", i, k, left[count - 1], width[i], s->transformers[i]);
            left[count++] = width[i];
        }
        if (i == 0)
            left[count++] = width[i];
    }
    add_resnet(p, 16, 16, "mid_block.resnets.0.");
    add_transformer(p, s, 16, deepest, "mid_block.attentions.0.");
    add_resnet(p, 16, 16, "mid_block.resnets.1.");
    for (int i = 0; i < 2; i++)
        for (int k = 0; k <= n; k++) {
            add_block(p, s, "up", i, k, wide + left[--count], width[1 - i], s->transformers[1 - i]);
            wide = width[1 - i];
        }
    return p;
}

/* ---- the two kinds ---- */

static const struct shape xl = {
    .layers = 2, .transformers = {0, 2}, .text = 64, .added = 80, .linear = true};
static const char xl_config[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"block_out_channels\": [8, 16], "
    "\"layers_per_block\": 2, \"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\"], "
    "\"up_block_types\": [\"CrossAttnUpBlock2D\", \"UpBlock2D\"], \"attention_head_dim\": [2, 4], "
    "\"use_linear_projection\": true, \"addition_embed_type\": \"text_time\", "
    "\"addition_time_embed_dim\": 8, \"transformer_layers_per_block\": [1, 2], "
    "\"projection_class_embeddings_input_dim\": 80, \"cross_attention_dim\": 64, "
    "\"norm_num_groups\": 4}";

static const struct shape sd15 = {.layers = 1, .transformers = {1, 0}, .text = 8};
static const char sd15_config[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"block_out_channels\": [8, 16], "
    "\"layers_per_block\": 1, \"down_block_types\": [\"CrossAttnDownBlock2D\", \"DownBlock2D\"], "
    "\"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\"], \"attention_head_dim\": 2, "
    "\"cross_attention_dim\": 8, \"norm_num_groups\": 4}";

static const char kl_config[] = "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [8, "
                                "16], \"layers_per_block\": 2, "
                                "\"norm_num_groups\": 4, \"scaling_factor\": 0.13025}";

static struct unet *open_unet(struct bench *b, const struct shape *s, const char *config)
{
    struct unet *u = NULL;
    struct err e = {0};
    bench_open(b, unet_part(s), "diffusion_pytorch_model", config);
    if (unet_load(&b->part, &u, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(weights_unused(b->part.weights, NULL, 0), 0);
    return u;
}

static const float time_ids[2 * UNET_TIME_IDS] = {1024, 768, 0, 16, 1024, 1024,
                                                  1024, 768, 0, 16, 1024, 1024};

static const struct expected xl_answer = {1536,
                                          0.299324,
                                          0.499188,
                                          {0.289271f, -0.136330f, 0.415275f, 0.289419f, 0.149045f},
                                          {0.926138f, 1.023993f, 0.235740f}};

static void sdxl_unet_gives_the_known_answer(void **state)
{
    (void)state;
    struct bench b;
    struct unet *u = open_unet(&b, &xl, xl_config);
    struct tensor *x = op_permute(b.o, input(&b, "in.lat", SHAPE(1, 4, 16, 24)), to_last);
    struct tensor *added = unet_added(u, b.o, input(&b, "in.pooled", SHAPE(1, 32)), time_ids);
    struct tensor *y =
        unet_forward(u, b.o, x, input(&b, "in.txt", SHAPE(1, 9, 64)), 501, added, NULL);
    check(&b, op_permute(b.o, y, to_first), &xl_answer);
    unet_free(u);
    bench_close(&b);
}

static void sd15_unet_gives_the_known_answer(void **state)
{
    (void)state;
    struct bench b;
    struct unet *u = open_unet(&b, &sd15, sd15_config);
    struct tensor *x = op_permute(b.o, input(&b, "in.lat", SHAPE(1, 4, 16, 24)), to_last);
    struct tensor *y =
        unet_forward(u, b.o, x, input(&b, "in.txt", SHAPE(1, 9, 8)), 501, NULL, NULL);
    check(&b, op_permute(b.o, y, to_first),
          &(struct expected){1536,
                             0.258226,
                             0.550881,
                             {0.004286f, 0.983942f, 0.535781f, -0.246297f, -0.120989f},
                             {-0.061242f, 0.299687f, -0.073274f}});
    unet_free(u);
    bench_close(&b);
}

/* Two copies of x [1, …] in one batch. */
static struct tensor *twice(struct bench *b, const struct tensor *x)
{
    return op_concat(b->o, (const struct tensor *[]){x, x}, 2, 0);
}

static void items_of_a_batch_are_what_they_are_alone(void **state)
{
    (void)state;
    struct bench b;
    struct unet *u = open_unet(&b, &xl, xl_config);
    struct tensor *x = op_permute(b.o, input(&b, "in.lat", SHAPE(1, 4, 16, 24)), to_last);
    struct tensor *text = input(&b, "in.txt", SHAPE(1, 9, 64));
    struct tensor *added =
        unet_added(u, b.o, twice(&b, input(&b, "in.pooled", SHAPE(1, 32))), time_ids);
    struct tensor *y = unet_forward(u, b.o, twice(&b, x), twice(&b, text), 501, added, NULL);
    for (int i = 0; i < 2; i++)
        check(&b, op_permute(b.o, op_slice(b.o, y, 0, i, 1), to_first), &xl_answer);
    unet_free(u);
    bench_close(&b);
}

/* ---- a whole way from noise to pixels, with the conditions given ---- */

enum { STEPS = 4 };

static void open_schedule(struct schedule *s)
{
    static const char json[] = "{\"_class_name\": \"EulerDiscreteScheduler\", \"beta_start\": "
                               "0.00085, \"beta_end\": 0.012, "
                               "\"beta_schedule\": \"scaled_linear\", \"timestep_spacing\": "
                               "\"leading\", \"steps_offset\": 1}";
    struct config *c;
    struct schedule_config options;
    struct err e = {0};
    assert_int_equal(config_parse("scheduler", json, strlen(json), &c, &e), 0);
    if (schedule_config_parse(c, &options, &e) != 0 ||
        schedule_make(&options, STEPS, 0, s, &e) != 0)
        fail_msg("%s", e.text);
    config_close(c);
}

/* x += the Euler step of a prediction: the one update that this kind has. */
static void take_step(struct bench *b, const struct schedule_step *at, struct tensor *x,
                      struct tensor *prediction)
{
    const struct tensor *terms[SCHEDULE_MAX_TERMS];
    const struct schedule_update *u = &at->update[0];
    assert_int_equal(at->updates, 1);
    for (int i = 0; i < u->count; i++)
        terms[i] = u->from[i] == SLOT_X ? x : prediction;
    op_combine_to(b->o, x, terms, u->coefficient, u->count);
}

/* Guidance 5 over text and negative text; the latent [1, 16, 24, 4] of seed 0. */
static struct tensor *sample(struct bench *b, const struct unet *u)
{
    static const float sizes[UNET_TIME_IDS] = {32, 48, 0, 0, 32, 48};
    static const char *const text[2] = {"in.txt", "in.neg"}, *const pool[2] = {"in.pooled",
                                                                               "in.npooled"};
    const float guided[2] = {5, -4};
    struct tensor *texts[2], *added[2];
    struct schedule s;
    struct random random;
    float noise[1536];
    random_seed(&random, 0);
    random_normal(&random, noise, ARRAY_LEN(noise));
    open_schedule(&s);
    struct tensor *x = op_from_host(b->o, DTYPE_F32, SHAPE(1, 4, 16, 24), noise);
    x = op_affine(b->o, op_permute(b->o, x, to_last), s.initial_noise, 0);
    for (int k = 0; k < 2; k++) {
        texts[k] = input(b, text[k], SHAPE(1, 9, 64));
        added[k] = unet_added(u, b->o, input(b, pool[k], SHAPE(1, 32)), sizes);
    }
    for (int i = 0; i < STEPS; i++) {
        struct tensor *y[2], *scaled = op_affine(b->o, x, s.at[i].input_scale, 0);
        for (int k = 0; k < 2; k++)
            y[k] = unet_forward(u, b->o, scaled, texts[k], s.timesteps[i], added[k], NULL);
        op_combine_to(b->o, y[0], (const struct tensor *[]){y[0], y[1]}, guided, 2);
        take_step(b, &s.at[i], x, y[0]);
    }
    schedule_free(&s);
    return x;
}

static void sdxl_sampling_gives_the_known_latent_and_picture(void **state)
{
    (void)state;
    struct bench b, v;
    struct vae vae;
    struct err e = {0};
    struct unet *u = open_unet(&b, &xl, xl_config);
    struct tensor *x = sample(&b, u);
    size_t n;
    AUTO_FREE float *latent = values(&b, x, &n);
    check(&b, op_permute(b.o, x, to_first),
          &(struct expected){1536,
                             -1.862974,
                             6.238293,
                             {-5.116058f, -1.131454f, 1.487541f, 1.372313f, 4.070660f},
                             {-7.813574f, -6.921060f, 3.056874f}});
    bench_open(&v, kl_part(2), "diffusion_pytorch_model", kl_config);
    if (vae_load(&v.part, &vae, &e) != 0)
        fail_msg("%s", e.text);
    struct tensor *z = op_from_host(v.o, DTYPE_F32, SHAPE(1, 16, 24, 4), latent);
    z = vae_decode(&vae, v.o, op_affine(v.o, z, (float)(1 / vae.scaling), 0));
    z = op_clamp(v.o, op_affine(v.o, z, 0.5f, 0.5f), 0, 1);
    check(&v, op_permute(v.o, z, to_first),
          &(struct expected){4608,
                             0.457782,
                             0.280820,
                             {0.917629f, 0.876116f, 0.855610f, 0.825905f, 0.784693f},
                             {0.490873f, 0.772506f, 0.608932f}});
    vae_free(&vae);
    bench_close(&v);
    unet_free(u);
    bench_close(&b);
}

/* ---- configs that are refused ---- */

static void assert_refused(const char *option, int code, const char *named)
{
    struct bench b;
    struct unet *u = NULL;
    struct err e = {0};
    AUTO_STR struct str config = {0};
    str_addf(&config, "%.*s, %s}", (int)strlen(sd15_config) - 1, sd15_config, option);
    bench_open(&b, unet_part(&sd15), "diffusion_pytorch_model", config.data);
    assert_int_equal(unet_load(&b.part, &u, &e), code);
    if (!strstr(e.text, named))
        fail_msg("'%s' is not named: %s", named, e.text);
    assert_null(u);
    bench_close(&b);
}

static void options_that_would_change_the_numbers_are_refused_by_name(void **state)
{
    (void)state;
    assert_refused("\"class_embed_type\": \"timestep\"", -ENOTSUP, "class_embed_type");
    assert_refused("\"act_fn\": \"gelu\"", -ENOTSUP, "act_fn");
    assert_refused("\"dual_cross_attention\": true", -ENOTSUP, "dual_cross_attention");
    assert_refused("\"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\"", -ENOTSUP,
                   "mid_block_type");
    assert_refused("\"addition_embed_type\": \"image\"", -ENOTSUP, "addition_embed_type");
    assert_refused("\"conv_in_kernel\": 5", -ENOTSUP, "conv_in_kernel");
    assert_refused("\"transformer_layers_per_block\": [1, 1, 1]", -EINVAL, "3 entries");
    assert_refused("\"reverse_transformer_layers_per_block\": [[1], 1]", -EINVAL,
                   "reverse_transformer_layers_per_block");
    assert_refused("\"in_channels\": 9", -EINVAL, "conv_in.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdxl_unet_gives_the_known_answer),
        cmocka_unit_test(sd15_unet_gives_the_known_answer),
        cmocka_unit_test(items_of_a_batch_are_what_they_are_alone),
        cmocka_unit_test(sdxl_sampling_gives_the_known_latent_and_picture),
        cmocka_unit_test(options_that_would_change_the_numbers_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
