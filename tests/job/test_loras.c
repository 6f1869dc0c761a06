/* LoRAs through a job, with the embedded model: where names are looked for, what may not be named,
 * what the record says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/lora_file.h"
#include "../support/scratch.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "job/run.h"

/* Changes of the last layer, of different ranks and so of different values. */
#define ONE   "transformer.proj_out.lora_A.weight 1 320\ntransformer.proj_out.lora_B.weight 64 1\n"
#define TWO   "transformer.proj_out.lora_A.weight 2 320\ntransformer.proj_out.lora_B.weight 64 2\n"
#define PARTS ONE "transformer.no.lora_A.weight 1 320\ntransformer.no.lora_B.weight 64 1\n"

struct fixture {
    char *folder;
    struct registry *registry;
    struct models *models;
    char notes[512];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    void *folder;
    struct err e;
    AUTO_STR struct str text = {0};
    AUTO_STR struct str path = {0};
    AUTO_FREE char *model = realpath("models/omni-mini", NULL);
    if (!f || !model || scratch_setup(&folder))
        return -1;
    f->folder = folder;
    static const char profile[] = "omni_model_id = %s\nmodality = image\ndefault_size = 64x64\n"
                                  "steps = 1\nprecision = fp32\n";
    str_add(&text, "[image_default]\n");
    str_addf(&text, profile, model);
    str_add(&text, "[styled]\n");
    str_addf(&text, profile, model);
    str_addf(&text, "lora = %s/kept/own.safetensors:0.5\n[devices]\nbatch = 8\n", f->folder);
    str_addf(&path, "%s/kept", f->folder);
    mkdir(path.data, 0700);
    setenv("OMNIFS_MODELS", f->folder, 1);
    if (registry_parse(text.data, text.len, "registry.ini", &f->registry, &e) ||
        models_new(&generator_omni, &(struct omni_device){.name = "cpu"}, UINT64_C(1) << 32, 2,
                   &f->models, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    void *folder = f->folder;
    models_free(f->models);
    registry_unref(f->registry);
    free(f);
    return scratch_teardown(&folder);
}

/* FOLDER/NAME */
static void write_lora(const struct fixture *f, const char *name, const char *list)
{
    AUTO_STR struct str path = {0};
    str_addf(&path, "%s/%s", f->folder, name);
    lora_file_write(list, path.data);
}

/* A job folder FOLDER/NAME with one file, or empty. */
static int job_folder(const struct fixture *f, const char *name, const char *file, const char *list)
{
    AUTO_STR struct str path = {0};
    str_addf(&path, "%s/%s", f->folder, name);
    assert_int_equal(mkdir(path.data, 0700), 0);
    int fd = open(path.data, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    str_addf(&path, "/%s", file ? file : "");
    if (file)
        lora_file_write(list, path.data);
    return fd;
}

static void note(void *ctx, struct run *r, const char *sentence)
{
    struct fixture *f = ctx;
    (void)r;
    snprintf(f->notes, sizeof f->notes, "%s", sentence);
}

static void prepare(struct fixture *f, struct run *r, int fd, const char *text)
{
    run_init(r, "20260131-000000-0123456789", "cat/prompt.ini", MODALITY_IMAGE);
    r->text = text;
    r->size = strlen(text);
    r->in_fd = r->out_fd = fd;
    r->registry = f->registry;
    r->models = f->models;
    r->created_ms = clock_wall_ms();
}

/* The picture's sha256, "" where the run failed, whose sentence goes to `why`. */
static void run_one(struct fixture *f, int fd, const char *text, char sha[SHA256_HEX_SIZE],
                    struct err *why)
{
    struct run_hooks hooks = {.ctx = f, .note = note};
    struct run r;
    prepare(f, &r, fd, text);
    r.hooks = &hooks;
    assert_int_equal(run_batch((struct run *[]){&r}, 1), 0);
    *why = r.error;
    sha[0] = '\0';
    if (r.state == JOB_DONE)
        memcpy(sha, r.outputs[0].sha256, SHA256_HEX_SIZE);
    run_free(&r);
}

#define PROMPT "prompt = a red apple\nseed = 1\n"

static void expect_drawn(struct fixture *f, int fd, const char *text, char sha[SHA256_HEX_SIZE])
{
    struct err why;
    run_one(f, fd, text, sha, &why);
    if (!*sha)
        fail_msg("%s", why.text);
}

static void expect_failure(struct fixture *f, int fd, const char *text, const char *sentence)
{
    char sha[SHA256_HEX_SIZE];
    struct err why;
    run_one(f, fd, text, sha, &why);
    assert_string_equal(sha, "");
    if (!strstr(why.text, sentence))
        fail_msg("\"%s\" does not say \"%s\"", why.text, sentence);
}

/* ---- tests ---- */

static void name_is_found_on_the_search_path_and_in_the_job_folder(void **state)
{
    struct fixture *f = *state;
    char plain[SHA256_HEX_SIZE], on_path[SHA256_HEX_SIZE], full[SHA256_HEX_SIZE],
        beside[SHA256_HEX_SIZE], after[SHA256_HEX_SIZE];
    write_lora(f, "style.safetensors", TWO);
    AUTO_FD int fd = job_folder(f, "job", "mine.safetensors", TWO);
    expect_drawn(f, fd, PROMPT, plain);
    expect_drawn(f, fd, PROMPT "lora = style\n", on_path);
    expect_drawn(f, fd, PROMPT "lora = style.safetensors:1\n", full);
    expect_drawn(f, fd, PROMPT "lora = mine.safetensors\n", beside);
    expect_drawn(f, fd, PROMPT "lora = none\n", after);
    assert_string_not_equal(plain, on_path);
    assert_string_equal(on_path, full);
    assert_string_equal(on_path, beside);
    assert_string_equal(plain, after);
}

static void prompt_opens_nothing_by_a_path(void **state)
{
    struct fixture *f = *state;
    AUTO_FD int fd = job_folder(f, "job", NULL, NULL);
    write_lora(f, "outside.safetensors", TWO);
    AUTO_STR struct str text = {0};
    str_addf(&text, PROMPT "lora = %s/outside.safetensors\n", f->folder);
    expect_failure(f, fd, text.data, "paths are for registry.ini");
    expect_failure(f, fd, PROMPT "lora = ../outside.safetensors\n", "paths are for registry.ini");
    expect_failure(f, fd, PROMPT "lora = .:1\n", "paths are for registry.ini");
}

static void missing_lora_is_one_sentence_with_the_places(void **state)
{
    struct fixture *f = *state;
    AUTO_FD int fd = job_folder(f, "job", NULL, NULL);
    expect_failure(f, fd, PROMPT "lora = nowhere:0.5\n",
                   "cat/prompt.ini: the LoRA nowhere is neither in the job folder nor, with or "
                   "without .safetensors, in ");
    expect_failure(f, fd, PROMPT "lora = nowhere:0.5\n", f->folder);
}

static void profile_names_loras_by_path(void **state)
{
    struct fixture *f = *state;
    char styled[SHA256_HEX_SIZE], same[SHA256_HEX_SIZE], plain[SHA256_HEX_SIZE];
    AUTO_FD int fd = job_folder(f, "job", "mine.safetensors", TWO);
    write_lora(f, "kept/own.safetensors", TWO);
    expect_drawn(f, fd, PROMPT "profile = styled\n", styled);
    expect_drawn(f, fd, PROMPT "lora = mine.safetensors:0.5\n", same);
    expect_drawn(f, fd, PROMPT "profile = styled\nlora = none\n", plain);
    assert_string_equal(styled, same);
    assert_string_not_equal(styled, plain);
}

static void record_names_the_files_and_what_fitted(void **state)
{
    struct fixture *f = *state;
    struct run_hooks hooks = {.ctx = f, .note = note};
    AUTO_FD int fd = job_folder(f, "job", "mine.safetensors", PARTS);
    struct run r;
    prepare(f, &r, fd, PROMPT "lora = mine.safetensors:0.25\n");
    r.hooks = &hooks;
    assert_int_equal(run_batch((struct run *[]){&r}, 1), 0);
    AUTO_FREE char *text = run_metadata(&r);
    json_t *j = json_loads(text, 0, NULL);
    json_t *lora = json_array_get(json_object_get(json_object_get(j, "model"), "loras"), 0);
    const char *name, *sha;
    double weight;
    int modules, matched;
    assert_int_equal(json_unpack(lora, "{ss sf ss si si}", "name", &name, "weight", &weight,
                                 "sha256", &sha, "modules", &modules, "matched", &matched),
                     0);
    assert_string_equal(name, "mine.safetensors");
    assert_true(weight == 0.25 && modules == 2 && matched == 1);
    AUTO_FD int file = openat(fd, "mine.safetensors", O_RDONLY);
    char expected[SHA256_HEX_SIZE];
    assert_int_equal(sha256_file_hex(file, expected), 0);
    assert_string_equal(sha, expected);
    assert_non_null(strstr(f->notes, "has 2 modules, of which 1 have no place in this model; the "
                                     "first is transformer.no"));
    json_decref(j);
    run_free(&r);
}

/* Same names, same batch key, different contents. */
static void files_of_different_job_folders_are_kept_apart_in_a_batch(void **state)
{
    struct fixture *f = *state;
    static const char text[] = PROMPT "lora = mine.safetensors\n";
    const char *const folders[] = {"one", "two", "three"}, *const lists[] = {ONE, TWO, ONE};
    char alone[3][SHA256_HEX_SIZE];
    struct run runs[3];
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = job_folder(f, folders[i], "mine.safetensors", lists[i]);
        expect_drawn(f, fds[i], text, alone[i]);
        prepare(f, &runs[i], fds[i], text);
    }
    assert_string_not_equal(alone[0], alone[1]);
    assert_int_equal(run_batch((struct run *[]){&runs[0], &runs[1], &runs[2]}, 3), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(runs[i].state, JOB_DONE);
        assert_string_equal(runs[i].outputs[0].sha256, alone[i]);
        run_free(&runs[i]);
        close(fds[i]);
    }
}

static void other_set_is_another_batch(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {"prompt = a\n", "prompt = b\nlora = x\n",
                                        "prompt = c\nlora = x:0.5\n", "prompt = d\nlora = x, y\n",
                                        "prompt = e\nlora = x:1\n"};
    char keys[ARRAY_LEN(texts)][SHA256_HEX_SIZE];
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct request r;
        struct err e;
        const struct profile *p;
        assert_int_equal(
            request_parse(texts[i], strlen(texts[i]), "prompt.ini", MODALITY_IMAGE, &r, &e), 0);
        assert_int_equal(request_normalise(&r, f->registry, "prompt.ini", &p, &e), 0);
        run_batch_key(&r, keys[i]);
        request_free(&r);
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(keys[i], keys[k]);
    assert_string_equal(keys[1], keys[4]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(name_is_found_on_the_search_path_and_in_the_job_folder),
        TEST(prompt_opens_nothing_by_a_path),
        TEST(missing_lora_is_one_sentence_with_the_places),
        TEST(profile_names_loras_by_path),
        TEST(record_names_the_files_and_what_fitted),
        TEST(files_of_different_job_folders_are_kept_apart_in_a_batch),
        TEST(other_set_is_another_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
