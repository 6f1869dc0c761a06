/* Jobs of the real engine on fake devices: what tests of devices share. */
#ifndef TESTS_DEVICE_BENCH_H
#define TESTS_DEVICE_BENCH_H

#include "fake_device.h"
#include "jobs_bench.h"

#define PROFILE                                                                                    \
    "[mini]\nomni_model_id = omni-mini\nmodality = image\nprecision = fp32\ndefault_size = "       \
    "32x32\nsteps = 2\n"
/* The same model once more, as far as warm models are told apart. */
#define OTHER                                                                                      \
    "[other]\nomni_model_id = omni-mini\nmodality = image\nprecision = bf16\ndefault_size = "      \
    "32x32\nsteps = 2\n"
#define DEVICES(list) PROFILE OTHER "[devices]\nbatch = 2\nthreads = 1\nuse = " list "\n"

/* Different steps keep jobs out of each other's batch. */
void device_submit(struct jobs_bench *b, int folder, const char *profile, int steps);
/* Waits; the folder's job was published once, and drawn on `device`. */
void expect_done_once(struct jobs_bench *b, int folder, const char *device);
/* Until device `i` holds a product, after `held` earlier ones. */
void wait_held(int i, int held);

#endif
