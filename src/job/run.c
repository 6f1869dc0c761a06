#include "job/loras.h"
#include "job/run.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/clock.h"
#include "job/modes.h"
#include "safety/output_filter.h"

const char *const job_stage_names[STAGE_COUNT] = {
    "normalise", "route", "diffuse", "postprocess", "safety", "package",
};
const char *const job_state_names[] = {
    "queued", "running", "publishing", "done", "failed", "cancelled", "blocked",
};

void run_init(struct run *r, const char *id, const char *where, enum modality modality)
{
    *r = (struct run){.modality = modality,
                      .in_fd = -1,
                      .out_fd = -1,
                      .state = JOB_RUNNING,
                      .output_verdict = "not_checked",
                      .watermark = "none"};
    r->request.modality = modality;
    snprintf(r->id, sizeof r->id, "%s", id);
    snprintf(r->where, sizeof r->where, "%s", where);
}

static void free_pictures(struct picture **list, int *count)
{
    for (int i = 0; i < *count; i++)
        picture_free(&(*list)[i]);
    free(*list);
    *list = NULL;
    *count = 0;
}

/* Pixels are large: they go as soon as no stage needs them any more. */
static void free_pixels(struct run *r)
{
    free_pictures(&r->pictures, &r->picture_count);
    free_pictures(&r->references, &r->reference_count);
    picture_free(&r->mask);
    picture_free(&r->clip);
}

void run_free(struct run *r)
{
    free_pixels(r);
    free(r->outputs);
    run_free_loras(r);
    request_free(&r->request);
    r->outputs = NULL;
    r->output_count = 0;
}

bool run_cancelled(struct run *r)
{
    if (r->deadline > 0 && clock_seconds() > r->deadline) {
        r->timed_out = true;
        return true;
    }
    return r->hooks && r->hooks->cancelled && r->hooks->cancelled(r->hooks->ctx, r);
}

void run_progress(struct run *r, enum job_stage stage, int done, int total)
{
    if (r->hooks && r->hooks->progress)
        r->hooks->progress(r->hooks->ctx, r, stage, done, total, -1);
}

void run_note(struct run *r, const char *fmt, ...)
{
    if (!r->hooks || !r->hooks->note)
        return;
    struct err e;
    va_list ap;
    va_start(ap, fmt);
    err_setv(&e, -1, fmt, ap);
    va_end(ap);
    r->hooks->note(r->hooks->ctx, r, e.text);
}

/* ---- how a run ends ---- */

void run_fail(struct run *r, const struct err *e)
{
    r->state = JOB_FAILED;
    r->error = *e;
    if (e->code == -ENODEV && *r->lost && models_lost(r->models, NULL))
        err_set(&r->error, -ENODEV,
                "%.200s; before, %.200s; so it is not tried a third time, tell the operator",
                e->text, r->lost);
}

static void end_run(struct run *r, const struct err *e)
{
    if (r->timed_out) {
        r->state = JOB_FAILED;
        err_set(&r->error, -ETIMEDOUT,
                "the request took longer than the %g seconds that %s allows (timeout in "
                "registry.ini); ask for fewer steps, frames or pixels",
                r->profile->timeout, r->profile->name);
    } else if (e->code == -ECANCELED) {
        r->state = JOB_CANCELLED;
        r->error.code = 0;
    } else
        run_fail(r, e);
}

/* Runs one stage of a run that still lives, and books the time. */
static void do_stage(struct run *r, enum job_stage stage, int (*work)(struct run *, struct err *))
{
    if (r->state != JOB_RUNNING)
        return;
    struct err e = {0};
    double start = clock_seconds();
    run_progress(r, stage, 0, 0);
    int code = run_cancelled(r) ? err_set(&e, -ECANCELED, "cancelled") : work(r, &e);
    r->timings.stage[stage] += clock_seconds() - start;
    if (code)
        end_run(r, &e);
}

/* ---- safety ---- */

static void block_run(struct run *r, const char *what, const char *rule)
{
    r->state = JOB_BLOCKED;
    err_set(&r->error, -EPERM, "%s: %s is not allowed at safety_level %s (rule %s)", r->where, what,
            safety_level_names[r->request.safety_level], rule);
}

/* Before anything is drawn. The negative prompt says what is not wanted, so it is not judged. */
static int check_prompt(struct run *r, struct err *e)
{
    (void)e;
    if (!r->request.prompt)
        return 0;
    prompt_filter_check(r->registry->filter, r->request.prompt, r->request.safety_level,
                        &r->prompt_verdict);
    r->prompt_checked = true;
    if (r->prompt_verdict.blocked)
        block_run(r, "the prompt", r->prompt_verdict.rule);
    return 0;
}

int stage_safety(struct run *r, struct err *e)
{
    (void)e;
    char rule[SAFETY_RULE_SIZE];
    r->output_verdict = output_filter_check(output_filters, r->pictures, r->picture_count,
                                            r->request.safety_level, rule);
    if (!strcmp(r->output_verdict, "block"))
        block_run(r, "the result", rule);
    return 0;
}

/* ---- the stages in their order ---- */

static void begin(struct run *r)
{
    double now = clock_seconds();
    r->timings.total = -now; /* until stage_package adds the end */
    r->started_ms = clock_wall_ms();
    if (r->created_ms && r->started_ms > r->created_ms)
        r->timings.queue = (double)(r->started_ms - r->created_ms) / 1e3;
    do_stage(r, STAGE_NORMALISE, stage_normalise);
    if (r->state == JOB_RUNNING)
        r->deadline = now + r->profile->timeout;
    do_stage(r, STAGE_SAFETY, check_prompt);
    do_stage(r, STAGE_ROUTE, stage_route);
}

static void diffuse(struct run *const *runs, int count)
{
    struct run *drawing[count > 0 ? count : 1];
    int n = 0;
    for (int i = 0; i < count; i++)
        if (runs[i]->state == JOB_RUNNING && job_mode_draws(runs[i]->request.mode))
            drawing[n++] = runs[i];
    if (!n)
        return;
    struct err e = {0};
    double start = clock_seconds();
    for (int i = 0; i < n; i++)
        run_progress(drawing[i], STAGE_DIFFUSE, 0, 0);
    int code = stage_diffuse(drawing, n, &e);
    for (int i = 0; i < n; i++) {
        drawing[i]->timings.stage[STAGE_DIFFUSE] += clock_seconds() - start;
        if ((code || drawing[i]->timed_out) && drawing[i]->state == JOB_RUNNING)
            end_run(drawing[i], &e);
    }
}

static int package(struct run *r)
{
    struct err e = {0};
    if (r->state == JOB_RUNNING)
        r->state = JOB_DONE;
    free_pixels(r);
    run_progress(r, STAGE_PACKAGE, 0, 0);
    if (stage_package(r, &e)) {
        r->state = JOB_FAILED;
        r->error = e;
    }
    return e.code;
}

int run_batch(struct run *const *runs, int count)
{
    int code = 0;
    for (int i = 0; i < count; i++)
        begin(runs[i]);
    diffuse(runs, count);
    for (int i = 0; i < count; i++) {
        do_stage(runs[i], STAGE_POSTPROCESS, stage_postprocess);
        do_stage(runs[i], STAGE_SAFETY, stage_safety);
        int failed = package(runs[i]);
        code = code ? code : failed;
    }
    return code;
}

int run_refuse(struct run *r, enum job_state state, const struct err *why)
{
    struct err e = {0};
    if (r->text) /* for the record, as far as it can be understood */
        stage_normalise(r, &e);
    r->state = state;
    r->error = why ? *why : (struct err){0};
    return stage_package(r, &e);
}

void run_batch_key(const struct request *r, char key[SHA256_HEX_SIZE])
{
    AUTO_STR struct str s = {0};
    if (r->image_count || r->video)
        str_addf(&s, "%a ", r->strength);
    str_addf(&s, "%s %d %dx%d %d %d %g %s", r->profile, (int)r->mode, r->width, r->height,
             r->frames, r->steps, r->guidance, r->scheduler);
    for (int i = 0; i < r->lora_count; i++)
        str_addf(&s, " %a:%s,", r->loras[i].weight, r->loras[i].name);
    sha256_hex(str_cstr(&s), s.len, key);
}
