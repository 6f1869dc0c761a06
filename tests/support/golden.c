#include "golden.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "det.h"
#include "engine/omni.h"
#include "pictures.h"
#include "scratch.h"

#define MAX_PARTS  8
#define MAX_IMAGES 4

/* The file's text; the caller frees it. */
static char *contents(const char *folder, const char *name, size_t *size)
{
    AUTO_STR struct str path = {0};
    struct err e = {0};
    char *text = NULL;
    str_addf(&path, "%s/%s", folder, name);
    if (file_read(AT_FDCWD, path.data, 1 << 24, &text, size, &e) != 0)
        fail_msg("%s", e.text);
    return text;
}

static void copy(const char *from, const char *to, const char *folder, const char *name)
{
    AUTO_STR struct str path = {0};
    struct err e = {0};
    size_t size;
    AUTO_FREE char *text = contents(from, name, &size);
    str_addf(&path, "%s%s%s", to, *folder ? "/" : "", folder);
    assert_int_equal(file_mkdirs(path.data, &e), 0);
    path.len = 0;
    str_addf(&path, "%s/%s", to, name);
    assert_int_equal(file_write_atomic(AT_FDCWD, path.data, text, size, &e), 0);
}

/* TOKENIZER and, where it is there, TOKENIZER_2. */
static void link_tokenizers(const char *tokenizer, const char *to)
{
    static const char *const behind[] = {"", "_2"};
    for (size_t i = 0; i < ARRAY_LEN(behind); i++) {
        AUTO_STR struct str from = {0}, path = {0};
        str_addf(&from, "%s%s", tokenizer, behind[i]);
        str_addf(&path, "%s/tokenizer%s", to, behind[i]);
        AUTO_FREE char *absolute = realpath(from.data, NULL);
        assert_true(absolute || i > 0);
        if (absolute)
            assert_int_equal(symlink(absolute, path.data), 0);
    }
}

struct parts {
    struct {
        char name[32];
        struct det_part *tensors;
    } part[MAX_PARTS];
    int count;
};

static struct det_part *part_named(struct parts *p, const char *name)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->part[i].name, name) == 0)
            return p->part[i].tensors;
    assert_true(p->count < MAX_PARTS);
    snprintf(p->part[p->count].name, sizeof(p->part[0].name), "%s", name);
    return p->part[p->count++].tensors = det_part_new();
}

/* "PART NAME DIM DIM …" */
static void add_line(struct parts *p, char *line)
{
    char *rest, *part = strtok_r(line, " ", &rest), *name = strtok_r(NULL, " ", &rest), *dim;
    int64_t dims[5];
    int rank = 0;
    while (rank < 5 && (dim = strtok_r(NULL, " ", &rest)))
        dims[rank++] = strtoll(dim, NULL, 10);
    det_part_add(part_named(p, part), rank, dims, "%s", name);
}

void golden_write_parts(const char *golden, const char *to)
{
    struct parts p = {0};
    size_t size;
    char *next;
    AUTO_FREE char *text = contents(golden, "tensors.txt", &size);
    for (char *line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
        add_line(&p, line);
    for (int i = 0; i < p.count; i++) {
        const char *name = p.part[i].name;
        AUTO_STR struct str folder = {0};
        AUTO_STR struct str config_name = {0};
        str_addf(&folder, "%s/%s", to, name);
        str_addf(&config_name, "%s/config.json", name);
        AUTO_FREE char *config = contents(golden, config_name.data, &size);
        const char *stem =
            strncmp(name, "text_encoder", 12) == 0 ? "model" : "diffusion_pytorch_model";
        assert_int_equal(det_part_write(p.part[i].tensors, folder.data, stem, config), 0);
    }
}

void golden_build(const char *golden, const char *tokenizer, char *out)
{
    assert_non_null(mkdtemp(scratch_name(out, "omni-golden-XXXXXX")));
    copy(golden, out, "", "model_index.json");
    copy(golden, out, "scheduler", "scheduler/scheduler_config.json");
    link_tokenizers(tokenizer, out);
    golden_write_parts(golden, out);
}

static int integer(const json_t *row, const char *key)
{
    return (int)json_integer_value(json_object_get(row, key));
}

/* [width, height, k], see pictures.h. */
static struct picture made(const json_t *numbers, struct picture (*formula)(int, int, int))
{
    int n[3];
    for (size_t i = 0; i < 3; i++)
        n[i] = (int)json_integer_value(json_array_get(numbers, i));
    return formula(n[0], n[1], n[2]);
}

static enum omni_mode mode_of(const json_t *row)
{
    const char *mode = json_string_value(json_object_get(row, "mode"));
    static const struct {
        const char *name;
        enum omni_mode mode;
    } modes[] = {{"image_to_image", OMNI_IMAGE_TO_IMAGE},
                 {"inpaint", OMNI_INPAINT},
                 {"text_to_video", OMNI_TEXT_TO_VIDEO},
                 {"image_to_video", OMNI_IMAGE_TO_VIDEO}};
    for (size_t i = 0; i < ARRAY_LEN(modes) && mode; i++)
        if (strcmp(mode, modes[i].name) == 0)
            return modes[i].mode;
    assert_null(mode);
    return OMNI_TEXT_TO_IMAGE;
}

static void check_case(struct omni_model *m, const char *golden, const json_t *row, double least_db)
{
    struct picture images[MAX_IMAGES], mask = {0};
    json_t *made_of = json_object_get(row, "images"), *mask_of = json_object_get(row, "mask");
    int image_count = (int)json_array_size(made_of);
    for (int i = 0; i < image_count; i++)
        images[i] = made(json_array_get(made_of, (size_t)i), picture_by_formula);
    if (mask_of)
        mask = made(mask_of, mask_by_formula);
    struct omni_request r = {
        .mode = mode_of(row),
        .images = images,
        .image_count = image_count,
        .mask = mask_of ? &mask : NULL,
        .strength = json_number_value(json_object_get(row, "strength")),
        .prompt = json_string_value(json_object_get(row, "prompt")),
        .negative_prompt = json_string_value(json_object_get(row, "negative_prompt")),
        .width = integer(row, "width"),
        .height = integer(row, "height"),
        .frames = json_object_get(row, "frames") ? integer(row, "frames") : 1,
        .loop = json_is_true(json_object_get(row, "loop")),
        .steps = integer(row, "steps"),
        .guidance = json_number_value(json_object_get(row, "guidance")),
        .seed = (uint64_t)json_integer_value(json_object_get(row, "seed")),
        .scheduler = json_string_value(json_object_get(row, "scheduler")),
    };
    const char *file = json_string_value(json_object_get(row, "file"));
    struct omni_result result;
    struct err e = {0};
    size_t size;
    AUTO_FREE char *pixels = contents(golden, file, &size);
    if (omni_generate(m, &r, 1, NULL, &result, NULL, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(size, picture_frame_bytes(&result.picture) * (size_t)r.frames);
    struct picture expected = {r.width, r.height, r.frames, (uint8_t *)pixels};
    double db = psnr_least(&result.picture, &expected);
    print_message("# %s/%s: %.1f dB\n", golden, file, db);
    assert_true(db >= least_db);
    picture_free(&result.picture);
    picture_free(&mask);
    for (int i = 0; i < image_count; i++)
        picture_free(&images[i]);
}

void golden_check(const char *golden, const char *tokenizer, double least_db)
{
    char folder[64];
    struct omni_load_options options = {.device = "cpu", .precision = OMNI_FP32, .threads = 2};
    struct omni_model *m = NULL;
    struct err e = {0};
    size_t size;
    AUTO_FREE char *text = contents(golden, "cases.json", &size);
    json_t *cases = json_loadb(text, size, 0, NULL);
    assert_true(json_array_size(cases) > 0);
    golden_build(golden, tokenizer, folder);
    if (omni_model_load(folder, &options, &m, &e) != 0)
        fail_msg("%s", e.text);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(m, golden, json_array_get(cases, i), least_db);
    json_decref(cases);
    omni_model_free(m);
    file_remove_tree(AT_FDCWD, folder);
}
