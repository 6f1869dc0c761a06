#include "run_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "golden.h"
#include "scratch.h"

void run_bench_memory(struct run_bench *b, uint64_t bytes)
{
    struct err e;
    if (b->models)
        models_free(b->models);
    if (models_new(&b->generator, &(struct omni_device){.name = "cpu"}, bytes, 2, &b->models, &e))
        fail_msg("%s", e.text);
}

void run_bench_omni(struct run_bench *b)
{
    AUTO_FREE char *models = realpath("models", NULL);
    AUTO_STR struct str path = {0};
    assert_non_null(models);
    str_addf(&path, "%s:%s", b->folder, models);
    setenv("OMNIFS_MODELS", path.data, 1);
    b->generator = generator_omni;
    run_bench_memory(b, UINT64_C(1) << 32);
}

int run_bench_new(void **state, const char *registry)
{
    struct run_bench *b = calloc(1, sizeof *b);
    void *folder;
    struct err e;
    char path[128];
    if (!b || scratch_setup(&folder))
        return -1;
    b->folder = folder;
    snprintf(path, sizeof path, "%s/tiny", b->folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/nets", b->folder);
    golden_write_parts("tests/engine/golden/upscale", path);
    setenv("OMNIFS_MODELS", b->folder, 1);
    script_init(&b->script);
    b->generator = script_generator(&b->script);
    b->fd = open(b->folder, O_RDONLY | O_DIRECTORY);
    *state = b;
    if (registry_parse(registry, strlen(registry), "registry.ini", &b->registry, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    run_bench_memory(b, 1 << 30);
    return 0;
}

int run_bench_free(void **state)
{
    struct run_bench *b = *state;
    void *folder = b->folder;
    models_free(b->models);
    registry_unref(b->registry);
    close(b->fd);
    free(b);
    return scratch_teardown(&folder);
}

/* ---- runs ---- */

static void on_note(void *ctx, struct run *r, const char *sentence)
{
    struct run_bench *b = ctx;
    (void)r;
    snprintf(b->notes, sizeof b->notes, "%s", sentence);
}

static void on_progress(void *ctx, struct run *r, enum job_stage stage, int done, int total,
                        double eta)
{
    struct bench_progress *p = &((struct run_bench *)ctx)->progress;
    (void)r;
    (void)eta;
    p->falls += stage == p->stage && done < p->done;
    if (stage == STAGE_POSTPROCESS || stage == STAGE_ROUTE) {
        p->stage = stage;
        p->done = done;
        p->total = total;
    }
}

void bench_prepare(struct run_bench *b, struct run *r, enum modality m, const char *text)
{
    run_init(r, "20260131-000000-0123456789", text ? "cat/prompt.ini" : "metadata.json", m);
    r->text = text;
    r->size = text ? strlen(text) : 0;
    r->in_fd = r->out_fd = b->fd;
    r->registry = b->registry;
    r->models = b->models;
    r->created_ms = clock_wall_ms();
}

void bench_run(struct run_bench *b, struct run *r)
{
    const struct run_hooks hooks = {.ctx = b, .note = on_note, .progress = on_progress};
    b->notes[0] = '\0';
    b->progress = (struct bench_progress){.stage = STAGE_COUNT};
    r->hooks = &hooks;
    assert_int_equal(run_batch((struct run *[]){r}, 1), 0);
    r->hooks = NULL;
}

void bench_run_one(struct run_bench *b, struct run *r, enum modality m, const char *text)
{
    bench_prepare(b, r, m, text);
    bench_run(b, r);
}

void expect_done(const struct run *r)
{
    if (r->state != JOB_DONE)
        fail_msg("%s: %s", job_state_names[r->state], r->error.text);
}

void expect_failure(struct run_bench *b, enum modality m, const char *text, const char *says)
{
    struct run r;
    bench_run_one(b, &r, m, text);
    if (r.state != JOB_FAILED || !strstr(r.error.text, says))
        fail_msg("expected '%s', found %s '%s'", says, job_state_names[r.state], r.error.text);
    run_free(&r);
}

/* ---- files ---- */

void bench_write(struct run_bench *b, const char *name, struct picture p, enum media_format format,
                 double fps)
{
    struct media_options o;
    struct err e;
    media_options_init(&o, format);
    o.fps = fps;
    o.lossless = true;
    if (media_write(b->fd, name, &p, &o, &e))
        fail_msg("%s", e.text);
    picture_free(&p);
}

struct picture bench_read(const struct run_bench *b, const char *name)
{
    struct media_limits limits;
    struct picture p;
    struct err e;
    media_limits_init(&limits);
    if (media_read_image(b->fd, name, &limits, MEDIA_READ_RGB, &p, &e))
        fail_msg("%s", e.text);
    return p;
}

struct picture bench_picture(struct run_bench *b, const char *text)
{
    struct run r;
    bench_run_one(b, &r, MODALITY_IMAGE, text);
    expect_done(&r);
    run_free(&r);
    return bench_read(b, "image.png");
}

json_t *bench_metadata(const struct run_bench *b)
{
    AUTO_FREE char *text = NULL;
    struct err e;
    size_t size;
    if (file_read(b->fd, "metadata.json", 1 << 20, &text, &size, &e))
        fail_msg("%s", e.text);
    json_t *j = json_loadb(text, size, 0, NULL);
    assert_non_null(j);
    return j;
}
