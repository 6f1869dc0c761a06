/* The text that generated pictures carry: A1111's `parameters`, which most tools read, and where
 * the picture comes from, in IPTC's words (cv.iptc.org, digitalsourcetype). */
#include <inttypes.h>
#include <math.h>

#include "base/version.h"
#include "job/modes.h"
#include "job/run.h"

void run_parameters(const struct run *r, int index, struct str *out)
{
    const struct request *q = &r->request;
    if (!job_mode_draws(q->mode))
        return;
    str_add(out, q->prompt ? q->prompt : "");
    if (q->negative_prompt && *q->negative_prompt)
        str_addf(out, "\nNegative prompt: %s", q->negative_prompt);
    str_addf(out, "\nSteps: %d, Sampler: %s, CFG scale: %g, Seed: %" PRIu64 ", Size: %dx%d",
             q->steps, q->scheduler, isnan(q->guidance) ? 0 : q->guidance,
             q->seed + (uint64_t)index, q->width, q->height);
    if (r->draw_width != q->width || r->draw_height != q->height)
        str_addf(out, ", Generated size: %dx%d", r->draw_width, r->draw_height);
    str_addf(out, ", Model hash: %.10s, Model: %s, Version: omnifs %s", r->info.sha256,
             r->profile->model, omnifs_version);
    if (q->watermark)
        str_add(out, ", Made by: AI, Digital source type: trainedAlgorithmicMedia");
}
