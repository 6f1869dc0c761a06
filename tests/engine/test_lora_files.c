/* LoRA files and what they do to one weight: names of all styles, sums, and the way back. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/det.h"
#include "../support/lora_file.h"
#include "../support/scratch.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/adapters_internal.h"
#include "engine/backend.h"
#include "engine/weights/lora.h"
#include "engine/weights/lora_names.h"

struct files {
    char folder[64];
};

static void files_make(struct files *x)
{
    assert_non_null(mkdtemp(scratch_name(x->folder, "omni-lora-XXXXXX")));
}

static char *written(const struct files *x, const char *name, const char *list)
{
    struct str path = {0};
    str_addf(&path, "%s/%s.safetensors", x->folder, name);
    lora_file_write(list, path.data);
    return str_take(&path);
}

/* ---- names ---- */

static void weight_is_known_under_the_names_of_all_styles(void **state)
{
    static const struct {
        const char *weight, *key;
    } rows[] = {
        {"transformer_blocks.0.attn.to_q.weight", "transformer_blocks_0_attn_to_q"},
        {"transformer_blocks.7.attn.to_k.weight", "double_blocks_7_img_attn_qkv"},
        {"transformer_blocks.7.attn.add_v_proj.weight", "double_blocks_7_txt_attn_qkv"},
        {"single_transformer_blocks.19.attn.to_out.weight", "single_blocks_19_linear2"},
        {"single_stream_modulation.linear.weight", "single_stream_modulation_lin"},
        {"norm_out.linear.weight", "final_layer_adaLN_modulation_1"},
        {"layers.3.attention.to_out.0.weight", "layers_3_attention_out"},
        {"layers.3.attention.to_v.weight", "layers_3_attention_qkv"},
        {"down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.weight",
         "input_blocks_4_1_transformer_blocks_1_attn1_to_q"},
        {"mid_block.resnets.1.conv2.weight", "middle_block_2_out_layers_3"},
        {"up_blocks.0.upsamplers.0.conv.weight", "output_blocks_2_2_conv"},
        {"add_embedding.linear_2.weight", "label_emb_0_2"},
        {"text_model.encoder.layers.0.self_attn.q_proj.weight",
         "text_model_encoder_layers_0_self_attn_to_q"},
        {"mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight",
         "mid_block_attentions_0_transformer_blocks_0_attn2_to_out"},
    };
    struct lora_names names = {0};
    struct err e = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(lora_names_add(&names, rows[i].weight, i, &e), 0);
    lora_names_sort(&names);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t count;
        const struct lora_name *n = lora_names_find(&names, rows[i].key, &count);
        if (!n || n->weight != i)
            fail_msg("%s is not known as %s", rows[i].weight, rows[i].key);
    }
    lora_names_free(&names);
}

/* Each file changes the same weight by the same matrices, scaled differently where it says so. */
static void key_styles_mean_the_same(void **state)
{
    static const struct {
        const char *down, *up, *part, *key;
        const char *alpha;
        double scale;
    } rows[] = {
        {"unet.mid.attn1.to_q.lora_A.weight", "unet.mid.attn1.to_q.lora_B.weight", "",
         "mid_attn1_to_q", NULL, 1},
        {"unet.mid.attn1.processor.to_q_lora.down.weight",
         "unet.mid.attn1.processor.to_q_lora.up.weight", "", "mid_attn1_to_q", NULL, 1},
        {"unet.mid.attn1.to_q.lora.down.weight", "unet.mid.attn1.to_q.lora.up.weight", "",
         "mid_attn1_to_q", NULL, 1},
        {"lora_unet_mid_attn1_to_q.lora_down.weight", "lora_unet_mid_attn1_to_q.lora_up.weight", "",
         "mid_attn1_to_q", "lora_unet_mid_attn1_to_q.alpha = 3", 1.5},
        {"diffusion_model.mid.attn1.to_q.lora_A.weight",
         "diffusion_model.mid.attn1.to_q.lora_B.weight", "", "mid_attn1_to_q",
         "diffusion_model.mid.attn1.to_q.alpha = 1", 0.5},
        {"base_model.model.mid.attn1.to_q.lora_A.weight",
         "base_model.model.mid.attn1.to_q.lora_B.weight", "", "mid_attn1_to_q", NULL, 1},
        {"lora_te2_text_model_x.lora_down.weight", "lora_te2_text_model_x.lora_up.weight",
         "text_encoder_2", "text_model_x", NULL, 1},
        {"text_encoder.text_model.x.lora_linear_layer.down.weight",
         "text_encoder.text_model.x.lora_linear_layer.up.weight", "text_encoder", "text_model_x",
         NULL, 1},
        {"transformer.a.attn.to_q.lora_A.weight", "transformer.a.attn.to_q.lora_B.weight", "",
         "a_attn_to_q",
         "metadata {\"transformer.r\": 2, \"transformer.lora_alpha\": 8, "
         "\"transformer.alpha_pattern\": {\"attn.to_q\": 5, \"n.to_q\": 7}}",
         2.5},
    };
    struct files x;
    (void)state;
    files_make(&x);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_STR struct str list = {0};
        struct lora l;
        struct err e = {0};
        str_addf(&list, "%s 2 8\n%s 6 2\n%s\n", rows[i].down, rows[i].up,
                 rows[i].alpha ? rows[i].alpha : "#");
        AUTO_FREE char *path = written(&x, "style", list.data);
        if (lora_open(path, &l, &e) != 0)
            fail_msg("%s", e.text);
        assert_int_equal(l.count, 1);
        assert_string_equal(l.modules[0].key, rows[i].key);
        assert_string_equal(l.modules[0].part, rows[i].part);
        assert_true(l.modules[0].scale == (float)rows[i].scale);
        lora_close(&l);
    }
    file_remove_tree(AT_FDCWD, x.folder);
}

/* ---- a weight that is too large to be packed ---- */

#define ROWS    2064
#define COLUMNS 2048 /* more than one stripe of a sum */

/* One product with the weight, of which some numbers are compared with sums in double precision. */
static void check_product(struct backend *b, const struct tensor *w, const float *base,
                          const struct lora_module *m, double scale)
{
    struct err e = {0};
    struct ops *o = ops_new(b, DTYPE_F32, (size_t)64 << 20, &e);
    AUTO_FREE float *x = malloc(COLUMNS * sizeof(float));
    AUTO_FREE float *y = malloc(ROWS * sizeof(float));
    float a[2 * COLUMNS], up[2 * ROWS];
    det_input("x", x, COLUMNS);
    op_to_host(o, op_linear(o, op_from_host(o, DTYPE_F32, SHAPE(1, COLUMNS), x), w, NULL, ACT_NONE),
               y, ROWS * sizeof(float));
    assert_int_equal(ops_error(o, &e), 0);
    lora_values(m->down, 0, 2 * COLUMNS, a);
    lora_values(m->up, 0, 2 * ROWS, up);
    for (int i = 0; i < ROWS; i += 43) {
        double sum = 0;
        for (int k = 0; k < COLUMNS; k++)
            sum += (double)x[k] * ((double)base[i * COLUMNS + k] +
                                   scale * ((double)up[2 * i] * (double)a[k] +
                                            (double)up[2 * i + 1] * (double)a[COLUMNS + k]));
        assert_true(fabs(y[i] - sum) < 1e-4);
    }
    ops_free(o);
}

/* weight_change.make with one term */
static int sum_of(void *ctx, const struct weight_loader *l, size_t i, enum dtype type, void *out,
                  struct err *e)
{
    struct patch_job job = {.loader = l, .terms = ctx, .count = 1};
    assert_int_equal(i, 0);
    return patch_values(&job, type, out, e);
}

static void large_weight_is_summed_in_stripes_and_given_back(void **state)
{
    struct files x;
    struct err e = {0};
    struct weights *file;
    struct backend *b;
    struct lora l;
    (void)state;
    files_make(&x);
    AUTO_FREE char *weights = written(&x, "w", "big.weight 2064 2048\n");
    AUTO_FREE char *change = written(&x, "l",
                                     "big.lora_A.weight 2 2048\n"
                                     "big.lora_B.weight 2064 2\n");
    assert_int_equal(weights_open(weights, NULL, &file, &e), 0);
    assert_int_equal(lora_open(change, &l, &e), 0);
    assert_int_equal(cpu_backend_new(2, &b, &e), 0);
    struct weight_loader loader = {.weights = file, .backend = b, .compute = DTYPE_F32};
    struct tensor *w = weight(&loader, SHAPE(ROWS, COLUMNS), "big.weight");
    struct term t = {.module = &l.modules[0], .scale = 0.5f};
    const float *base = weights_find(file, "big.weight")->data;
    assert_int_equal(patch_check(&loader, &t, &e), 0);
    loader.change = (struct weight_change){sum_of, &t};
    assert_int_equal(weight_loader_change(&loader, 0, true, &e), 0);
    assert_int_equal(weight_loader_bytes(&loader, true), 0);
    assert_int_equal(weight_loader_wake(&loader, &e), 0);
    assert_ptr_equal(w->data, loader.list[0].copy); /* it is read where it lies */
    assert_int_equal(weight_loader_bytes(&loader, true), (uint64_t)ROWS * COLUMNS * sizeof(float));
    check_product(b, w, base, &l.modules[0], 0.5);
    assert_int_equal(weight_loader_change(&loader, 0, false, &e), 0);
    assert_int_equal(weight_loader_wake(&loader, &e), 0);
    assert_ptr_equal(w->data, base);
    check_product(b, w, base, &l.modules[0], 0);
    weight_loader_free(&loader);
    backend_free(b);
    lora_close(&l);
    weights_close(file);
    file_remove_tree(AT_FDCWD, x.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weight_is_known_under_the_names_of_all_styles),
        cmocka_unit_test(key_styles_mean_the_same),
        cmocka_unit_test(large_weight_is_summed_in_stripes_and_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
