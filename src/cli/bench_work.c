/* The engine's part of `omnifs bench`: what one request's operations come to, by kind, beside the
 * machine's measured peak. */
#include <math.h>

#include "cli/bench.h"
#include "engine/omni.h"
#include "job/registry.h"

/* One request at the model's own size and steps; the second call, which finds everything warm. */
static int draw(struct omni_model *m, struct omni_timings *timings, struct err *e)
{
    const struct omni_model_info *info = omni_model_info(m);
    const struct omni_request request = {
        .mode = OMNI_TEXT_TO_IMAGE,
        .prompt = "a red apple, 3d render",
        .width = info->default_width,
        .height = info->default_height,
        .frames = 1,
        .guidance = NAN,
        .seed = 1,
    };
    for (int i = 0; i < 2; i++) {
        struct omni_result result = {0};
        int rc = omni_generate(m, &request, 1, NULL, &result, timings, e);
        picture_free(&result.picture);
        if (rc)
            return rc;
    }
    return 0;
}

static void add_rows(const struct omni_timings *t, double peak, json_t *rows)
{
    double whole = t->encode + t->steps + t->decode;
    for (int i = 0; i < OMNI_WORK_KINDS; i++) {
        const struct omni_work *w = &t->work[i];
        if (!w->calls || w->seconds <= 0)
            continue;
        double gflops = (double)w->flops / w->seconds / 1e9;
        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "kind", w->kind, "calls",
                            (json_int_t)w->calls, "GFLOP", (double)w->flops / 1e9, "ms",
                            w->seconds * 1e3, "% of time", 100 * w->seconds / whole, "GFLOP/s",
                            gflops, "% of peak", peak > 0 ? 100 * gflops / peak : 0, "GB/s",
                            (double)w->bytes / w->seconds / 1e9));
    }
}

int bench_work(struct bench *b, json_t *rows, struct err *e)
{
    const char *name = b->profiles->count ? b->profiles->words[0] : b->registry->profiles[0].name;
    const struct profile *p = registry_profile(b->registry, name);
    char path[REGISTRY_PATH_SIZE];
    struct omni_model *model = NULL;
    struct omni_timings timings = {0};
    struct profile_places places;
    if (model_find(p->model, path, e) || profile_places_find(p, &places, e))
        return e->code;
    const struct omni_load_options options = {
        .precision = p->precision, .parts = places.list, .part_count = places.count};
    if (omni_model_load(path, &options, &model, e))
        return e->code;
    int rc = draw(model, &timings, e);
    bool bf16 = omni_model_info(model)->precision[0] == 'b';
    if (!rc)
        add_rows(&timings, bf16 ? b->peak_bf16 : b->peak_fp32, rows);
    omni_model_free(model);
    return rc;
}
