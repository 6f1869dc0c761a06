#include "job/generator.h"

static int load(void *ctx, const char *path, const struct omni_load_options *options, void **model,
                struct err *e)
{
    (void)ctx;
    struct omni_model *m = NULL;
    int code = omni_model_load(path, options, &m, e);
    *model = m;
    return code;
}

static const struct omni_model_info *info(const void *model)
{
    return omni_model_info(model);
}

static int plan(void *model, const struct omni_request *requests, int count, uint64_t *bytes,
                struct err *e)
{
    return omni_plan(model, requests, count, bytes, e);
}

static int generate(void *model, const struct omni_request *requests, int count,
                    const struct omni_callbacks *callbacks, struct omni_result *results,
                    struct omni_timings *timings, struct err *e)
{
    return omni_generate(model, requests, count, callbacks, results, timings, e);
}

static void free_model(void *model)
{
    omni_model_free(model);
}

static int devices(void *ctx, const char *list, struct omni_device *out, int max, int *count,
                   struct err *e)
{
    (void)ctx;
    return omni_device_list(list, out, max, count, e);
}

const struct generator generator_omni = {NULL, load, info, plan, generate, free_model, devices};
