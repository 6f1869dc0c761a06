/* Draws with the engine alone and tells how long it took, for comparisons with other programs:
 *
 *   make BUILD=build build/tests/reference/omni_draw
 *   build/tests/reference/omni_draw MODEL WIDTH HEIGHT FRAMES STEPS GUIDANCE PRECISION REPEAT
 * [OUT.rgb]
 *
 * One JSON object a repetition: seconds of each stage and of the whole call, bytes of memory. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/omni.h"

static int fault(const struct err *e)
{
    fprintf(stderr, "%s\n", e->text);
    return 1;
}

static int draw(struct omni_model *m, const struct omni_request *r, const char *out)
{
    struct omni_result result;
    struct omni_timings t;
    struct err e = {0};
    double start = clock_seconds();
    if (omni_generate(m, r, 1, NULL, &result, &t, &e) != 0)
        return fault(&e);
    printf("{\"total\": %.4f, \"encode\": %.4f, \"steps\": %.4f, \"decode\": %.4f, \"precision\": "
           "\"%s\", "
           "\"peak_bytes\": %llu, \"planned_bytes\": %llu}\n",
           clock_seconds() - start, t.encode, t.steps, t.decode, omni_model_info(m)->precision,
           (unsigned long long)t.peak_bytes, (unsigned long long)t.planned_bytes);
    FILE *f = out ? fopen(out, "wb") : NULL;
    if (f) {
        fwrite(result.picture.rgb, picture_frame_bytes(&result.picture),
               (size_t)result.picture.frames, f);
        fclose(f);
    }
    picture_free(&result.picture);
    return 0;
}

int main(int argc, char **argv)
{
    struct omni_load_options options = {.device = "cpu"};
    struct omni_model *m;
    struct err e = {0};
    if (argc < 9 || omni_precision_parse(argv[7], &options.precision) != 0) {
        fprintf(stderr,
                "usage: %s MODEL WIDTH HEIGHT FRAMES STEPS GUIDANCE PRECISION REPEAT [OUT.rgb]\n",
                argv[0]);
        return 2;
    }
    if (omni_model_load(argv[1], &options, &m, &e) != 0)
        return fault(&e);
    struct omni_request r = {.prompt = "a red apple, 3d render",
                             .width = atoi(argv[2]),
                             .height = atoi(argv[3]),
                             .frames = atoi(argv[4]),
                             .steps = atoi(argv[5]),
                             .guidance = atof(argv[6]),
                             .seed = 1};
    r.mode = r.frames > 1 ? OMNI_TEXT_TO_VIDEO : OMNI_TEXT_TO_IMAGE;
    int rc = 0;
    for (int i = 0; i < atoi(argv[8]) && rc == 0; i++)
        rc = draw(m, &r, argc > 9 ? argv[9] : NULL);
    omni_model_free(m);
    return rc;
}
