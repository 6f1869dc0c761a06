/* A generator that does what a test scripts: tiny deterministic pictures, delays, failures, and
 * counts of what was asked of it. Thread-safe where it says atomic. */
#ifndef TESTS_SCRIPTED_GENERATOR_H
#define TESTS_SCRIPTED_GENERATOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "job/generator.h"

struct script {
    /* what to do */
    atomic_int step_ms;          /* each step takes so long */
    atomic_int load_error;       /* 0, or the negative errno that loading gives */
    atomic_int generate_error;   /* likewise, for requests whose prompt has "fail" */
    atomic_ullong weight_bytes;  /* of every model */
    atomic_ullong picture_bytes; /* that plan says for each picture */
    atomic_int block;            /* wait before the first step until this is 0 */
    atomic_int hold_step;        /* wait after this step until this is 0 */
    int size_multiple;
    int max_frames; /* more are refused by plan; 0: no video */
    bool reads_references;
    bool copies; /* draws the first picture that is given */

    /* what was asked */
    atomic_int loads, frees, generates, pictures, largest_batch;
    struct script_pictures { /* of the last request that gave some; for one thread */
        int count, width[4], height[4];
        bool mask;
        int mask_width, mask_height;
        enum omni_mode mode;
        double strength;
    } given;
};

/* step 0 ms, 1000-byte models, 1000-byte pictures, multiples of 16, clips of any length. */
void script_init(struct script *s);
/* The generator that follows `s`, which must outlive it. */
struct generator script_generator(struct script *s);

#endif
