/* Modes: what each one draws from and which keys of a request it reads. */
#ifndef OMNIFS_JOB_MODES_H
#define OMNIFS_JOB_MODES_H

#include "engine/omni.h"
#include "job/request.h"

struct mode_info {
    enum modality modality;
    bool draws;            /* with the model; false: files are converted */
    bool clip;             /* makes frames */
    bool own_size;         /* that of what is given, unless another is asked for */
    enum omni_mode engine; /* when `draws` */
    uint32_t needs, may; /* bits 1 << KEY_…: must be given, may be given (besides keys of all) */
};

const struct mode_info *mode_info(enum job_mode m);
/* The mode of a request that names none. */
enum job_mode mode_default(const struct request *r);
/* Keys whose use depends on the mode. */
uint32_t mode_special_keys(void);
/* Does a normalised request read the key? What does not is refused when it is given, and is left
 * out of metadata.json. `against` (may be NULL) becomes the key that decides it: KEY_MODE or
 * KEY_RETURN_FORMAT. */
bool mode_reads_key(const struct request *r, enum request_key key, enum request_key *against);

#endif
