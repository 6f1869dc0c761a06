#include "scripted_generator.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct scripted_model {
    struct script *script;
    struct omni_model_info info;
};

void script_init(struct script *s)
{
    memset(s, 0, sizeof *s);
    s->weight_bytes = 1000;
    s->picture_bytes = 1000;
    s->generate_error = -EDOM;
    s->size_multiple = 16;
    s->max_frames = 100000;
}

static int load(void *ctx, const char *path, const struct omni_load_options *options, void **model,
                struct err *e)
{
    struct script *s = ctx;
    (void)options;
    s->loads++;
    if (s->load_error)
        return err_set(e, s->load_error, "%s: the script says that it cannot be loaded", path);
    struct scripted_model *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e);
    m->script = s;
    m->info = (struct omni_model_info){.family = "scripted",
                                       .variant = "base",
                                       .precision = "fp32",
                                       .device = "cpu",
                                       .weight_bytes = s->weight_bytes,
                                       .size_multiple = s->size_multiple,
                                       .default_width = 64,
                                       .default_height = 64,
                                       .default_steps = 5,
                                       .default_guidance = 3.5,
                                       .guided = true,
                                       .has_video = s->max_frames > 1,
                                       .reads_references = s->reads_references,
                                       .max_prompt_tokens = 40,
                                       .sha256 = "feedc0de"};
    *model = m;
    return 0;
}

static const struct omni_model_info *info(const void *model)
{
    const struct scripted_model *m = model;
    return &m->info;
}

static int plan(void *model, const struct omni_request *requests, int count, uint64_t *bytes,
                struct err *e)
{
    const struct scripted_model *m = model;
    if (requests[0].frames > 1 && requests[0].frames > m->script->max_frames)
        return err_set(e, -EINVAL, "the model draws no clips of %d frames", requests[0].frames);
    *bytes = m->script->picture_bytes * (uint64_t)count;
    return 0;
}

static void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Waits `ms`, looking up every few; true when cancelled. */
static bool wait_cancelled(const struct omni_callbacks *c, int ms)
{
    for (; ms > 0; ms -= 5) {
        if (c->cancelled && c->cancelled(c->ctx))
            return true;
        sleep_ms(ms < 5 ? ms : 5);
    }
    return c->cancelled && c->cancelled(c->ctx);
}

/* Waits while `gate` is `closed`; true when cancelled. */
static bool wait_at(const atomic_int *gate, int closed, const struct omni_callbacks *c)
{
    while (*gate == closed)
        if (wait_cancelled(c, 5))
            return true;
    return false;
}

static bool play(struct script *s, const struct omni_callbacks *c, int count, int steps,
                 const struct picture *p)
{
    if (wait_at(&s->block, 1, c))
        return false;
    for (int step = 1; step <= steps; step++) {
        if (wait_cancelled(c, s->step_ms))
            return false;
        if (c->progress)
            c->progress(c->ctx, OMNI_STEPS, step, steps);
        for (int i = 0; i < count && c->preview && c->preview_every; i++)
            if (step % c->preview_every == 0)
                c->preview(c->ctx, i, step, p);
        if (wait_at(&s->hold_step, step, c))
            return false;
    }
    return true;
}

/* Every pixel follows from prompt, seed and place: the same request gives the same bytes, alone or
 * in a batch. */
static int draw(const struct omni_request *r, struct omni_result *out)
{
    *out = (struct omni_result){.steps = r->steps, .guidance = r->guidance};
    snprintf(out->scheduler, sizeof out->scheduler, "%s", r->scheduler ? r->scheduler : "euler");
    out->prompt_truncated = strlen(r->prompt) > 40;
    int code = picture_new(&out->picture, r->width, r->height, r->frames);
    uint64_t v = r->seed * 1000003 + 7;
    for (const char *c = r->prompt; *c; c++)
        v = v * 31 + (unsigned char)*c;
    size_t n = code ? 0 : picture_frame_bytes(&out->picture) * (size_t)r->frames;
    bool noise = strstr(r->prompt, "noise"); /* takes its full size in any format */
    for (size_t i = 0; i < n; i++) {
        v = noise ? v * 6364136223846793005u + 1442695040888963407u : v;
        out->picture.rgb[i] = noise ? (uint8_t)(v >> 56) : (uint8_t)((v >> (i % 3 * 8)) + i / 97);
    }
    return code;
}

static void note_pictures(struct script *s, const struct omni_request *r)
{
    struct script_pictures *g = &s->given;
    *g = (struct script_pictures){.count = r->image_count,
                                  .mask = r->mask,
                                  .mask_width = r->mask ? r->mask->width : 0,
                                  .mask_height = r->mask ? r->mask->height : 0,
                                  .mode = r->mode,
                                  .strength = r->strength};
    for (int i = 0; i < r->image_count && i < 4; i++) {
        g->width[i] = r->images[i].width;
        g->height[i] = r->images[i].height;
    }
}

static int generate(void *model, const struct omni_request *requests, int count,
                    const struct omni_callbacks *c, struct omni_result *results,
                    struct omni_timings *timings, struct err *e)
{
    struct scripted_model *m = model;
    struct script *s = m->script;
    m->info.resident_bytes = m->info.weight_bytes;
    s->generates++;
    s->pictures += count;
    if (count > s->largest_batch)
        s->largest_batch = count;
    struct picture small = {0};
    int code = picture_new(&small, 16, 16, 1);
    if (!code && !play(s, c, count, requests[0].steps, &small))
        code = err_set(e, -ECANCELED, "cancelled");
    picture_free(&small);
    for (int i = 0; i < count && !code; i++)
        if (strstr(requests[i].prompt, "fail"))
            code = err_set(e, s->generate_error, "the script says that \"%s\" fails",
                           requests[i].prompt);
    if (requests[0].image_count > 0)
        note_pictures(s, &requests[0]);
    for (int i = 0; i < count && !code; i++)
        code = draw(&requests[i], &results[i]);
    for (int i = 0; i < count && !code && s->copies; i++)
        memcpy(results[i].picture.rgb, requests[i].images->rgb,
               picture_frame_bytes(requests[i].images));
    for (int i = 0; i < count && code; i++)
        picture_free(&results[i].picture);
    if (timings)
        *timings = (struct omni_timings){.steps = 0.001, .peak_bytes = 500};
    return code;
}

static void free_model(void *model)
{
    struct scripted_model *m = model;
    m->script->frees++;
    free(m);
}

struct generator script_generator(struct script *s)
{
    return (struct generator){s, load, info, plan, generate, free_model, NULL};
}
