#include "job/upscalers.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static int load(struct upscaler *new, const char *device, int threads, struct err *e)
{
    char path[REGISTRY_PATH_SIZE];
    const struct omni_load_options options = {
        .device = device, .precision = new->precision, .threads = threads};
    int code = model_find(new->id, path, e);
    if (!code)
        code = omni_upscaler_load(path, &options, &new->networks, e);
    if (code)
        return err_prefix(e, "the upscaler %s cannot be used", new->id);
    log_info("loaded the upscaler %s", new->id);
    return 0;
}

int upscalers_get(struct upscalers *u, const struct profile *p, const char *device, int threads,
                  struct omni_upscaler **out, struct err *e)
{
    for (int i = 0; i < u->count; i++)
        if (!strcmp(u->list[i].id, p->upscaler_model) && u->list[i].precision == p->precision) {
            *out = u->list[i].networks;
            return 0;
        }
    struct upscaler *more = realloc(u->list, (size_t)(u->count + 1) * sizeof *more);
    if (!more)
        return err_nomem(e);
    u->list = more;
    struct upscaler *new = &more[u->count];
    *new = (struct upscaler){.precision = p->precision};
    memcpy(new->id, p->upscaler_model, sizeof new->id);
    int code = load(new, device, threads, e);
    if (code)
        return code;
    u->count++;
    *out = new->networks;
    return 0;
}

uint64_t upscalers_bytes(const struct upscalers *u)
{
    uint64_t sum = 0;
    for (int i = 0; i < u->count; i++)
        sum += omni_upscaler_info(u->list[i].networks)->weight_bytes;
    return sum;
}

void upscalers_free(struct upscalers *u)
{
    for (int i = 0; i < u->count; i++)
        omni_upscaler_free(u->list[i].networks);
    free(u->list);
    *u = (struct upscalers){0};
}
