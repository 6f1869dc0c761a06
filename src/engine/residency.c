#include "engine/residency.h"

#include <string.h>

static bool is_of(const struct part *p, enum residency of)
{
    static const char encoder[] = "text_encoder";
    bool encodes = strncmp(p->name, encoder, sizeof encoder - 1) == 0;
    return of == RESIDENT_ALL || encodes == (of == RESIDENT_ENCODER);
}

int residency_set(struct omni_model *m, enum residency want, struct err *e)
{
    struct checkpoint *c = &m->checkpoint;
    for (int i = 0; i < c->part_count; i++)
        if (!is_of(&c->parts[i], want))
            weight_loader_sleep(&c->parts[i].loader);
    for (int i = 0; i < c->part_count; i++)
        if (is_of(&c->parts[i], want) && weight_loader_wake(&c->parts[i].loader, e) != 0)
            return e->code;
    return 0;
}

uint64_t residency_bytes(const struct omni_model *m, enum residency of)
{
    uint64_t sum = 0;
    for (int i = 0; i < m->checkpoint.part_count; i++)
        if (is_of(&m->checkpoint.parts[i], of))
            sum += m->checkpoint.parts[i].loader.bytes;
    return sum;
}

bool residency_fits(const struct omni_model *m, uint64_t planned)
{
    uint64_t weights = m->info.weight_bytes;
    return !m->memory || (weights <= m->memory && planned <= m->memory - weights);
}
