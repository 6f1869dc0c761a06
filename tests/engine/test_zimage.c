/* The Z-Image transformer against the known answer of diffusers' class. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "../support/known.h"
#include "engine/models/zimage_transformer.h"

enum { D = 32, FFN = 85, HEAD = 16, CHANNELS = 16, CAPTION = 16 };

static void add_block(struct det_part *p, const char *group, int i, bool modulated)
{
    static const char *const square[] = {"to_q", "to_k", "to_v", "to_out.0"};
    static const char *const norms[] = {"attention_norm1", "attention_norm2", "ffn_norm1",
                                        "ffn_norm2"};
    for (int k = 0; k < 4; k++) {
        det_part_add(p, SHAPE(D, D), "%s.%d.attention.%s.weight", group, i, square[k]);
        det_part_add(p, SHAPE(D), "%s.%d.%s.weight", group, i, norms[k]);
    }
    det_part_add(p, SHAPE(HEAD), "%s.%d.attention.norm_q.weight", group, i);
    det_part_add(p, SHAPE(HEAD), "%s.%d.attention.norm_k.weight", group, i);
    det_part_add(p, SHAPE(FFN, D), "%s.%d.feed_forward.w1.weight", group, i);
    det_part_add(p, SHAPE(D, FFN), "%s.%d.feed_forward.w2.weight", group, i);
    det_part_add(p, SHAPE(FFN, D), "%s.%d.feed_forward.w3.weight", group, i);
    if (modulated) {
        det_part_add(p, SHAPE(4 * D, D), "%s.%d.adaLN_modulation.0.weight", group, i);
        det_part_add(p, SHAPE(4 * D), "%s.%d.adaLN_modulation.0.bias", group, i);
    }
}

static void add_pair(struct det_part *p, int64_t out, int64_t in, const char *name)
{
    det_part_add(p, SHAPE(out, in), "%s.weight", name);
    det_part_add(p, SHAPE(out), "%s.bias", name);
}

static struct det_part *zimage_part(void)
{
    struct det_part *p = det_part_new();
    add_pair(p, D, 4 * CHANNELS, "all_x_embedder.2-1");
    add_pair(p, 1024, 256, "t_embedder.mlp.0");
    add_pair(p, D, 1024, "t_embedder.mlp.2");
    det_part_add(p, SHAPE(CAPTION), "cap_embedder.0.weight");
    add_pair(p, D, CAPTION, "cap_embedder.1");
    det_part_add(p, SHAPE(1, D), "x_pad_token");
    det_part_add(p, SHAPE(1, D), "cap_pad_token");
    add_block(p, "noise_refiner", 0, true);
    add_block(p, "context_refiner", 0, false);
    add_block(p, "layers", 0, true);
    add_block(p, "layers", 1, true);
    add_pair(p, D, D, "all_final_layer.2-1.adaLN_modulation.1");
    add_pair(p, 4 * CHANNELS, D, "all_final_layer.2-1.linear");
    return p;
}

static const char config[] =
    "{\"_class_name\": \"ZImageTransformer2DModel\", \"in_channels\": 16, \"dim\": 32, "
    "\"n_layers\": 2, \"n_refiner_layers\": 1, \"n_heads\": 2, \"n_kv_heads\": 2, "
    "\"norm_eps\": 1e-5, \"cap_feat_dim\": 16, \"rope_theta\": 256.0, \"t_scale\": 1000.0, "
    "\"axes_dims\": [8, 4, 4], \"all_patch_size\": [2], \"all_f_patch_size\": [1]}";

static void zimage_transformer_gives_the_known_answer(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    struct zimage_transformer *t;
    struct tensor *cos = NULL, *sin = NULL;
    bench_open(&b, zimage_part(), "diffusion_pytorch_model", config);
    if (zimage_transformer_load(&b.part, &t, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(weights_unused(b.part.weights, NULL, 0), 0);
    struct tensor *x = op_permute(b.o, input(&b, "in.img", SHAPE(1, CHANNELS, 8, 12)), to_last);
    struct tensor *caption = input(&b, "in.cap", SHAPE(1, 7, CAPTION));
    zimage_transformer_tables(t, b.o, 4, 6, 7, &cos, &sin);
    caption = zimage_transformer_caption(t, b.o, caption, cos, sin);
    struct tensor *y = zimage_transformer_forward(t, b.o, x, caption, cos, sin, 0.3f);
    check(&b, op_permute(b.o, y, to_first),
          &(struct expected){1536,
                             0.001796,
                             0.985312,
                             {1.026492f, -2.009060f, 0.249328f, 1.124754f, -0.693182f},
                             {1.716682f, 0.576770f, 1.225690f}});
    zimage_transformer_free(t);
    bench_close(&b);
}

static void heads_that_do_not_fit_the_axes_are_refused(void **state)
{
    (void)state;
    struct bench b;
    struct err e = {0};
    struct zimage_transformer *t;
    bench_open(&b, zimage_part(), "diffusion_pytorch_model",
               "{\"dim\": 32, \"n_heads\": 4, \"axes_dims\": [8, 4, 4], \"cap_feat_dim\": 16}");
    assert_int_equal(zimage_transformer_load(&b.part, &t, &e), -22);
    assert_non_null(strstr(e.text, "axes_dims"));
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zimage_transformer_gives_the_known_answer),
        cmocka_unit_test(heads_that_do_not_fit_the_axes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
