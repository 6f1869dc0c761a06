/* Requests, checked against a model and with every default filled in. */
#ifndef OMNI_REQUEST_H
#define OMNI_REQUEST_H

#include "engine/model.h"

#define REQUEST_MAX_BATCH 64

/* What a mode does with the pictures of a request, on this model. */
struct image_use {
    bool source;    /* the first picture becomes a latent of the drawing's shape */
    bool start;     /* drawing starts from it, under noise; else from noise alone */
    bool blend;     /* after every step it is put back where the mask keeps it */
    bool beside;    /* what the mask keeps of it, and the mask, are channels beside the latent */
    int references; /* so many pictures are read beside the drawing; the source is the first */
    bool as_drawn;  /* these have the drawing's size rather than their own */
};

struct resolved_request {
    const struct omni_request *ask; /* borrowed */
    struct latent_shape latent;
    struct schedule_config schedule;
    int steps; /* of the whole schedule */
    int first; /* the step that drawing starts at */
    struct image_use images;
    double guidance; /* as stated */
    double factor;   /* negative + factor·(positive - negative) */
    bool guided;     /* false: the positive prediction alone */
};

/* Checks `count` requests and that they fit one batch; fills out[count]. -EINVAL with a sentence
 * that names the value and what this model takes. */
int requests_resolve(const struct omni_model *m, const struct omni_request *requests, int count,
                     struct resolved_request *out, struct err *e);

/* "inpaint"; of a mode that exists. */
const char *request_mode_name(enum omni_mode mode);

/* ---- request_pictures.c: parts of the above ---- */

/* Checks pictures, mask and strength; fills q->images and q->first (q->steps and q->schedule are
 * there). */
int request_plan_pictures(const struct omni_model *m, const struct omni_request *r,
                          struct resolved_request *q, struct err *e);
/* One batch starts at one step, and its references have the same sizes, one by one. */
bool request_pictures_alike(const struct omni_model *m, const struct resolved_request *a,
                            const struct resolved_request *b);
/* The size at which a picture is read beside the drawing: at most a million pixels, both sides
 * multiples of `multiple`. */
void picture_reference_size(const struct picture *p, int multiple, int *width, int *height);

#endif
