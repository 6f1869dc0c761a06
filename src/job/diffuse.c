/* Stage 3: the model draws. All pictures of all runs of a batch lie in one list, of which as many
 * are drawn at once as memory and the operator allow. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "job/loras.h"
#include "job/modes.h"
#include "job/run.h"

struct item {
    struct run *run;
    int index; /* of the run's pictures */
};

struct batch {
    struct run *const *runs;
    int run_count;
    struct item *items;
    struct omni_request *requests;
    struct picture *frames; /* [count] views of clips that are drawn over */
    int count;              /* of items */
    int at, now;            /* the part that is being drawn: items at … at + now - 1 */
    int chunk;              /* items a part, as long as nothing fails */
    double part_started;
};

/* ---- what the engine asks and tells ---- */

static bool all_cancelled(void *ctx)
{
    struct batch *b = ctx;
    for (int i = b->at; i < b->at + b->now; i++)
        if (!run_cancelled(b->items[i].run))
            return false;
    return true;
}

static void on_progress(void *ctx, enum omni_stage stage, int done, int total)
{
    struct batch *b = ctx;
    if (stage == OMNI_STEPS && done == 0)
        b->part_started = clock_seconds();
    if (stage != OMNI_STEPS || total <= 0)
        return;
    int parts = (b->count + b->chunk - 1) / b->chunk, part = b->at / b->chunk;
    int all = parts * total, sofar = part * total + done;
    double eta = done ? (clock_seconds() - b->part_started) / done * (all - sofar) : -1;
    for (int i = 0; i < b->run_count; i++) {
        struct run *r = b->runs[i];
        if (r->state == JOB_RUNNING && r->hooks && r->hooks->progress)
            r->hooks->progress(r->hooks->ctx, r, STAGE_DIFFUSE, sofar, all, eta);
    }
}

static void on_preview(void *ctx, int index, int step, const struct picture *p)
{
    struct batch *b = ctx;
    (void)step;
    if (index < 0 || index >= b->now)
        return;
    struct item *item = &b->items[b->at + index];
    const struct run_hooks *h = item->run->hooks;
    if (h && h->preview && item->index == 0)
        h->preview(h->ctx, item->run, p);
}

static int preview_every(const struct batch *b)
{
    int every = 0;
    for (int i = 0; i < b->run_count; i++) {
        const struct run_hooks *h = b->runs[i]->hooks;
        if (h && h->preview && h->preview_every && (!every || h->preview_every < every))
            every = h->preview_every;
    }
    return every;
}

/* ---- the list ---- */

enum omni_mode run_engine_mode(const struct run *r)
{
    const struct request *q = &r->request;
    return q->mode == MODE_LOOP && q->image_count ? OMNI_IMAGE_TO_VIDEO
                                                  : mode_info(q->mode)->engine;
}

/* A clip is drawn over frame by frame: each is an item, and they begin with the same noise. */
static bool by_frames(const struct run *r)
{
    return r->request.mode == MODE_EDIT_VIDEO;
}

static int item_count(const struct run *r)
{
    return by_frames(r) ? r->clip.frames : r->request.count;
}

/* Is it the frame before once more? Then so is what is drawn over it. */
static bool repeats(const struct run *r, int index)
{
    return by_frames(r) && index > 0 &&
           !memcmp(picture_frame(&r->clip, index), picture_frame(&r->clip, index - 1),
                   picture_frame_bytes(&r->clip));
}

static struct omni_request engine_request(const struct run *r, int index)
{
    const struct request *q = &r->request;
    return (struct omni_request){
        .mode = run_engine_mode(r),
        .prompt = q->prompt ? q->prompt : "",
        .negative_prompt = q->negative_prompt,
        .width = r->draw_width,
        .height = r->draw_height,
        .frames = q->frames,
        .loop = q->mode == MODE_LOOP,
        .steps = q->steps,
        .guidance = q->guidance,
        .seed = q->seed + (uint64_t)index,
        .scheduler = *q->scheduler ? q->scheduler : NULL,
        .strength = q->strength,
        .images = r->references,
        .image_count = r->reference_count,
        .mask = r->mask.rgb ? &r->mask : NULL,
        .loras = r->loras,
        .lora_count = r->lora_count,
    };
}

static void add_item(struct batch *b, struct run *r, int index)
{
    struct omni_request *q = &b->requests[b->count];
    *q = engine_request(r, index);
    if (by_frames(r)) {
        struct picture *frame = &b->frames[b->count];
        *frame = (struct picture){r->clip.width, r->clip.height, 1, picture_frame(&r->clip, index)};
        q->images = frame;
        q->image_count = 1;
        q->frames = 1;
        q->seed = r->request.seed;
    }
    b->items[b->count++] = (struct item){r, index};
}

/* Where what is drawn of a run comes. */
static int make_pictures(struct run *r, struct err *e)
{
    r->pictures = calloc((size_t)r->request.count, sizeof *r->pictures);
    if (!r->pictures)
        return err_nomem(e);
    r->picture_count = r->request.count;
    int code = by_frames(r)
                   ? picture_new(&r->pictures[0], r->draw_width, r->draw_height, r->clip.frames)
                   : 0;
    return code ? err_set(e, code, "no room for %d frames", r->clip.frames) : 0;
}

static int make_list(struct batch *b, struct err *e)
{
    size_t total = 0;
    for (int i = 0; i < b->run_count; i++)
        total += (size_t)item_count(b->runs[i]);
    b->items = calloc(total, sizeof *b->items);
    b->requests = calloc(total, sizeof *b->requests);
    b->frames = calloc(total, sizeof *b->frames);
    if (!b->items || !b->requests || !b->frames)
        return err_nomem(e);
    for (int i = 0; i < b->run_count; i++) {
        int code = make_pictures(b->runs[i], e);
        if (code)
            return code;
        for (int k = 0; k < item_count(b->runs[i]); k++)
            if (!repeats(b->runs[i], k))
                add_item(b, b->runs[i], k);
    }
    return 0;
}

/* Items of runs that ended meanwhile are dropped from what is left. */
static void drop_ended(struct batch *b)
{
    int kept = b->at;
    for (int i = b->at; i < b->count; i++) {
        if (b->items[i].run->state != JOB_RUNNING || run_cancelled(b->items[i].run))
            continue;
        b->items[kept] = b->items[i];
        b->requests[kept++] = b->requests[i];
    }
    b->count = kept;
}

/* ---- drawing ---- */

static void note_loras(struct run *r)
{
    for (int i = 0; i < r->lora_report_count && i < r->request.lora_count; i++) {
        const struct omni_lora_report *l = &r->lora_reports[i];
        if (l->matched < l->modules)
            run_note(r,
                     "the LoRA %s has %d modules, of which %d have no place in this model; the "
                     "first is %s",
                     r->request.loras[i].name, l->modules, l->modules - l->matched, l->unmatched);
    }
}

static void note_truncation(struct run *r, const struct omni_result *result)
{
    static const char sentence[] =
        "the %s is longer than the %d tokens that the model reads; the rest has no effect";
    r->prompt_truncated = result->prompt_truncated;
    r->negative_truncated = result->negative_truncated;
    if (result->prompt_truncated)
        run_note(r, sentence, "prompt", r->info.max_prompt_tokens);
    if (result->negative_truncated)
        run_note(r, sentence, "negative prompt", r->info.max_prompt_tokens);
}

static void take_result(struct item *item, struct omni_result *result)
{
    struct run *r = item->run;
    if (by_frames(r)) {
        int k = item->index;
        do
            memcpy(picture_frame(&r->pictures[0], k), result->picture.rgb,
                   picture_frame_bytes(&result->picture));
        while (++k < r->clip.frames && repeats(r, k));
        picture_free(&result->picture);
    } else
        r->pictures[item->index] = result->picture;
    r->request.steps = result->steps;
    r->request.guidance = result->guidance;
    snprintf(r->request.scheduler, sizeof r->request.scheduler, "%s", result->scheduler);
    memcpy(r->lora_reports, result->loras, sizeof r->lora_reports);
    r->lora_report_count = result->lora_count;
    if (item->index == 0)
        note_loras(r);
    if (item->index == 0)
        note_truncation(r, result);
}

static void take_timings(struct batch *b, const struct omni_timings *t)
{
    struct run *last = NULL;
    for (int i = b->at; i < b->at + b->now; i++) {
        struct run *r = b->items[i].run;
        if (r == last) /* items of a run are neighbours */
            continue;
        last = r;
        r->timings.encode += t->encode;
        r->timings.steps += t->steps;
        r->timings.decode += t->decode;
        r->peak_bytes = t->peak_bytes > r->peak_bytes ? t->peak_bytes : r->peak_bytes;
    }
}

/* Draws the items at … at + now - 1. */
static int draw_part(struct batch *b, struct err *e)
{
    struct run *first = b->items[b->at].run;
    const struct omni_request *requests = b->requests + b->at;
    uint64_t planned;
    int code = models_admit(first->models, first->model, requests, b->now, &b->now, &planned, e);
    if (code)
        return code;
    for (int i = b->at; i < b->at + b->now; i++)
        if (planned > b->items[i].run->planned_bytes)
            b->items[i].run->planned_bytes = planned;
    struct omni_callbacks callbacks = {.ctx = b,
                                       .progress = on_progress,
                                       .cancelled = all_cancelled,
                                       .preview = on_preview,
                                       .preview_every = preview_every(b)};
    struct omni_result *results = calloc((size_t)b->now, sizeof *results);
    struct omni_timings timings = {0};
    if (!results)
        return err_nomem(e);
    b->part_started = clock_seconds();
    code = models_generate(first->models, first->model, requests, b->now, planned, &callbacks,
                           results, &timings, e);
    if (!code) {
        for (int i = 0; i < b->now; i++)
            take_result(&b->items[b->at + i], &results[i]);
        take_timings(b, &timings);
    }
    free(results);
    return code;
}

/* How many of the next items, up to `most`, may be one part: files of job folders have the same
 * names and are different. */
static int count_alike(const struct batch *b, int most)
{
    const struct omni_request *first = &b->requests[b->at];
    int n = 1;
    while (n < most && run_same_loras(b->items[b->at].run, b->items[b->at + n].run) &&
           first[n].width == first->width && first[n].height == first->height)
        n++;
    return n;
}

/* What is left cannot be drawn here; what was drawn is. */
static void fail_rest(struct batch *b, const struct err *e)
{
    for (; b->at < b->count; b->at++)
        if (b->items[b->at].run->state == JOB_RUNNING)
            run_fail(b->items[b->at].run, e);
}

static int draw_all(struct batch *b, int most, struct err *e)
{
    b->chunk = most;
    while (drop_ended(b), b->at < b->count) {
        int left = b->count - b->at;
        int wanted = count_alike(b, left < b->chunk ? left : b->chunk);
        b->now = wanted;
        int code = draw_part(b, e);
        if (!code) {
            b->chunk = b->now < wanted ? b->now : b->chunk; /* memory may have allowed fewer */
            b->at += b->now;
        } else if (code == -ECANCELED) {
            if (!all_cancelled(b))
                return code; /* the engine gave up by itself */
        } else if (code == -ENODEV)
            fail_rest(b, e);
        else if (b->now > 1)
            b->chunk = 1; /* one alone may fit, and an error then is the culprit's own */
        else
            run_fail(b->items[b->at].run, e);
    }
    return 0;
}

int stage_diffuse(struct run *const *runs, int count, struct err *e)
{
    struct batch b = {.runs = runs, .run_count = count};
    int most = runs[0]->registry->devices.batch;
    int code = make_list(&b, e);
    if (!code)
        code = draw_all(&b, most > 0 ? most : 1, e);
    free(b.items);
    free(b.requests);
    free(b.frames);
    return code;
}
