#include "device_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

void device_submit(struct jobs_bench *b, int folder, const char *profile, int steps)
{
    char text[128];
    snprintf(text, sizeof text, "prompt = picture %d\nseed = %d\nprofile = %s\nsteps = %d\n",
             folder, folder, profile, steps);
    assert_int_equal(bench_submit(b, folder, 0, MODALITY_IMAGE, text), SUBMIT_ACCEPTED);
}

void expect_done_once(struct jobs_bench *b, int folder, const char *device)
{
    char part[48];
    struct job_view v = bench_wait(b, folder);
    if (v.state != JOB_DONE)
        fail_msg("%s: %s", job_state_names[v.state], v.error);
    struct published p = bench_published(b, folder);
    assert_int_equal(p.times, 1);
    assert_string_equal(p.names, "image.png metadata.json");
    snprintf(part, sizeof part, "\"device\": \"%s\"", device);
    assert_contains(p.metadata, part);
}

void wait_held(int i, int held)
{
    for (double end = clock_seconds() + 120; clock_seconds() < end; bench_pause(2))
        if (fake_devices[i].held > held)
            return;
    fail_msg("device %d holds nothing", i);
}
