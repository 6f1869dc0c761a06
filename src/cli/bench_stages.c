/* The stages' part of `omnifs bench`: whole requests through run_batch, warm. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/bench.h"
#include "job/run.h"

#define ROUNDS 3

/* The figures of one run, in the order of the columns. */
enum figure { ENCODE, STEPS, STEP, DECODE, POSTPROCESS, PACKAGE, TOTAL, FIGURES };
static const char *const figure_names[FIGURES] = {"encode",      "steps",   "s/step", "decode",
                                                  "postprocess", "package", "total"};

static void figures_of(const struct run *r, double out[FIGURES])
{
    const struct run_timings *t = &r->timings;
    int steps = r->request.steps > 0 ? r->request.steps : 1;
    out[ENCODE] = t->encode;
    out[STEPS] = t->steps;
    out[STEP] = t->steps / steps;
    out[DECODE] = t->decode;
    out[POSTPROCESS] = t->stage[STAGE_POSTPROCESS];
    out[PACKAGE] = t->stage[STAGE_PACKAGE];
    out[TOTAL] = t->total;
}

struct setting {
    struct bench *bench;
    const struct profile *profile;
    int folder; /* of results */
};

static int run_once(const struct setting *s, double figures[FIGURES], char size[48], struct err *e)
{
    char id[ID_SIZE], text[256];
    struct run r;
    id_new(id);
    run_init(&r, id, "bench", s->profile->modality);
    snprintf(text, sizeof text, "prompt = a red apple, 3d render\nprofile = %s\nseed = 1\n",
             s->profile->name);
    r.text = text;
    r.size = strlen(text);
    r.in_fd = r.out_fd = s->folder;
    r.registry = s->bench->registry;
    r.models = s->bench->models;
    r.created_ms = clock_wall_ms();
    run_batch((struct run *[]){&r}, 1);
    int rc = r.state == JOB_DONE ? 0 : err_set(e, -EIO, "%s: %s", s->profile->name, r.error.text);
    if (!rc) {
        figures_of(&r, figures);
        snprintf(size, 48, "%dx%dx%d of %dx%d, %d steps", r.request.width, r.request.height,
                 r.request.frames, r.draw_width, r.draw_height, r.request.steps);
    }
    run_free(&r);
    return rc;
}

static int bench_profile(const struct setting *s, json_t *rows, struct err *e)
{
    double values[FIGURES][ROUNDS];
    char size[48] = "";
    for (int i = -1; i < ROUNDS; i++) { /* the first one loads the model */
        double figures[FIGURES] = {0};
        int rc = run_once(s, figures, size, e);
        if (rc)
            return rc;
        for (int f = 0; i >= 0 && f < FIGURES; f++)
            values[f][i] = figures[f];
    }
    json_t *row = json_pack("{s:s, s:s}", "profile", s->profile->name, "size", size);
    for (int f = 0; f < FIGURES; f++)
        json_object_set_new(row, figure_names[f], json_real(bench_median(values[f], ROUNDS)));
    json_array_append_new(rows, row);
    return 0;
}

static int each_profile(struct setting *s, json_t *rows, struct err *e)
{
    const struct cli_words *named = s->bench->profiles;
    int rc = 0;
    for (int i = 0; !rc && i < named->count; i++) {
        s->profile = registry_profile(s->bench->registry, named->words[i]);
        rc = bench_profile(s, rows, e);
    }
    for (int i = 0; !rc && !named->count && i < s->bench->registry->profile_count; i++) {
        s->profile = &s->bench->registry->profiles[i];
        rc = bench_profile(s, rows, e);
    }
    return rc;
}

int bench_stages(struct bench *b, json_t *rows, struct err *e)
{
    char folder[] = "/tmp/omnifs-bench-XXXXXX";
    if (!mkdtemp(folder))
        return err_set(e, -errno, "%s: %s", folder, strerror(errno));
    struct setting s = {b, NULL, open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    int rc = s.folder < 0 ? err_set(e, -errno, "%s: %s", folder, strerror(errno))
                          : each_profile(&s, rows, e);
    if (s.folder >= 0)
        close(s.folder);
    file_remove_tree(AT_FDCWD, folder);
    return rc;
}
