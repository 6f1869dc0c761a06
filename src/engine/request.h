/* Requests, checked against a model and with every default filled in. */
#ifndef OMNI_REQUEST_H
#define OMNI_REQUEST_H

#include "engine/model.h"

#define REQUEST_MAX_BATCH 64

struct resolved_request {
    const struct omni_request *ask; /* borrowed */
    struct latent_shape latent;
    struct schedule_config schedule;
    int steps;
    double guidance; /* as stated */
    double factor;   /* negative + factor·(positive - negative) */
    bool guided;     /* false: the positive prediction alone */
};

/* Checks `count` requests and that they fit one batch; fills out[count]. -EINVAL with a sentence
 * that names the value and what this model takes. */
int requests_resolve(const struct omni_model *m, const struct omni_request *requests, int count,
                     struct resolved_request *out, struct err *e);

#endif
