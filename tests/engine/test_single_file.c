/* Checkpoints in one file: the same pictures as from the folders they were made of, and a sentence
 * for everything that is not a checkpoint. The names in the files are those that diffusers' own
 * converters read (tests/reference/single_names.py). */
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/golden.h"
#include "../support/tensors.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/omni.h"
#include "../support/scratch.h"

#define GOLDEN "tests/engine/golden/"
#define QWEN   "tests/engine/golden/tokenizer-qwen"
#define CLIP   GOLDEN "clip/tokenizer"

enum { MAX_PARTS = 4 };

/* A golden checkpoint as a folder and as one file. */
struct twins {
    char folder[64]; /* the hub's layout */
    char alone[80];  /* a folder for the file */
    char file[128];
    struct tensors parts[MAX_PARTS];
    const char *names[MAX_PARTS];
    struct tensors single;
};

/* ---- making ---- */

static char *read_text(const char *folder, const char *name)
{
    AUTO_STR struct str path = {0};
    char *text = NULL;
    size_t size;
    struct err e = {0};
    str_addf(&path, "%s/%s", folder, name);
    if (file_read(AT_FDCWD, path.data, 1 << 24, &text, &size, &e) != 0)
        fail_msg("%s", e.text);
    return text;
}

static void copy(const char *from, const char *name, const char *to)
{
    AUTO_FREE char *text = read_text(from, name);
    AUTO_STR struct str path = {0};
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    str_addf(&path, "%s/%s", to, base);
    assert_int_equal(file_write_atomic(AT_FDCWD, path.data, text, strlen(text), NULL), 0);
}

static struct tensors *part(struct twins *t, const char *name, enum stored as)
{
    static const char *const known[] = {"transformer", "unet", "vae", "text_encoder",
                                        "text_encoder_2"};
    AUTO_STR struct str folder = {0};
    int i = 0;
    while (i < MAX_PARTS && t->names[i] && strcmp(t->names[i], name) != 0)
        i++;
    assert_true(i < MAX_PARTS);
    if (t->names[i])
        return &t->parts[i];
    for (size_t k = 0; k < ARRAY_LEN(known); k++)
        if (strcmp(known[k], name) == 0)
            t->names[i] = known[k];
    str_addf(&folder, "%s/%s", t->folder, name);
    tensors_read(&t->parts[i], folder.data);
    tensors_round(&t->parts[i], as);
    return &t->parts[i];
}

/* dst = src with its halves exchanged, or as it is, or transposed. */
static void fill(const char *way, const struct named_tensor *src, float *dst)
{
    size_t n = (size_t)tensors_elements(src), rows = (size_t)src->dims[0], columns = n / rows;
    bool swapped = strcmp(way, "swap") == 0, turned = strcmp(way, "transpose") == 0;
    for (size_t i = 0; i < n; i++)
        dst[turned    ? i % columns * rows + i / columns
            : swapped ? (i + n / 2) % n
                      : i] = src->data[i];
}

/* "NAME = WAY PART NAME …" */
static void add_line(struct twins *t, enum stored as, char *line)
{
    char *rest, *name = strtok_r(line, " ", &rest), *equals = strtok_r(NULL, " ", &rest);
    char *way = strtok_r(NULL, " ", &rest), *in = strtok_r(NULL, " ", &rest), *from;
    struct named_tensor *src[3];
    int count = 0;
    assert_string_equal(equals, "=");
    struct tensors *p = part(t, in, as);
    while (count < 3 && (from = strtok_r(NULL, " ", &rest))) {
        src[count] = tensors_find(p, from);
        if (!src[count++])
            fail_msg("%s has no %s", in, from);
    }
    int rank = src[0]->rank;
    int64_t dims[4] = {0, 1, 1, 1}; /* a filter is a matrix with two 1s behind */
    memcpy(dims, src[0]->dims, (size_t)rank * sizeof *dims);
    dims[0] *= count;
    if (strcmp(way, "filter") == 0)
        rank = 4;
    struct named_tensor *to = tensors_add(&t->single, name, rank, dims);
    for (int i = 0; i < count; i++)
        fill(way, src[i], to->data + (size_t)i * (size_t)tensors_elements(src[i]));
}

/* Writes the rounded parts back into the folder, so that both have the same numbers. */
static void rewrite_parts(struct twins *t)
{
    for (int i = 0; i < MAX_PARTS && t->names[i]; i++) {
        AUTO_STR struct str path = {0};
        bool text = strncmp(t->names[i], "text", 4) == 0;
        str_addf(&path, "%s/%s/%s.safetensors", t->folder, t->names[i],
                 text ? "model" : "diffusion_pytorch_model");
        tensors_write(&t->parts[i], STORED_F32, path.data);
    }
}

static void twins_make(struct twins *t, const char *golden, const char *tokenizer, enum stored as,
                       const char *file)
{
    *t = (struct twins){0};
    golden_build(golden, tokenizer, t->folder);
    snprintf(t->alone, sizeof t->alone, "%s/alone", t->folder);
    snprintf(t->file, sizeof t->file, "%s/%s", t->alone, file);
    assert_int_equal(mkdir(t->alone, 0700), 0);
    AUTO_FREE char *lines = read_text(golden, "single.txt");
    char *next;
    for (char *line = strtok_r(lines, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
        add_line(t, as, line);
    rewrite_parts(t);
    tensors_write(&t->single, as, t->file);
}

static void twins_end(struct twins *t)
{
    for (int i = 0; i < MAX_PARTS; i++)
        tensors_free(&t->parts[i]);
    tensors_free(&t->single);
    file_remove_tree(AT_FDCWD, t->folder);
}

/* FLUX.2 with its pipeline's options beside it, which are unusual in so small a checkpoint. */
static void klein_make(struct twins *t, enum stored as, const char *file)
{
    twins_make(t, GOLDEN "klein-base", QWEN, as, file);
    copy(t->folder, "model_index.json", t->alone);
}

/* ---- comparing ---- */

static const struct omni_load_options defaults = {
    .device = "cpu", .precision = OMNI_FP32, .threads = 2};

static int load(const char *path, const struct omni_part *parts, int count, struct omni_model **m,
                struct err *e)
{
    struct omni_load_options o = defaults;
    *e = (struct err){0};
    o.parts = parts;
    o.part_count = count;
    return omni_model_load(path, &o, m, e);
}

static void draw(const char *path, const struct omni_part *parts, int count,
                 struct omni_result *result)
{
    struct omni_request r = {.prompt = "a red fox",
                             .width = 64,
                             .height = 64,
                             .frames = 1,
                             .steps = 2,
                             .guidance = NAN,
                             .seed = 7};
    struct omni_model *m = NULL;
    struct err e;
    if (load(path, parts, count, &m, &e) != 0 ||
        omni_generate(m, &r, 1, NULL, result, NULL, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(strlen(omni_model_info(m)->sha256), 64);
    omni_model_free(m);
}

static void assert_same_picture(const struct twins *t, const struct omni_part *parts, int count)
{
    struct omni_result folder, file;
    draw(t->folder, NULL, 0, &folder);
    draw(t->file, parts, count, &file);
    size_t bytes = picture_frame_bytes(&folder.picture), same = 0;
    for (size_t i = 3; i < bytes; i++)
        same += folder.picture.rgb[i] == folder.picture.rgb[i - 3];
    assert_true(same < bytes / 2); /* it is a picture */
    assert_string_equal(folder.scheduler, file.scheduler);
    assert_memory_equal(folder.picture.rgb, file.picture.rgb, picture_frame_bytes(&folder.picture));
    picture_free(&folder.picture);
    picture_free(&file.picture);
}

static json_t *inspect(const char *path)
{
    AUTO_FREE char *text = NULL;
    struct err e = {0};
    if (omni_inspect(path, NULL, &text, &e) != 0)
        fail_msg("%s", e.text);
    return json_loads(text, 0, NULL);
}

static const json_t *part_of(const json_t *inspected, const char *name)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(inspected, "parts"), i,
                       p) if (strcmp(json_string_value(json_object_get(p, "name")), name) ==
                              0) return p;
    fail_msg("no part %s", name);
    return NULL;
}

/* ---- the same pictures ---- */

static void flux2_in_one_file_draws_as_its_folder(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        enum stored as;
    } cases[] = {
        {"klein-base.safetensors", STORED_F32}, {"klein-base.safetensors", STORED_BF16},
        {"klein-base.gguf", STORED_F32},        {"klein-base.gguf", STORED_F16},
        {"klein-base.gguf", STORED_Q8_0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct twins t;
        klein_make(&t, cases[i].as, cases[i].file);
        struct omni_part parts[] = {{"text_encoder", t.folder}, {"vae", t.folder}};
        assert_same_picture(&t, parts, 2); /* tokenizer and scheduler go along */
        twins_end(&t);
    }
}

static void zimage_in_one_file_draws_as_its_folder(void **state)
{
    (void)state;
    static const char *const files[] = {"z.safetensors", "z.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct twins t;
        char encoder[96], vae[96], tokenizer[96];
        twins_make(&t, GOLDEN "zimage", QWEN, i ? STORED_F16 : STORED_F32, files[i]);
        copy(t.folder, "model_index.json", t.alone);
        copy(t.folder, "transformer/config.json", t.alone); /* its axes are unusual */
        snprintf(encoder, sizeof encoder, "%s/text_encoder", t.folder);
        snprintf(vae, sizeof vae, "%s/vae", t.folder);
        snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", t.folder);
        struct omni_part parts[] = {
            {"text_encoder", encoder}, {"vae", vae}, {"tokenizer", tokenizer}};
        assert_same_picture(&t, parts, 3);
        twins_end(&t);
    }
}

static void stable_diffusion_in_one_file_draws_as_its_folder(void **state)
{
    (void)state;
    struct twins t;
    twins_make(&t, GOLDEN "ldm-sd", CLIP, STORED_F32, "sd.safetensors");
    assert_same_picture(&t, (struct omni_part[]){{"tokenizer", CLIP}}, 1);
    twins_end(&t);
}

static void configs_beside_a_file_say_what_its_shapes_do_not(void **state)
{
    (void)state;
    static const char *const parts[] = {"unet", "vae", "text_encoder"};
    struct twins t;
    twins_make(&t, GOLDEN "ldm-small", CLIP, STORED_F32, "sd.safetensors");
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char name[64], to[128];
        snprintf(name, sizeof name, "%s/config.json", parts[i]);
        snprintf(to, sizeof to, "%s/%s", t.alone, parts[i]);
        assert_int_equal(mkdir(to, 0700), 0);
        copy(t.folder, name, to);
    }
    assert_same_picture(&t, (struct omni_part[]){{"tokenizer", CLIP}}, 1);
    twins_end(&t);
}

static void stable_diffusion_2_in_one_file_draws_as_its_folder(void **state)
{
    (void)state;
    struct twins t;
    twins_make(&t, GOLDEN "ldm-sd2", CLIP "_2", STORED_F32, "768-v-ema.safetensors");
    assert_same_picture(&t, (struct omni_part[]){{"tokenizer", CLIP "_2"}}, 1);
    twins_end(&t);
}

/* Adds an entry to a .safetensors file, its bytes behind all others. */
static void append(const char *path, const char *name, const char *type, const void *value,
                   uint64_t bytes)
{
    AUTO_FREE char *text = NULL;
    AUTO_STR struct str out = {0};
    size_t size;
    uint64_t header;
    assert_int_equal(file_read(AT_FDCWD, path, 1 << 28, &text, &size, NULL), 0);
    memcpy(&header, text, sizeof header);
    uint64_t data = size - 8 - header;
    while (header && text[8 + header - 1] != '}')
        header--; /* padding */
    str_addn(&out, text, 8 + header - 1);
    str_addf(&out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[],\"data_offsets\":[%llu,%llu]}}", name,
             type, (unsigned long long)data, (unsigned long long)(data + bytes));
    while (out.len % 8)
        str_addc(&out, ' ');
    header = out.len - 8;
    memcpy(out.data, &header, sizeof header);
    str_addn(&out, text + size - data, data);
    str_addn(&out, value, bytes);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, out.data, out.len, NULL), 0);
}

static void what_training_left_in_a_file_changes_nothing(void **state)
{
    (void)state;
    struct twins t;
    int64_t step = 470000;
    int32_t updates = 12;
    double decay = 0.9999;
    twins_make(&t, GOLDEN "ldm-sd", CLIP, STORED_F32, "sd.safetensors");
    append(t.file, "global_step", "I64", &step, sizeof step);
    append(t.file, "model_ema.num_updates", "I32", &updates, sizeof updates);
    append(t.file, "model_ema.decay", "F64", &decay, sizeof decay);
    assert_same_picture(&t, (struct omni_part[]){{"tokenizer", CLIP}}, 1);
    twins_end(&t);
}

/* What the file's kind, size and prediction are found to be. */
static void assert_found(const char *file, const char *holds, int side, const char *scheduler)
{
    json_t *j = inspect(file);
    assert_string_equal(json_string_value(json_object_get(j, "holds")), holds);
    assert_string_equal(json_string_value(json_object_get(j, "scheduler")), scheduler);
    assert_int_equal(json_integer_value(json_object_get(j, "default_width")), side);
    json_decref(j);
}

static void stable_diffusion_2_base_is_told_by_its_name(void **state)
{
    (void)state;
    struct twins t;
    char path[160], tokenizer[160], absolute[4096];
    twins_make(&t, GOLDEN "ldm-sd2", CLIP "_2", STORED_F32, "sd2.safetensors");
    assert_non_null(realpath(CLIP "_2", absolute));
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", t.alone);
    assert_int_equal(symlink(absolute, tokenizer), 0);
    assert_found(t.file, "Stable Diffusion 2", 768, "ddim");
    snprintf(path, sizeof path, "%s/v2-1_512-ema.safetensors", t.alone);
    assert_int_equal(rename(t.file, path), 0);
    assert_found(path, "Stable Diffusion 2 base", 512, "pndm");
    twins_end(&t);
}

static void stable_diffusion_2_base_is_told_by_the_step_that_training_ended_at(void **state)
{
    (void)state;
    static const struct {
        int64_t step;
        const char *holds;
        int side;
        const char *scheduler;
    } cases[] = {{875000, "Stable Diffusion 2 base", 512, "pndm"},
                 {140000, "Stable Diffusion 2", 768, "ddim"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct twins t;
        char tokenizer[160], absolute[4096];
        twins_make(&t, GOLDEN "ldm-sd2", CLIP "_2", STORED_F32, "sd2.safetensors");
        assert_non_null(realpath(CLIP "_2", absolute));
        snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", t.alone);
        assert_int_equal(symlink(absolute, tokenizer), 0);
        append(t.file, "global_step", "I64", &cases[i].step, sizeof cases[i].step);
        assert_found(t.file, cases[i].holds, cases[i].side, cases[i].scheduler);
        twins_end(&t);
    }
}

static void stable_diffusion_xl_in_one_file_draws_as_its_folder(void **state)
{
    (void)state;
    struct twins t;
    twins_make(&t, GOLDEN "ldm-sdxl", CLIP, STORED_F16, "xl.safetensors");
    struct omni_part parts[] = {{"tokenizer", t.folder}, {"tokenizer_2", CLIP "_2"}};
    assert_same_picture(&t, parts, 2);
    twins_end(&t);
}

static void parts_beside_the_file_are_found_and_a_folder_with_one_file_is_that_file(void **state)
{
    (void)state;
    static const char *const names[] = {"vae", "text_encoder", "tokenizer"};
    struct twins t;
    struct omni_result result[2];
    klein_make(&t, STORED_F32, "klein-base.safetensors");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char from[128], to[128];
        snprintf(from, sizeof from, "%s/%s", t.folder, names[i]);
        snprintf(to, sizeof to, "%s/%s", t.alone, names[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    assert_same_picture(&t, NULL, 0);
    AUTO_STR struct str index = {0};
    str_addf(&index, "%s/vae", t.alone);
    assert_int_equal(unlink(index.data),
                     0); /* with model_index.json and vae it is a hub's folder */
    struct omni_part vae = {"vae", t.folder};
    draw(t.file, &vae, 1, &result[0]);
    draw(t.alone, &vae, 1, &result[1]);
    assert_memory_equal(result[0].picture.rgb, result[1].picture.rgb,
                        picture_frame_bytes(&result[0].picture));
    picture_free(&result[0].picture);
    picture_free(&result[1].picture);
    twins_end(&t);
}

static void a_part_elsewhere_takes_the_place_of_the_folders_own(void **state)
{
    (void)state;
    struct twins t, other;
    struct omni_result own, taken;
    klein_make(&t, STORED_F32, "a.safetensors");
    klein_make(&other, STORED_BF16, "b.safetensors");
    struct omni_part transformer = {"transformer", other.folder};
    draw(t.folder, &transformer, 1, &taken);
    draw(other.folder, NULL, 0, &own);
    assert_memory_equal(own.picture.rgb, taken.picture.rgb, picture_frame_bytes(&own.picture));
    picture_free(&own.picture);
    picture_free(&taken.picture);
    twins_end(&t);
    twins_end(&other);
}

/* ---- looking ---- */

static void inspection_tells_found_and_missing_parts(void **state)
{
    (void)state;
    struct twins t;
    struct err e = {0};
    klein_make(&t, STORED_Q8_0, "klein.gguf");
    AUTO_STR struct str index = {0};
    str_addf(&index, "%s/model_index.json", t.alone);
    assert_int_equal(unlink(index.data), 0);
    json_t *j = inspect(t.file);
    const json_t *transformer = part_of(j, "transformer");
    assert_string_equal(json_string_value(json_object_get(j, "family")), "flux2-klein");
    assert_non_null(strstr(json_string_value(json_object_get(j, "error")), "text_encoder"));
    assert_true(json_is_true(json_object_get(transformer, "found")));
    assert_int_equal(json_array_size(json_object_get(transformer, "unused")), 0);
    assert_true(
        json_integer_value(json_object_get(json_object_get(transformer, "dtypes"), "Q8_0")) > 10);
    static const char *const missing[] = {"text_encoder", "vae", "tokenizer"};
    for (size_t i = 0; i < ARRAY_LEN(missing); i++) {
        const json_t *p = part_of(j, missing[i]);
        assert_true(json_is_false(json_object_get(p, "found")));
        assert_non_null(strstr(json_string_value(json_object_get(p, "error")), "registry.ini"));
    }
    json_decref(j);
    assert_int_equal(omni_verify(t.file, NULL, &e), 0);
    twins_end(&t);
}

static void a_whole_file_is_described_as_a_folder_is(void **state)
{
    (void)state;
    struct twins t;
    twins_make(&t, GOLDEN "ldm-sdxl", CLIP, STORED_F32, "xl.safetensors");
    char link[128], absolute[4096];
    assert_non_null(realpath(CLIP, absolute));
    for (int i = 0; i < 2; i++) {
        snprintf(link, sizeof link, "%s/tokenizer%s", t.alone, i ? "_2" : "");
        assert_int_equal(symlink(absolute, link), 0);
    }
    json_t *file = inspect(t.file), *folder = inspect(t.folder);
    static const char *const same[] = {"family", "variant",   "parameters",
                                       "memory", "scheduler", "default_width"};
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        assert_non_null(json_object_get(file, same[i]));
        assert_true(json_equal(json_object_get(file, same[i]), json_object_get(folder, same[i])));
    }
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(file, "parts"), i, p)
        assert_int_equal(json_array_size(json_object_get(p, "unused")), 0);
    assert_int_equal(i, 4);
    json_decref(file);
    json_decref(folder);
    twins_end(&t);
}

/* ---- published sizes: shapes alone, in files that are holes ---- */

static void hole(struct tensors *s, int64_t rows, int64_t columns, const char *fmt, ...)
    ERR_PRINTF(4, 5);

static void hole(struct tensors *s, int64_t rows, int64_t columns, const char *fmt, ...)
{
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    tensors_add_hole(s, name, columns ? 2 : 1, (int64_t[]){rows, columns});
}

static void flux2_of_published_size(struct tensors *s, int64_t d, int64_t text, int doubles,
                                    int singles)
{
    static const char *const streams[] = {"img", "txt"};
    hole(s, d, 128, "img_in.weight");
    hole(s, d, text, "txt_in.weight");
    hole(s, d, 256, "time_in.in_layer.weight");
    hole(s, d, d, "time_in.out_layer.weight");
    hole(s, 6 * d, d, "double_stream_modulation_img.lin.weight");
    hole(s, 6 * d, d, "double_stream_modulation_txt.lin.weight");
    hole(s, 3 * d, d, "single_stream_modulation.lin.weight");
    hole(s, 2 * d, d, "final_layer.adaLN_modulation.1.weight");
    hole(s, 128, d, "final_layer.linear.weight");
    for (int i = 0; i < doubles; i++)
        for (int k = 0; k < 2; k++) {
            const char *x = streams[k];
            hole(s, 3 * d, d, "double_blocks.%d.%s_attn.qkv.weight", i, x);
            hole(s, d, d, "double_blocks.%d.%s_attn.proj.weight", i, x);
            hole(s, 128, 0, "double_blocks.%d.%s_attn.norm.query_norm.scale", i, x);
            hole(s, 128, 0, "double_blocks.%d.%s_attn.norm.key_norm.scale", i, x);
            hole(s, 6 * d, d, "double_blocks.%d.%s_mlp.0.weight", i, x);
            hole(s, d, 3 * d, "double_blocks.%d.%s_mlp.2.weight", i, x);
        }
    for (int i = 0; i < singles; i++) {
        hole(s, 9 * d, d, "single_blocks.%d.linear1.weight", i);
        hole(s, d, 4 * d, "single_blocks.%d.linear2.weight", i);
        hole(s, 128, 0, "single_blocks.%d.norm.query_norm.scale", i);
        hole(s, 128, 0, "single_blocks.%d.norm.key_norm.scale", i);
    }
}

static void zimage_block(struct tensors *s, const char *group, int i, bool modulated)
{
    enum { D = 3840, FFN = 10240 };
    static const char *const norms[] = {"attention_norm1", "attention_norm2", "ffn_norm1",
                                        "ffn_norm2"};
    hole(s, 3 * D, D, "%s.%d.attention.qkv.weight", group, i);
    hole(s, D, D, "%s.%d.attention.out.weight", group, i);
    hole(s, 128, 0, "%s.%d.attention.q_norm.weight", group, i);
    hole(s, 128, 0, "%s.%d.attention.k_norm.weight", group, i);
    hole(s, FFN, D, "%s.%d.feed_forward.w1.weight", group, i);
    hole(s, D, FFN, "%s.%d.feed_forward.w2.weight", group, i);
    hole(s, FFN, D, "%s.%d.feed_forward.w3.weight", group, i);
    for (int k = 0; k < 4; k++)
        hole(s, D, 0, "%s.%d.%s.weight", group, i, norms[k]);
    if (modulated) {
        hole(s, 4 * D, 256, "%s.%d.adaLN_modulation.0.weight", group, i);
        hole(s, 4 * D, 0, "%s.%d.adaLN_modulation.0.bias", group, i);
    }
}

static void zimage_of_published_size(struct tensors *s)
{
    static const struct {
        const char *name;
        int64_t out, in;
    } pairs[] = {{"x_embedder", 3840, 64},
                 {"t_embedder.mlp.0", 1024, 256},
                 {"t_embedder.mlp.2", 256, 1024},
                 {"cap_embedder.1", 3840, 2560},
                 {"final_layer.adaLN_modulation.1", 3840, 256},
                 {"final_layer.linear", 64, 3840}};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        hole(s, pairs[i].out, pairs[i].in, "%s.weight", pairs[i].name);
        hole(s, pairs[i].out, 0, "%s.bias", pairs[i].name);
    }
    hole(s, 2560, 0, "cap_embedder.0.weight");
    hole(s, 3840, 0, "x_pad_token"); /* GGUF files drop the leading 1 */
    hole(s, 1, 3840, "cap_pad_token");
    hole(s, 3840, 0, "norm_final.weight");
    for (int i = 0; i < 2; i++) {
        zimage_block(s, "noise_refiner", i, true);
        zimage_block(s, "context_refiner", i, false);
    }
    for (int i = 0; i < 30; i++)
        zimage_block(s, "layers", i, true);
}

static void assert_published(struct tensors *s, enum stored as, const char *ending,
                             const char *family, double billions)
{
    char pattern[32], path[SCRATCH_SIZE];
    snprintf(pattern, sizeof pattern, "omni-size-XXXXXX%s", ending);
    scratch_name(path, pattern);
    int fd = mkstemps(path, (int)strlen(ending));
    assert_true(fd >= 0);
    close(fd);
    tensors_write(s, as, path);
    json_t *j = inspect(path);
    unlink(path);
    const json_t *p = part_of(j, "transformer");
    assert_string_equal(json_string_value(json_object_get(j, "family")), family);
    assert_true(json_is_null(json_object_get(p, "error")));
    assert_int_equal(json_array_size(json_object_get(p, "unused")), 0);
    assert_float_equal(json_integer_value(json_object_get(p, "parameters")) / 1e9, billions, 0.01);
    json_decref(j);
    tensors_free(s);
}

static void shapes_of_published_transformers_are_understood(void **state)
{
    (void)state;
    struct tensors s = {0};
    flux2_of_published_size(&s, 3072, 7680, 5, 20);
    assert_published(&s, STORED_BF16, ".safetensors", "flux2-klein", 3.87);
    flux2_of_published_size(&s, 4096, 12288, 8, 24);
    assert_published(&s, STORED_Q8_0, ".gguf", "flux2-klein", 9.08);
    zimage_of_published_size(&s);
    assert_published(&s, STORED_Q8_0, ".gguf", "z-image", 6.15);
}

/* ---- refusals ---- */

static void assert_refused(const char *path, int code, const char *part_of_text)
{
    struct omni_model *m = NULL;
    struct err e;
    assert_int_equal(load(path, NULL, 0, &m, &e), code);
    if (!strstr(e.text, part_of_text))
        fail_msg("expected '%s' in: %s", part_of_text, e.text);
}

static void a_missing_part_is_named_with_what_to_do(void **state)
{
    (void)state;
    struct twins t;
    struct err e;
    struct omni_model *m = NULL;
    klein_make(&t, STORED_F32, "klein.safetensors");
    assert_refused(t.file, -ENOENT,
                   "holds the transformer of FLUX.2 [klein] without a text_encoder; "
                   "name one with 'text_encoder = PATH' in registry.ini");
    struct omni_part parts[] = {{"text_encoder", t.folder}, {"vae", "/nowhere"}};
    assert_int_equal(load(t.file, parts, 1, &m, &e), -ENOENT);
    assert_non_null(strstr(e.text, "without a vae"));
    assert_int_equal(load(t.file, parts, 2, &m, &e), -ENOENT);
    assert_non_null(strstr(e.text, "/nowhere is missing"));
    twins_end(&t);
}

static void write_small(const char *path, const char *const *names, int count, int rows)
{
    struct tensors s = {0};
    for (int i = 0; i < count; i++)
        tensors_add(&s, names[i], 2, (int64_t[]){rows, 32});
    tensors_write(&s, STORED_F32, path);
    tensors_free(&s);
}

static void files_of_other_models_are_named(void **state)
{
    (void)state;
    char folder[SCRATCH_SIZE], path[96], second[96];
    assert_non_null(mkdtemp(scratch_name(folder, "omni-other-XXXXXX")));
    snprintf(path, sizeof path, "%s/x.safetensors", folder);
    snprintf(second, sizeof second, "%s/y.gguf", folder);
    assert_refused(path, -ENOENT, "is not there");
    write_small(path, (const char *[]){"double_blocks.0.img_mod.lin.weight"}, 1, 6);
    assert_refused(path, -EINVAL, "holds the transformer of FLUX.1, which cannot be used");
    write_small(path, (const char *[]){"lora_unet_x.lora_down.weight", "b"}, 2, 6);
    assert_refused(path, -EINVAL, "its 2 tensors ('b' …) are of no known model");
    assert_refused(folder, -EINVAL, "of no known model");
    write_small(second, (const char *[]){"a"}, 1, 6);
    assert_refused(folder, -ENOENT, "model_index.json");
    file_remove_tree(AT_FDCWD, folder);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    struct twins t;
    struct stat st;
    struct err e = {0};
    klein_make(&t, STORED_F32, "klein.gguf");
    assert_int_equal(stat(t.file, &st), 0);
    assert_int_equal(truncate(t.file, st.st_size - 100), 0);
    assert_refused(t.file, -EINVAL, "truncated");
    assert_int_equal(omni_verify(t.file, NULL, &e), -EINVAL);
    assert_int_equal(truncate(t.file, 3), 0);
    assert_refused(t.file, -EINVAL, "too few");

    strcpy(tensors_find(&t.single, "txt_in.weight")->name, "renamed.weight");
    tensors_write(&t.single, STORED_F32, t.file);
    assert_refused(t.file, -EINVAL, "'context_embedder.weight' is missing");
    strcpy(tensors_find(&t.single, "renamed.weight")->name, "txt_in.weight");

    struct named_tensor *qkv = tensors_find(&t.single, "double_blocks.1.txt_attn.qkv.weight");
    qkv->dims[0]--;
    tensors_write(&t.single, STORED_F32, t.file);
    assert_refused(t.file, -EINVAL, "cannot be divided into 3 equal parts");
    qkv->dims[0]++;

    tensors_find(&t.single, "single_blocks.1.norm.key_norm.scale")->data[2] = NAN;
    tensors_write(&t.single, STORED_Q8_0, t.file);
    assert_int_equal(omni_verify(t.file, NULL, &e), -EDOM);
    assert_non_null(strstr(e.text, "single_transformer_blocks.1.attn.norm_k.weight"));
    twins_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flux2_in_one_file_draws_as_its_folder),
        cmocka_unit_test(zimage_in_one_file_draws_as_its_folder),
        cmocka_unit_test(stable_diffusion_in_one_file_draws_as_its_folder),
        cmocka_unit_test(configs_beside_a_file_say_what_its_shapes_do_not),
        cmocka_unit_test(stable_diffusion_2_in_one_file_draws_as_its_folder),
        cmocka_unit_test(stable_diffusion_2_base_is_told_by_its_name),
        cmocka_unit_test(stable_diffusion_2_base_is_told_by_the_step_that_training_ended_at),
        cmocka_unit_test(what_training_left_in_a_file_changes_nothing),
        cmocka_unit_test(stable_diffusion_xl_in_one_file_draws_as_its_folder),
        cmocka_unit_test(parts_beside_the_file_are_found_and_a_folder_with_one_file_is_that_file),
        cmocka_unit_test(a_part_elsewhere_takes_the_place_of_the_folders_own),
        cmocka_unit_test(inspection_tells_found_and_missing_parts),
        cmocka_unit_test(a_whole_file_is_described_as_a_folder_is),
        cmocka_unit_test(shapes_of_published_transformers_are_understood),
        cmocka_unit_test(a_missing_part_is_named_with_what_to_do),
        cmocka_unit_test(files_of_other_models_are_named),
        cmocka_unit_test(damaged_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
