/* AutoencoderKL and AutoencoderKLFlux2 against known answers of diffusers' classes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/kl_part.h"
#include "../support/known.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "engine/vae/vae.h"

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
    assert_int_equal(v->channels, KL_LATENT);
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
        z = op_slice(b.o, vae_encode_moments(&v, b.o, x), -1, KL_LATENT, KL_LATENT);
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

/* The values of a picture of 96x48 pixels decoded, or encoded back, with maps cut like this. */
static float *cut(struct bench *b, struct vae *v, bool decode, int64_t hold, int64_t band,
                  size_t *n, size_t *peak)
{
    struct err e = {0};
    struct ops *o = b->o;
    b->o = ops_new(b->backend, DTYPE_F32, 64 << 20, &e);
    assert_non_null(b->o);
    autoencoder_kl_bands(v, hold, band);
    struct tensor *x = decode ? input(b, "in.z", SHAPE(1, 96, 48, KL_LATENT))
                              : input(b, "in.image", SHAPE(1, 96, 48, 3));
    float *y = values(b, decode ? vae_decode(v, b->o, x) : vae_encode(v, b->o, x), n);
    *peak = ops_peak(b->o);
    ops_free(b->o);
    b->o = o;
    return y;
}

static void bands_and_maps_made_again_change_no_bit_and_save_memory(void **state)
{
    (void)state;
    static const struct {
        int64_t hold, band;
    } ways[] = {{INT64_MAX, 1}, {0, 1}, {0, 96 * 8 * 4 * 24}, {0, INT64_MAX}};
    struct bench b;
    struct vae v;
    vae_open(&b, &v, 2, kl_config);
    for (int decode = 0; decode < 2; decode++) {
        size_t n, whole_peak;
        AUTO_FREE float *whole = cut(&b, &v, decode, INT64_MAX, INT64_MAX, &n, &whole_peak);
        for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
            size_t count, peak;
            AUTO_FREE float *y = cut(&b, &v, decode, ways[i].hold, ways[i].band, &count, &peak);
            assert_int_equal(count, n);
            assert_memory_equal(y, whole, n * sizeof(float));
            if (decode && ways[i].band == 1)
                assert_true(peak < whole_peak);
        }
    }
    vae_free(&v);
    bench_close(&b);
}

static void assert_refused(const char *option, const char *named)
{
    struct bench b;
    struct vae v;
    struct err e = {0};
    AUTO_STR struct str config = {0};
    str_addf(&config, "%.*s, %s}", (int)strlen(kl_config) - 1, kl_config, option);
    bench_open(&b, kl_part(2), "diffusion_pytorch_model", config.data);
    assert_true(vae_load(&b.part, &v, &e) < 0);
    if (!strstr(e.text, named))
        fail_msg("'%s' is not named: %s", named, e.text);
    bench_close(&b);
}

static void options_that_would_change_the_numbers_are_refused_by_name(void **state)
{
    (void)state;
    assert_refused("\"act_fn\": \"gelu\"", "act_fn");
    assert_refused("\"out_channels\": 4", "out_channels");
    assert_refused("\"down_block_types\": [\"DownEncoderBlock2D\", \"AttnDownEncoderBlock2D\"]",
                   "AttnDownEncoderBlock2D");
    assert_refused("\"up_block_types\": [\"UpDecoderBlock2D\"]", "up_block_types");
}

static void old_names_of_the_attention_are_read(void **state)
{
    (void)state;
    static const char *const old[4] = {"query", "key", "value", "proj_attn"};
    struct bench b;
    struct vae v;
    struct err e = {0};
    struct det_part *p = det_part_new();
    kl_add_decoder(p, 1, old);
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
        cmocka_unit_test(bands_and_maps_made_again_change_no_bit_and_save_memory),
        cmocka_unit_test(options_that_would_change_the_numbers_are_refused_by_name),
        cmocka_unit_test(old_names_of_the_attention_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
