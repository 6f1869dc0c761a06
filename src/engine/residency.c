#include "engine/residency.h"

#include <malloc.h>
#include <string.h>

static bool is_of(const struct part *p, enum residency of)
{
    static const char encoder[] = "text_encoder";
    bool encodes = strncmp(p->name, encoder, sizeof encoder - 1) == 0;
    return encodes == (of == RESIDENT_ENCODER);
}

static int wake(struct weight_loader *l, const struct omni_callbacks *cb, struct err *e)
{
    l->cancelled = cb->cancelled;
    l->cancel_ctx = cb->ctx;
    int code = weight_loader_wake(l, e);
    l->cancelled = NULL;
    return code;
}

int residency_set(struct omni_model *m, enum residency want, bool alone,
                  const struct omni_callbacks *cb, struct err *e)
{
    struct checkpoint *c = &m->checkpoint;
    int code = 0;
    for (int i = 0; i < c->part_count && alone && !code; i++)
        if (!is_of(&c->parts[i], want))
            code = weight_loader_sleep(&c->parts[i].loader, e);
#ifdef __GLIBC__
    if (alone)
        malloc_trim(0); /* freed copies go back to the system, not only to the heap */
#endif
    for (int i = 0; i < c->part_count && !code; i++)
        if (is_of(&c->parts[i], want))
            code = wake(&c->parts[i].loader, cb, e);
    residency_count(m);
    return code;
}

int residency_keep_blocks(struct omni_model *m, bool keep, struct err *e)
{
    int code = 0;
    for (int i = 0; i < m->checkpoint.part_count && !code; i++)
        code = weight_loader_keep_blocks(&m->checkpoint.parts[i].loader, keep, e);
    m->info.in_blocks = keep;
    residency_count(m);
    return code;
}

bool residency_has_blocks(const struct omni_model *m)
{
    for (int i = 0; i < m->checkpoint.part_count; i++) {
        const struct weight_loader *l = &m->checkpoint.parts[i].loader;
        for (size_t k = 0; k < l->count; k++)
            if (l->list[k].entry->expand)
                return true;
    }
    return false;
}

void residency_count(struct omni_model *m)
{
    uint64_t half[2] = {0, 0}, ready = 0;
    for (int i = 0; i < m->checkpoint.part_count; i++) {
        const struct part *p = &m->checkpoint.parts[i];
        half[is_of(p, RESIDENT_ENCODER)] += weight_loader_bytes(&p->loader, false);
        ready += weight_loader_bytes(&p->loader, true);
    }
    m->info.weight_bytes = half[0] + half[1];
    m->info.least_weight_bytes = half[0] > half[1] ? half[0] : half[1];
    m->info.resident_bytes = ready;
}

static bool fits(const struct omni_model *m, uint64_t weights, uint64_t planned)
{
    return !m->memory || (weights <= m->memory && planned <= m->memory - weights);
}

bool residency_fits(const struct omni_model *m, uint64_t planned)
{
    return fits(m, m->info.weight_bytes, planned);
}

bool residency_fits_by_turns(const struct omni_model *m, uint64_t planned)
{
    return fits(m, m->info.least_weight_bytes, planned);
}
