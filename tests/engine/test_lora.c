/* Models with LoRAs: pictures against diffusers' own, and weights that come back. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "../support/lora_file.h"
#include "../support/pictures.h"
#include "../support/tensors.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/omni.h"
#include "engine/weights/lora.h"
#include "../support/scratch.h"

#define GOLDEN         "tests/engine/golden"
#define QWEN_TOKENIZER "tests/engine/golden/tokenizer-qwen"
#define CLIP_TOKENIZER GOLDEN "/clip/tokenizer"
#define LEAST_DB       60

/* ---- models and files ---- */

struct fixture {
    char folder[64], files[64];
    struct omni_model *m;
};

static void build_model(struct fixture *x, const char *name)
{
    AUTO_STR struct str golden = {0};
    str_addf(&golden, GOLDEN "/%s", name);
    golden_build(golden.data, strncmp(name, "sd", 2) == 0 ? CLIP_TOKENIZER : QWEN_TOKENIZER,
                 x->folder);
    assert_non_null(mkdtemp(scratch_name(x->files, "omni-lora-XXXXXX")));
}

static void load_model(struct fixture *x, enum omni_precision p)
{
    struct omni_load_options options = {.device = "cpu", .precision = p, .threads = 2};
    struct err e = {0};
    if (omni_model_load(x->folder, &options, &x->m, &e) != 0)
        fail_msg("%s", e.text);
}

static void open_model(struct fixture *x, const char *name, enum omni_precision p)
{
    build_model(x, name);
    load_model(x, p);
}

static void close_model(struct fixture *x)
{
    omni_model_free(x->m);
    file_remove_tree(AT_FDCWD, x->folder);
    file_remove_tree(AT_FDCWD, x->files);
}

/* FILES/NAME.safetensors from the list of that name, made when first asked for. */
static char *golden_file(const struct fixture *x, const char *name)
{
    struct str path = {0};
    AUTO_STR struct str list = {0};
    str_addf(&path, "%s/%s.safetensors", x->files, name);
    str_addf(&list, GOLDEN "/lora/%s.txt", name);
    if (access(path.data, F_OK) != 0)
        lora_file_convert(list.data, path.data);
    return str_take(&path);
}

static char *written(const struct fixture *x, const char *name, const char *list)
{
    struct str path = {0};
    str_addf(&path, "%s/%s.safetensors", x->files, name);
    lora_file_write(list, path.data);
    return str_take(&path);
}

static struct omni_request plain(void)
{
    return (struct omni_request){.prompt = "an old stone house",
                                 .width = 48,
                                 .height = 32,
                                 .frames = 1,
                                 .steps = 2,
                                 .guidance = 4};
}

static struct omni_result draw(struct omni_model *m, const struct omni_request *r)
{
    struct omni_result y;
    struct err e = {0};
    if (omni_generate(m, r, 1, NULL, &y, NULL, &e) != 0)
        fail_msg("%s", e.text);
    return y;
}

/* The picture of a request with one LoRA, or without (path NULL). */
static struct picture draw_with(struct omni_model *m, const char *path, double weight)
{
    struct omni_request r = plain();
    struct omni_lora lora = {path, weight};
    r.loras = &lora;
    r.lora_count = path ? 1 : 0;
    return draw(m, &r).picture;
}

static bool same(const struct picture *a, const struct picture *b)
{
    return memcmp(a->rgb, b->rgb, picture_frame_bytes(a)) == 0;
}

/* ---- against diffusers ---- */

static const char *text(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static int number(const json_t *row, const char *key)
{
    return (int)json_integer_value(json_object_get(row, key));
}

static void assert_like(const struct picture *p, const char *file)
{
    AUTO_STR struct str path = {0};
    AUTO_FREE char *pixels = NULL;
    struct err e = {0};
    size_t size;
    str_addf(&path, GOLDEN "/lora/%s", file);
    assert_int_equal(file_read(AT_FDCWD, path.data, 1 << 20, &pixels, &size, &e), 0);
    assert_int_equal(size, picture_frame_bytes(p));
    struct picture expected = {p->width, p->height, 1, (uint8_t *)pixels};
    double db = psnr(p, &expected, 0);
    print_message("# %s: %.1f dB\n", file, db);
    assert_true(db >= LEAST_DB);
}

static void check_row(struct fixture *x, const json_t *row)
{
    struct omni_lora loras[OMNI_MAX_LORAS];
    json_t *list = json_object_get(row, "loras");
    int count = (int)json_array_size(list);
    for (int i = 0; i < count; i++) {
        json_t *l = json_array_get(list, (size_t)i);
        loras[i] = (struct omni_lora){golden_file(x, text(l, "name")),
                                      json_number_value(json_object_get(l, "weight"))};
    }
    struct omni_request r = {
        .prompt = text(row, "prompt"),
        .width = number(row, "width"),
        .height = number(row, "height"),
        .frames = 1,
        .steps = number(row, "steps"),
        .guidance = json_number_value(json_object_get(row, "guidance")),
        .seed = (uint64_t)json_integer_value(json_object_get(row, "seed")),
        .loras = loras,
        .lora_count = count,
    };
    struct omni_result y = draw(x->m, &r);
    assert_like(&y.picture, text(row, "file"));
    assert_int_equal(y.lora_count, count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(y.loras[i].matched, y.loras[i].modules);
        assert_string_equal(y.loras[i].unmatched, "");
        free((char *)(uintptr_t)loras[i].path);
    }
    picture_free(&y.picture);
}

/* All cases of one model, one after the other on the same weights. */
static void check_model(const char *model, int expected)
{
    struct fixture x;
    json_t *rows = json_load_file(GOLDEN "/lora/cases.json", 0, NULL);
    int checked = 0;
    open_model(&x, model, OMNI_FP32);
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (strcmp(text(json_array_get(rows, i), "model"), model) == 0) {
            check_row(&x, json_array_get(rows, i));
            checked++;
        }
    assert_int_equal(checked, expected);
    json_decref(rows);
    close_model(&x);
}

static void klein_draws_with_peft_bfl_and_kohya_files_as_diffusers_does(void **state)
{
    (void)state;
    check_model("klein-base", 4);
}

static void xl_draws_with_original_block_names_filters_and_encoders_as_diffusers_does(void **state)
{
    (void)state;
    check_model("sdxl-lcm", 2);
}

/* ---- weights come and go ---- */

static void check_restored(const char *model, const char *name, enum omni_precision p)
{
    struct fixture x;
    open_model(&x, model, p);
    AUTO_FREE char *file = golden_file(&x, name);
    uint64_t bytes = omni_model_info(x.m)->weight_bytes;
    struct picture before = draw_with(x.m, NULL, 0), with = draw_with(x.m, file, 1);
    assert_int_equal(omni_model_info(x.m)->resident_bytes, omni_model_info(x.m)->weight_bytes);
    struct picture again = draw_with(x.m, file, 1), half = draw_with(x.m, file, 0.5);
    struct picture after = draw_with(x.m, NULL, 0);
    assert_int_equal(omni_model_info(x.m)->weight_bytes, bytes);
    assert_false(same(&before, &with));
    assert_true(same(&with, &again));
    assert_false(same(&with, &half));
    assert_true(same(&before, &after));
    struct picture *all[] = {&before, &with, &again, &half, &after};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        picture_free(all[i]);
    close_model(&x);
}

static void request_without_lora_gives_the_bytes_it_gave_before(void **state)
{
    (void)state;
    check_restored("klein-base", "peft", OMNI_FP32);
    check_restored("klein-base", "bfl", OMNI_BF16);
    check_restored("sdxl-lcm", "xl", OMNI_FP32);
}

/* Rewrites the transformer with its values rounded to `as`, in a file of the type `file`. */
static void store_transformer(const struct fixture *x, enum stored as, enum stored file)
{
    AUTO_STR struct str folder = {0};
    AUTO_STR struct str temporary = {0};
    AUTO_STR struct str path = {0};
    struct tensors t = {0};
    str_addf(&folder, "%s/transformer", x->folder);
    str_addf(&temporary, "%s/new.%s", folder.data, file == STORED_Q8_0 ? "gguf" : "safetensors");
    str_addf(&path, "%s/diffusion_pytorch_model.safetensors", folder.data);
    tensors_read(&t, folder.data);
    tensors_round(&t, as);
    tensors_write(&t, file, temporary.data);
    assert_int_equal(rename(temporary.data, path.data), 0); /* read by content, not by name */
    tensors_free(&t);
}

/* In fp32 a sum does not depend on how the checkpoint stores its half. */
static void halves_and_quantized_weights_take_loras_as_fp32_does(void **state)
{
    static const enum stored types[] = {STORED_F16, STORED_BF16, STORED_Q8_0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct fixture wide, narrow;
        build_model(&wide, "klein-base");
        build_model(&narrow, "klein-base");
        store_transformer(&wide, types[i], STORED_F32);
        store_transformer(&narrow, types[i], types[i]);
        load_model(&wide, OMNI_FP32);
        load_model(&narrow, OMNI_FP32);
        AUTO_FREE char *file = golden_file(&wide, "kohya");
        struct picture p = draw_with(wide.m, file, 1), before = draw_with(narrow.m, NULL, 0);
        struct picture q = draw_with(narrow.m, file, 1), after = draw_with(narrow.m, NULL, 0);
        assert_true(same(&p, &q));
        assert_true(same(&before, &after));
        assert_false(same(&before, &q));
        struct picture *all[] = {&p, &q, &before, &after};
        for (size_t k = 0; k < ARRAY_LEN(all); k++)
            picture_free(all[k]);
        close_model(&wide);
        close_model(&narrow);
    }
}

static bool always(void *ctx)
{
    (void)ctx;
    return true;
}

static void cancelled_change_leaves_no_trace(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *file = golden_file(&x, "peft");
    struct omni_request r = plain();
    struct omni_lora lora = {file, 1};
    struct omni_callbacks cancel = {.cancelled = always};
    struct omni_result y;
    struct err e = {0};
    struct picture before = draw_with(x.m, NULL, 0);
    r.loras = &lora;
    r.lora_count = 1;
    assert_int_equal(omni_generate(x.m, &r, 1, &cancel, &y, NULL, &e), -ECANCELED);
    struct picture after = draw_with(x.m, NULL, 0);
    assert_true(same(&before, &after));
    picture_free(&before);
    picture_free(&after);
    close_model(&x);
}

static void another_set_undoes_what_only_the_last_one_touched(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *peft = golden_file(&x, "peft");
    AUTO_FREE char *kohya = golden_file(&x, "kohya");
    struct picture first = draw_with(x.m, kohya, 1), other = draw_with(x.m, peft, 1);
    struct picture again = draw_with(x.m, kohya, 1);
    assert_false(same(&first, &other));
    assert_true(same(&first, &again));
    picture_free(&first);
    picture_free(&other);
    picture_free(&again);
    close_model(&x);
}

/* In fp32 sums are fp32, whatever the checkpoint stores: the plan knows how large they will be. */
static void plan_counts_the_weights_that_will_be_made(void **state)
{
    struct fixture x;
    (void)state;
    build_model(&x, "klein-base");
    store_transformer(&x, STORED_BF16, STORED_BF16);
    load_model(&x, OMNI_FP32);
    const struct omni_model_info *info = omni_model_info(x.m);
    AUTO_FREE char *peft = golden_file(&x, "peft");
    struct omni_request r = plain();
    struct omni_lora lora = {peft, 1};
    struct err e = {0};
    uint64_t without, with, later, base = info->weight_bytes;
    assert_int_equal(omni_plan(x.m, &r, 1, &without, &e), 0);
    assert_int_equal(info->weight_bytes, base);
    assert_int_equal(info->resident_bytes, 0); /* nothing was drawn yet */
    r.loras = &lora;
    r.lora_count = 1;
    assert_int_equal(omni_plan(x.m, &r, 1, &with, &e), 0);
    uint64_t planned = info->weight_bytes;
    struct omni_result y = draw(x.m, &r);
    assert_int_equal(info->weight_bytes, planned);
    assert_int_equal(info->resident_bytes, planned);
    assert_int_equal(omni_plan(x.m, &r, 1, &later, &e), 0);
    assert_int_equal(later, with);
    picture_free(&y.picture);
    close_model(&x);
}

static void file_that_changed_is_read_again(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *a = written(&x, "one",
                                "proj_out.lora_A.weight 2 32\n"
                                "proj_out.lora_B.weight 16 2\n");
    struct picture first = draw_with(x.m, a, 1);
    AUTO_FREE char *b = written(&x, "one",
                                "proj_out.lora_A.weight 3 32\n"
                                "proj_out.lora_B.weight 16 3\n");
    struct picture second = draw_with(x.m, b, 1);
    assert_false(same(&first, &second));
    picture_free(&first);
    picture_free(&second);
    close_model(&x);
}

/* Rows 0 … 31 and 32 … 63 of the modulation's change are shift and scale in the original order. */
static void original_final_layer_changes_its_halves(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *own = written(&x, "own", "transformer.norm_out.linear.diff 64 32\n");
    AUTO_FREE char *bfl =
        written(&x, "bfl",
                "diffusion_model.final_layer.adaLN_modulation.1.lora_A.weight 2 32\n"
                "diffusion_model.final_layer.adaLN_modulation.1.lora_B.weight 64 2\n");
    struct lora l;
    struct err e = {0};
    assert_int_equal(lora_open(bfl, &l, &e), 0);
    const struct weights_entry *down = l.modules[0].down, *up = l.modules[0].up;
    float a[64], b[128], sum[64 * 32];
    lora_values(down, 0, 64, a);
    lora_values(up, 0, 128, b);
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 32; k++)
            sum[i * 32 + k] = b[(i + 32) % 64 * 2] * a[k] + b[(i + 32) % 64 * 2 + 1] * a[32 + k];
    lora_close(&l);
    size_t size;
    AUTO_FREE char *bytes = NULL;
    assert_int_equal(file_read(AT_FDCWD, own, 1 << 20, &bytes, &size, &e), 0);
    memcpy(bytes + size - sizeof(sum), sum, sizeof(sum));
    assert_int_equal(file_write_atomic(AT_FDCWD, own, bytes, size, &e), 0);
    struct picture base = draw_with(x.m, NULL, 0);
    struct picture p = draw_with(x.m, own, 1), q = draw_with(x.m, bfl, 1);
    assert_true(psnr(&p, &q, 0) >= LEAST_DB);
    assert_true(psnr(&p, &base, 0) < 50);
    picture_free(&base);
    picture_free(&p);
    picture_free(&q);
    close_model(&x);
}

/* ---- refusals ---- */

static void wrong_files_are_refused_with_a_sentence(void **state)
{
    static const struct {
        const char *list, *sentence;
    } rows[] = {
        {"a.weight 2 2\n", "holds no LoRA"},
        {"transformer.proj_out.lora_A.weight 2 32\n", "the other matrix of the pair is missing"},
        {"transformer.proj_out.lora_A.weight 2 32\ntransformer.proj_out.lora_B.weight 16 3\n",
         "not [rank, in] and [out, rank]"},
        {"transformer.proj_out.lora_A.weight 2 30\ntransformer.proj_out.lora_B.weight 16 2\n",
         "made for 16x30 numbers, but proj_out.weight of this model has 16x32"},
        {"transformer.proj_out.lora_A.weight 2 32\ntransformer.proj_out.lora_B.weight 48 2\n",
         "made for 48x32 numbers"},
        {"transformer.proj_out.lora_A.weight 2 32\ntransformer.proj_out.lora_B.weight 16 2\n"
         "transformer.proj_out.dora_scale 16\n",
         "this is DoRA"},
        {"lora_unet_x.hada_w1_a 2 2\n", "this is LoHa"},
        {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight 2 8\n"
         "lora_unet_input_blocks_4_1_proj_in.lora_up.weight 8 2\n",
         "none of its 1 modules is in this model (FLUX.2 [klein]), the first is "
         "'lora_unet_input_blocks_4_1_proj_in'; it seems to be made for Stable Diffusion"},
        {"transformer.proj_out.lora_A.weight 2 32\ntransformer.proj_out.lora_B.weight 16 2\n"
         "transformer.proj_out.alpha = inf\n",
         "is not a finite number"},
        {"transformer.proj_out.lora_A.weight 2 32\ntransformer.proj_out.lora_B.weight 16 2\n"
         "transformer.proj_out.lora_down.weight 2 32\n",
         "says the same"},
    };
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    struct picture before = draw_with(x.m, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_FREE char *path = written(&x, "wrong", rows[i].list);
        struct omni_request r = plain();
        struct omni_lora lora = {path, 1};
        struct omni_result y;
        struct err e = {0};
        r.loras = &lora;
        r.lora_count = 1;
        assert_true(omni_generate(x.m, &r, 1, NULL, &y, NULL, &e) < 0);
        if (!strstr(e.text, rows[i].sentence))
            fail_msg("\"%s\" does not say \"%s\"", e.text, rows[i].sentence);
    }
    struct picture after = draw_with(x.m, NULL, 0);
    assert_true(same(&before, &after));
    picture_free(&before);
    picture_free(&after);
    close_model(&x);
}

static void file_that_is_not_there_is_named(void **state)
{
    struct fixture x;
    struct omni_request r = plain();
    struct omni_lora lora = {"/tmp/no/such.safetensors", 1};
    struct omni_result y;
    struct err e = {0};
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    r.loras = &lora;
    r.lora_count = 1;
    assert_int_equal(omni_generate(x.m, &r, 1, NULL, &y, NULL, &e), -ENOENT);
    assert_non_null(strstr(e.text, "/tmp/no/such.safetensors"));
    close_model(&x);
}

static void file_in_both_namings_counts_once_by_the_models_own(void **state)
{
    static const char own[] = "transformer.x_embedder.lora_A.weight 2 16\n"
                              "transformer.x_embedder.lora_B.weight 32 2\n";
    static const char original[] = "diffusion_model.img_in.lora_A.weight 3 16\n"
                                   "diffusion_model.img_in.lora_B.weight 32 3\n";
    struct fixture x;
    AUTO_STR struct str list = {0};
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    str_addf(&list, "%s%s", original, own);
    AUTO_FREE char *both = written(&x, "both", list.data);
    AUTO_FREE char *one = written(&x, "one", own);
    AUTO_FREE char *other = written(&x, "other", original);
    struct picture p = draw_with(x.m, both, 1), q = draw_with(x.m, one, 1);
    struct picture r = draw_with(x.m, other, 1);
    assert_true(same(&p, &q));
    assert_false(same(&p, &r));
    picture_free(&p);
    picture_free(&q);
    picture_free(&r);
    close_model(&x);
}

static void partly_fitting_file_is_applied_and_says_what_does_not_fit(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *path =
        written(&x, "part",
                "transformer.proj_out.lora_A.weight 2 32\n"
                "transformer.proj_out.lora_B.weight 16 2\n"
                "transformer.transformer_blocks.9.attn.to_q.lora_A.weight 2 32\n"
                "transformer.transformer_blocks.9.attn.to_q.lora_B.weight 32 2\n");
    struct omni_request r = plain();
    struct omni_lora lora = {path, 1};
    r.loras = &lora;
    r.lora_count = 1;
    struct omni_result y = draw(x.m, &r);
    assert_int_equal(y.loras[0].modules, 2);
    assert_int_equal(y.loras[0].matched, 1);
    assert_string_equal(y.loras[0].unmatched, "transformer.transformer_blocks.9.attn.to_q");
    picture_free(&y.picture);
    close_model(&x);
}

static void infinite_sum_is_an_error_and_leaves_the_model_as_it_was(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *path = written(&x, "huge",
                                   "transformer.proj_out.lora_A.weight 2 32\n"
                                   "transformer.proj_out.lora_B.weight 16 2\n"
                                   "transformer.proj_out.alpha = 3e38\n"
                                   "transformer.x_embedder.lora_A.weight 2 16\n"
                                   "transformer.x_embedder.lora_B.weight 32 2\n");
    struct picture before = draw_with(x.m, NULL, 0);
    struct omni_request r = plain();
    struct omni_lora lora = {path, 10};
    struct omni_result y;
    struct err e = {0};
    r.loras = &lora;
    r.lora_count = 1;
    assert_int_equal(omni_generate(x.m, &r, 1, NULL, &y, NULL, &e), -EDOM);
    struct picture after = draw_with(x.m, NULL, 0);
    assert_true(same(&before, &after));
    picture_free(&before);
    picture_free(&after);
    close_model(&x);
}

static void requests_of_a_batch_must_have_the_same_set(void **state)
{
    struct fixture x;
    (void)state;
    open_model(&x, "klein-base", OMNI_FP32);
    AUTO_FREE char *path = golden_file(&x, "peft");
    struct omni_request r[2] = {plain(), plain()};
    struct omni_lora lora = {path, 1};
    struct omni_result y[2];
    struct err e = {0};
    r[1].loras = &lora;
    r[1].lora_count = 1;
    assert_int_equal(omni_generate(x.m, r, 2, NULL, y, NULL, &e), -EINVAL);
    assert_non_null(strstr(e.text, "differs from the first in LoRAs"));
    close_model(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(klein_draws_with_peft_bfl_and_kohya_files_as_diffusers_does),
        cmocka_unit_test(xl_draws_with_original_block_names_filters_and_encoders_as_diffusers_does),
        cmocka_unit_test(request_without_lora_gives_the_bytes_it_gave_before),
        cmocka_unit_test(halves_and_quantized_weights_take_loras_as_fp32_does),
        cmocka_unit_test(cancelled_change_leaves_no_trace),
        cmocka_unit_test(another_set_undoes_what_only_the_last_one_touched),
        cmocka_unit_test(plan_counts_the_weights_that_will_be_made),
        cmocka_unit_test(file_that_changed_is_read_again),
        cmocka_unit_test(original_final_layer_changes_its_halves),
        cmocka_unit_test(wrong_files_are_refused_with_a_sentence),
        cmocka_unit_test(file_that_is_not_there_is_named),
        cmocka_unit_test(file_in_both_namings_counts_once_by_the_models_own),
        cmocka_unit_test(partly_fitting_file_is_applied_and_says_what_does_not_fit),
        cmocka_unit_test(infinite_sum_is_an_error_and_leaves_the_model_as_it_was),
        cmocka_unit_test(requests_of_a_batch_must_have_the_same_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
