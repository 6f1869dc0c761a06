#include "stub_generator.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define STEPS 4

static const struct omni_model_info info = {.family = "stub",
                                            .variant = "base",
                                            .precision = "fp32",
                                            .device = "cpu",
                                            .parameters = 1,
                                            .weight_bytes = 4,
                                            .size_multiple = 8,
                                            .default_width = 64,
                                            .default_height = 64,
                                            .default_steps = STEPS,
                                            .default_guidance = 1,
                                            .guided = true,
                                            .has_video = true,
                                            .max_prompt_tokens = 77};

static int load(void *ctx, const char *path, const struct omni_load_options *options, void **model,
                struct err *e)
{
    (void)ctx;
    (void)path;
    (void)options;
    (void)e;
    *model = (void *)(uintptr_t)&info;
    return 0;
}

static const struct omni_model_info *get_info(const void *model)
{
    return model;
}

static int plan(void *model, const struct omni_request *requests, int count, uint64_t *bytes,
                struct err *e)
{
    (void)model;
    (void)requests;
    (void)e;
    *bytes = 1000 * (uint64_t)count;
    return 0;
}

static void note(const char *prompt)
{
    const char *path = getenv("OMNIFS_STUB_LOG");
    char line[256];
    AUTO_FD int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
    int n = snprintf(line, sizeof line, "%.200s\n", prompt);
    if (fd >= 0 && write(fd, line, (size_t)n) != n)
        perror(path);
}

static long asked_ms(const char *prompt)
{
    const char *p = strstr(prompt, "sleep=");
    return p ? strtol(p + 6, NULL, 10) : 0;
}

/* Sleeps `ms`, asking every 10 ms; true when cancelled. */
static bool pass_time(long ms, const struct omni_callbacks *cb)
{
    do {
        if (cb->cancelled && cb->cancelled(cb->ctx))
            return true;
        long part = ms < 10 ? ms : 10;
        struct timespec t = {.tv_nsec = part * 1000000};
        if (part > 0)
            nanosleep(&t, NULL);
        ms -= part;
    } while (ms > 0);
    return false;
}

static int draw(const struct omni_request *r, struct omni_result *out)
{
    if (picture_new(&out->picture, r->width, r->height, r->frames > 0 ? r->frames : 1))
        return -ENOMEM;
    memset(out->picture.rgb, (int)(r->seed & 255),
           picture_frame_bytes(&out->picture) * (size_t)out->picture.frames);
    out->steps = r->steps ? r->steps : STEPS;
    out->guidance = isnan(r->guidance) ? 1 : r->guidance;
    strcpy(out->scheduler, "flow_euler");
    return 0;
}

static int generate(void *model, const struct omni_request *requests, int count,
                    const struct omni_callbacks *cb, struct omni_result *results,
                    struct omni_timings *timings, struct err *e)
{
    (void)model;
    memset(results, 0, (size_t)count * sizeof *results);
    if (timings)
        memset(timings, 0, sizeof *timings);
    long ms = 0;
    for (int i = 0; i < count; i++) {
        note(requests[i].prompt);
        if (asked_ms(requests[i].prompt) > ms)
            ms = asked_ms(requests[i].prompt);
        if (strstr(requests[i].prompt, "fail"))
            return err_set(e, -EDOM, "the stub was asked to fail");
    }
    int steps = requests[0].steps ? requests[0].steps : STEPS;
    for (int step = 1; step <= steps; step++) {
        if (pass_time(ms / steps, cb))
            return err_set(e, -ECANCELED, "cancelled");
        if (cb->progress)
            cb->progress(cb->ctx, OMNI_STEPS, step, steps);
        for (int i = 0; i < count && cb->preview && cb->preview_every; i++) {
            struct omni_result small = {0};
            if (step % cb->preview_every == 0 && !draw(&requests[i], &small)) {
                cb->preview(cb->ctx, i, step, &small.picture);
                picture_free(&small.picture);
            }
        }
    }
    int r = 0;
    for (int i = 0; i < count && !r; i++)
        r = draw(&requests[i], &results[i]);
    for (int i = 0; i < count && r; i++)
        picture_free(&results[i].picture);
    return r ? err_nomem(e) : 0;
}

static void free_model(void *model)
{
    (void)model;
}

const struct generator stub_generator = {NULL, load, get_info, plan, generate, free_model, NULL};
