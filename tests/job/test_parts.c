/* Profiles that take parts of their model from elsewhere: what the engine is told, and when it is
 * told again. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/scratch.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "job/models.h"
#include "job/registry.h"

/* A generator that remembers what it was asked to load. */
struct seen {
    int loads;
    bool fails;
    char path[REGISTRY_PATH_SIZE];
    struct str parts; /* "name=path " … */
    struct omni_model_info info;
};

static int load(void *ctx, const char *path, const struct omni_load_options *o, void **model,
                struct err *e)
{
    struct seen *s = ctx;
    s->loads++;
    s->parts.len = 0;
    snprintf(s->path, sizeof s->path, "%s", path);
    for (int i = 0; i < o->part_count; i++)
        str_addf(&s->parts, "%s=%s ", o->parts[i].name, o->parts[i].path);
    s->info = (struct omni_model_info){.family = "seen", .precision = "fp32", .device = "cpu"};
    *model = s;
    return s->fails ? err_set(e, -EINVAL, "the file is damaged") : 0;
}

static const struct omni_model_info *info(const void *model)
{
    return &((const struct seen *)model)->info;
}

static void forget(void *model)
{
    (void)model;
}

struct fixture {
    const char *folder;
    struct seen seen;
    struct models *models;
    struct registry *registry;
};

static void touch(const struct fixture *f, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    scratch_write(path, text);
}

static int setup(void **state)
{
    static const char text[] = "[plain]\nomni_model_id = x.gguf\nmodality = image\n"
                               "[mended]\nomni_model_id = x.gguf\nmodality = image\n"
                               "text_encoder = hub\nvae = hub/vae\n"
                               "[wrong]\nomni_model_id = x.gguf\nmodality = image\n"
                               "tokenizer_2 = nowhere\n";
    struct fixture *f = calloc(1, sizeof *f);
    void *folder;
    struct err e;
    if (!f || scratch_setup(&folder))
        return -1;
    f->folder = folder;
    static const char *const folders[] = {"hub", "hub/vae", "hub/text_encoder"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", f->folder, folders[i]);
        mkdir(path, 0700);
    }
    touch(f, "x.gguf", "weights");
    touch(f, "hub/text_encoder/model.safetensors", "weights");
    setenv("OMNIFS_MODELS", f->folder, 1);
    const struct generator g = {.ctx = &f->seen, .load = load, .info = info, .free = forget};
    *state = f;
    if (registry_parse(text, strlen(text), "registry.ini", &f->registry, &e) == 0 &&
        models_new(&g, NULL, 1 << 30, 0, &f->models, &e) == 0)
        return 0;
    fprintf(stderr, "%s\n", e.text);
    return -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *folder = (void *)(uintptr_t)f->folder;
    models_free(f->models);
    registry_unref(f->registry);
    str_free(&f->seen.parts);
    free(f);
    return scratch_teardown(&folder);
}

static int get(struct fixture *f, const char *profile, struct model **m, struct err *e)
{
    *e = (struct err){0};
    return models_get(f->models, registry_profile(f->registry, profile), m, e);
}

static void the_engine_is_told_where_parts_lie(void **state)
{
    struct fixture *f = *state;
    struct model *m;
    struct err e;
    AUTO_STR struct str expected = {0};
    assert_int_equal(get(f, "mended", &m, &e), 0);
    str_addf(&expected, "text_encoder=%s/hub vae=%s/hub/vae ", f->folder, f->folder);
    assert_string_equal(str_cstr(&f->seen.parts), expected.data);
    assert_non_null(strstr(f->seen.path, "/x.gguf"));
}

static void one_file_with_other_parts_is_another_model(void **state)
{
    struct fixture *f = *state;
    struct model *plain, *mended, *again;
    struct err e;
    assert_int_equal(get(f, "plain", &plain, &e), 0);
    assert_int_equal(f->seen.parts.len, 0);
    assert_int_equal(get(f, "mended", &mended, &e), 0);
    assert_int_equal(get(f, "plain", &again, &e), 0);
    assert_ptr_not_equal(plain, mended);
    assert_ptr_equal(plain, again);
    assert_int_equal(f->seen.loads, 2);
}

static void a_part_that_is_not_there_names_key_and_profile(void **state)
{
    struct fixture *f = *state;
    struct model *m;
    struct err e, why;
    assert_int_equal(get(f, "wrong", &m, &e), -ENOENT);
    assert_non_null(strstr(e.text, "tokenizer_2 of [wrong]: the model nowhere is in none of"));
    assert_int_equal(f->seen.loads, 0);
    assert_false(models_available(f->models, registry_profile(f->registry, "wrong"), &why));
    assert_true(models_available(f->models, registry_profile(f->registry, "plain"), &why));
}

static void a_failure_is_forgotten_when_the_file_or_a_part_changes(void **state)
{
    struct fixture *f = *state;
    struct model *m;
    struct err e;
    f->seen.fails = true;
    assert_int_equal(get(f, "mended", &m, &e), -EINVAL);
    assert_int_equal(get(f, "mended", &m, &e), -EINVAL);
    assert_int_equal(f->seen.loads, 1);
    touch(f, "x.gguf", "other weights");
    assert_int_equal(get(f, "mended", &m, &e), -EINVAL);
    assert_int_equal(f->seen.loads, 2);
    touch(f, "hub/text_encoder/model.safetensors", "other weights");
    f->seen.fails = false;
    assert_int_equal(get(f, "mended", &m, &e), 0);
    assert_int_equal(f->seen.loads, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_engine_is_told_where_parts_lie, setup, teardown),
        cmocka_unit_test_setup_teardown(one_file_with_other_parts_is_another_model, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_part_that_is_not_there_names_key_and_profile, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_failure_is_forgotten_when_the_file_or_a_part_changes,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
