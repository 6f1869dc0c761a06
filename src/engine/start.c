/* What denoising starts from: noise, or a picture under noise; and what else pictures are for. */
#include "engine/run.h"

static struct tensor *of_request(struct run *r, const struct tensor *t, int i)
{
    return op_slice(r->o, t, 0, i, 1);
}

/* What is kept for all steps, as far as the mode needs it. */
static void open_tensors(struct run *r)
{
    const struct image_use *u = &r->requests[0].images;
    const struct latent_shape *l = &r->requests[0].latent;
    r->x = run_latents(r, r->count);
    r->clean = u->source ? run_latents(r, r->count) : NULL;
    r->noise = u->blend ? run_latents(r, r->count) : NULL;
    r->mask = u->blend ? run_latents(r, r->count) : NULL;
    r->beside = u->beside ? op_empty(r->o, DTYPE_F32,
                                     SHAPE(r->count, 1, l->height, l->width, 1 + l->channels))
                          : NULL;
}

static struct tensor *read_image(struct run *r, int i, const struct tensor *pixels)
{
    return r->m->family->read_image(r->m->state, r->o, pixels, r->random ? &r->random[i] : NULL);
}

/* The picture's latent, the same for every frame. */
static void read_source(struct run *r, int i)
{
    struct tensor *z = read_image(r, i, run_source(r, i, false)),
                  *clean = of_request(r, r->clean, i);
    for (int f = 0; f < r->requests[i].latent.frames; f++)
        op_copy(r->o, op_slice(r->o, clean, 1, f, 1), z);
}

/* `to` = the picture as noisy as it is where step `step` begins. */
static void mix(struct run *r, struct tensor *to, const struct tensor *clean,
                const struct tensor *noise, int step)
{
    float part[2];
    schedule_noised(&r->schedule, step, &part[0], &part[1]);
    const struct tensor *terms[2] = {clean, noise};
    op_combine_to(r->o, to, terms, part, 2);
}

/* What the mask keeps, for models that read it. The original pipelines encode it for the others
 * too: their next random numbers come after it. */
static void read_rest(struct run *r, int i)
{
    if (!r->beside) {
        if (r->m->traits.images.drawn && r->requests[i].ask->mask)
            run_noise(r, i);
        return;
    }
    const struct tensor *parts[2] = {run_mask(r, i, 1), read_image(r, i, run_source(r, i, true))};
    op_copy(r->o, of_request(r, r->beside, i), op_concat(r->o, parts, 2, 4));
}

/* Random numbers are drawn in the order of the original pipelines. */
static void start_request(struct run *r, int i)
{
    struct ops *o = r->o;
    ops_mark mark = ops_push(o);
    struct tensor *x = of_request(r, r->x, i);
    if (r->clean)
        read_source(r, i);
    struct tensor *noise = run_noise(r, i);
    if (r->requests[i].images.start)
        mix(r, x, of_request(r, r->clean, i), noise, 0);
    else
        op_copy(o, x, op_affine(o, noise, r->schedule.initial_noise, 0));
    if (r->noise)
        op_copy(o, of_request(r, r->noise, i), noise);
    if (r->mask)
        op_copy(o, of_request(r, r->mask, i), run_mask(r, i, r->requests[i].latent.channels));
    read_rest(r, i);
    ops_pop(o, mark);
}

/* Picture k of all requests; the source is there already. */
static struct tensor *read_references(struct run *r, int k)
{
    struct ops *o = r->o;
    int multiple = r->m->traits.size_multiple, width, height;
    const struct latent_shape *l = &r->requests[0].latent;
    if (k == 0 && r->clean)
        return r->clean;
    bool as_drawn = r->requests[0].images.as_drawn;
    picture_reference_size(&r->requests[0].ask->images[k], multiple, &width, &height);
    if (as_drawn) {
        width = r->requests[0].ask->width;
        height = r->requests[0].ask->height;
    }
    struct tensor *all =
        op_empty(o, DTYPE_F32,
                 SHAPE(r->count, 1, height * l->height / r->requests[0].ask->height,
                       width * l->width / r->requests[0].ask->width, l->channels));
    for (int i = 0; i < r->count && !run_failed(r); i++) {
        ops_mark mark = ops_push(o);
        op_copy(o, of_request(r, all, i),
                read_image(r, i, as_drawn ? run_source(r, i, false) : run_reference(r, i, k)));
        ops_pop(o, mark);
    }
    return all;
}

void run_start(struct run *r)
{
    open_tensors(r);
    for (int i = 0; i < r->count && !run_failed(r); i++)
        start_request(r, i);
    r->reference_count = r->requests[0].images.references;
    for (int k = 0; k < r->reference_count && !run_failed(r); k++)
        r->references[k] = read_references(r, k);
}

void run_blend(struct run *r, int step)
{
    struct ops *o = r->o;
    if (!r->mask)
        return;
    for (int i = 0; i < r->count && !run_failed(r); i++) {
        ops_mark mark = ops_push(o);
        struct tensor *x = of_request(r, r->x, i), *drawn = of_request(r, r->mask, i);
        struct tensor *kept = run_latents(r, 1);
        mix(r, kept, of_request(r, r->clean, i), of_request(r, r->noise, i), step + 1);
        const struct tensor *terms[2] = {op_mul(o, kept, op_affine(o, drawn, -1, 1)),
                                         op_mul(o, x, drawn)};
        op_combine_to(o, x, terms, (const float[]){1, 1}, 2);
        ops_pop(o, mark);
    }
}
