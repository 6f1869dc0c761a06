/* AutoencoderKL and AutoencoderKLFlux2 against known answers of diffusers' classes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "../support/known.h"
#include "engine/vae/vae.h"

enum { LATENT = 4, LEVELS = 2 };
static const int width[LEVELS] = {8, 16};

static void add_pair(struct det_part *p, int rank, const int64_t *dims, const char *name)
{
    det_part_add(p, rank, dims, "%s.weight", name);
    det_part_add(p, 1, dims, "%s.bias", name);
}

static void add_resnet(struct det_part *p, int in, int out, const char *at)
{
    char name[128];
    snprintf(name, sizeof name, "%s.norm1", at);
    add_pair(p, SHAPE(in), name);
    snprintf(name, sizeof name, "%s.conv1", at);
    add_pair(p, SHAPE(out, in, 3, 3), name);
    snprintf(name, sizeof name, "%s.norm2", at);
    add_pair(p, SHAPE(out), name);
    snprintf(name, sizeof name, "%s.conv2", at);
    add_pair(p, SHAPE(out, out, 3, 3), name);
    snprintf(name, sizeof name, "%s.conv_shortcut", at);
    if (in != out)
        add_pair(p, SHAPE(out, in, 1, 1), name);
}

static void add_middle(struct det_part *p, const char *half, int c, const char *const names[4])
{
    char name[128];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.mid_block.resnets.%d", half, i);
        add_resnet(p, c, c, name);
    }
    snprintf(name, sizeof name, "%s.mid_block.attentions.0.group_norm", half);
    add_pair(p, SHAPE(c), name);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s.mid_block.attentions.0.%s", half, names[i]);
        add_pair(p, SHAPE(c, c), name);
    }
}

static void add_encoder(struct det_part *p, int layers, const char *const names[4])
{
    char name[128];
    add_pair(p, SHAPE(width[0], 3, 3, 3), "encoder.conv_in");
    for (int i = 0; i < LEVELS; i++)
        for (int j = 0; j < layers; j++) {
            snprintf(name, sizeof name, "encoder.down_blocks.%d.resnets.%d", i, j);
            add_resnet(p, j || !i ? width[i] : width[i - 1], width[i], name);
        }
    add_pair(p, SHAPE(width[0], width[0], 3, 3), "encoder.down_blocks.0.downsamplers.0.conv");
    add_middle(p, "encoder", width[1], names);
    add_pair(p, SHAPE(width[1]), "encoder.conv_norm_out");
    add_pair(p, SHAPE(2 * LATENT, width[1], 3, 3), "encoder.conv_out");
    add_pair(p, SHAPE(2 * LATENT, 2 * LATENT, 1, 1), "quant_conv");
}

static void add_decoder(struct det_part *p, int layers, const char *const names[4])
{
    char name[128];
    add_pair(p, SHAPE(LATENT, LATENT, 1, 1), "post_quant_conv");
    add_pair(p, SHAPE(width[1], LATENT, 3, 3), "decoder.conv_in");
    add_middle(p, "decoder", width[1], names);
    for (int i = 0; i < LEVELS; i++)
        for (int j = 0; j < layers + 1; j++) {
            snprintf(name, sizeof name, "decoder.up_blocks.%d.resnets.%d", i, j);
            add_resnet(p, j || !i ? width[1 - i] : width[1], width[1 - i], name);
        }
    add_pair(p, SHAPE(width[1], width[1], 3, 3), "decoder.up_blocks.0.upsamplers.0.conv");
    add_pair(p, SHAPE(width[0]), "decoder.conv_norm_out");
    add_pair(p, SHAPE(3, width[0], 3, 3), "decoder.conv_out");
}

static const char *const new_names[4] = {"to_q", "to_k", "to_v", "to_out.0"};

static struct det_part *kl_part(int layers)
{
    struct det_part *p = det_part_new();
    add_encoder(p, layers, new_names);
    add_decoder(p, layers, new_names);
    return p;
}

static const char flux2_config[] =
    "{\"_class_name\": \"AutoencoderKLFlux2\", \"block_out_channels\": [8, 16], "
    "\"layers_per_block\": 1, \"latent_channels\": 4, \"norm_num_groups\": 4}";
static const char kl_config[] =
    "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [8, 16], "
    "\"layers_per_block\": 2, \"latent_channels\": 4, \"norm_num_groups\": 4, "
    "\"scaling_factor\": 0.13025}";

static void vae_open(struct bench *b, struct vae *v, int layers, const char *config)
{
    struct err e = {0};
    bench_open(b, kl_part(layers), "diffusion_pytorch_model", config);
    if (vae_load(&b->part, v, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(v->factor, 2);
    assert_int_equal(v->channels, LATENT);
    assert_int_equal(weights_unused(b->part.weights, NULL, 0), 0);
}

static void check_encode(int layers, const char *config, bool variance, const struct expected *e)
{
    struct bench b;
    struct vae v;
    vae_open(&b, &v, layers, config);
    struct tensor *x = op_permute(b.o, input(&b, "in.image", SHAPE(1, 3, 16, 24)), to_last);
    struct tensor *z = vae_encode(&v, b.o, x);
    if (variance)
        z = op_slice(b.o, vae_encode_moments(&v, b.o, x), -1, LATENT, LATENT);
    check(&b, op_permute(b.o, z, to_first), e);
    vae_free(&v);
    bench_close(&b);
}

static void check_decode(int layers, const char *config, const struct expected *e)
{
    struct bench b;
    struct vae v;
    vae_open(&b, &v, layers, config);
    struct tensor *z = op_permute(b.o, input(&b, "in.z", SHAPE(1, 4, 8, 12)), to_last);
    check(&b, op_permute(b.o, vae_decode(&v, b.o, z), to_first), e);
    vae_free(&v);
    bench_close(&b);
}

static void flux2_autoencoder_encodes_the_known_answer(void **state)
{
    (void)state;
    check_encode(1, flux2_config, false,
                 &(struct expected){384,
                                    0.127365,
                                    0.549267,
                                    {-0.347252f, 0.139643f, -0.022891f, -0.084294f, -0.352377f},
                                    {-0.395891f, 0.285257f, -0.205437f}});
}

static void flux2_autoencoder_decodes_the_known_answer(void **state)
{
    (void)state;
    check_decode(1, flux2_config,
                 &(struct expected){1152,
                                    0.073325,
                                    0.654839,
                                    {0.219219f, 0.145212f, 0.194458f, -0.080680f, -0.315423f},
                                    {0.236647f, 0.197601f, -0.119592f}});
}

static void autoencoder_kl_encodes_the_known_mean(void **state)
{
    (void)state;
    check_encode(2, kl_config, false,
                 &(struct expected){384,
                                    0.054322,
                                    0.520705,
                                    {-0.283669f, 0.104926f, -0.107240f, 0.118010f, -0.417031f},
                                    {-0.313400f, 0.245643f, 0.027332f}});
}

static void autoencoder_kl_encodes_the_known_log_variance(void **state)
{
    (void)state;
    check_encode(2, kl_config, true,
                 &(struct expected){384,
                                    -0.208358,
                                    0.481778,
                                    {-0.210930f, -0.553494f, -0.443734f, -0.277319f, -0.428957f},
                                    {0.489216f, -0.915889f, 0.202871f}});
}

static void autoencoder_kl_decodes_the_known_answer(void **state)
{
    (void)state;
    check_decode(2, kl_config,
                 &(struct expected){1152,
                                    0.068313,
                                    0.602365,
                                    {0.242145f, 0.116273f, 0.146013f, -0.049496f, -0.411319f},
                                    {0.230719f, 0.130911f, -0.032476f}});
}

static void old_names_of_the_attention_are_read(void **state)
{
    (void)state;
    static const char *const old[4] = {"query", "key", "value", "proj_attn"};
    struct bench b;
    struct vae v;
    struct err e = {0};
    struct det_part *p = det_part_new();
    add_decoder(p, 1, old);
    bench_open(&b, p, "diffusion_pytorch_model", flux2_config);
    if (vae_load(&b.part, &v, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(weights_unused(b.part.weights, NULL, 0), 0);
    vae_free(&v);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flux2_autoencoder_encodes_the_known_answer),
        cmocka_unit_test(flux2_autoencoder_decodes_the_known_answer),
        cmocka_unit_test(autoencoder_kl_encodes_the_known_mean),
        cmocka_unit_test(autoencoder_kl_encodes_the_known_log_variance),
        cmocka_unit_test(autoencoder_kl_decodes_the_known_answer),
        cmocka_unit_test(old_names_of_the_attention_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
