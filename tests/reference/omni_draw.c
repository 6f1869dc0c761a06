/* Draws with the engine alone and tells how long it took, for comparisons with other programs:
 *
 *   make BUILD=build build/tests/reference/omni_draw
 *   build/tests/reference/omni_draw MODEL -p PROMPT -s 128x128x1 -n 24 -g 4 -o out.rgb
 *
 * One JSON object a repetition: seconds of each stage and of the whole call, bytes of memory. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/omni.h"

struct options {
    struct omni_request request;
    struct omni_load_options load;
    const char *out;
    int repeat;
    int table; /* time by kind of operation, to stderr */
};

static int fault(const char *text)
{
    fprintf(stderr, "%s\n", text);
    return 1;
}

static int usage(const char *name)
{
    fprintf(
        stderr,
        "usage: %s MODEL [-p PROMPT] [-q NEGATIVE_PROMPT] [-s WIDTHxHEIGHT[xFRAMES]] [-n STEPS]\n"
        "       [-g GUIDANCE] [-S SEED] [-P auto|fp32|bf16] [-t THREADS] [-r REPEAT] [-o "
        "OUT.rgb]\n",
        name);
    return 2;
}

static int parse_option(struct options *o, int c)
{
    struct omni_request *r = &o->request;
    switch (c) {
    case 'p':
        r->prompt = optarg;
        return 0;
    case 'q':
        r->negative_prompt = optarg;
        return 0;
    case 's':
        return sscanf(optarg, "%dx%dx%d", &r->width, &r->height, &r->frames) < 2;
    case 'n':
        r->steps = atoi(optarg);
        return 0;
    case 'g':
        r->guidance = atof(optarg);
        return 0;
    case 'S':
        r->seed = strtoull(optarg, NULL, 10);
        return 0;
    case 'P':
        return omni_precision_parse(optarg, &o->load.precision);
    case 't':
        o->load.threads = atoi(optarg);
        return 0;
    case 'r':
        o->repeat = atoi(optarg);
        return 0;
    case 'v':
        o->table = 1;
        return 0;
    case 'o':
        o->out = optarg;
        return 0;
    default:
        return 1;
    }
}

static int keep(const struct picture *p, const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return fault("the picture cannot be written");
    size_t wrote = fwrite(p->rgb, picture_frame_bytes(p), (size_t)p->frames, f);
    return fclose(f) != 0 || wrote != (size_t)p->frames;
}

static int draw(struct omni_model *m, const struct options *o)
{
    struct omni_result result;
    struct omni_timings t;
    struct err e = {0};
    double start = clock_seconds();
    if (omni_generate(m, &o->request, 1, NULL, &result, &t, &e) != 0)
        return fault(e.text);
    printf("{\"total\": %.4f, \"encode\": %.4f, \"steps\": %.4f, \"decode\": %.4f, "
           "\"precision\": \"%s\", \"peak_bytes\": %llu, \"planned_bytes\": %llu}\n",
           clock_seconds() - start, t.encode, t.steps, t.decode, omni_model_info(m)->precision,
           (unsigned long long)t.peak_bytes, (unsigned long long)t.planned_bytes);
    for (int i = 0; i < OMNI_WORK_KINDS && o->table; i++) {
        const struct omni_work *w = &t.work[i];
        fprintf(stderr, "%-10s %7llu calls %8.4f s %8.1f GFLOP/s %7.1f GB/s\n", w->kind,
                (unsigned long long)w->calls, w->seconds, (double)w->flops / w->seconds / 1e9,
                (double)w->bytes / w->seconds / 1e9);
    }
    int rc = o->out ? keep(&result.picture, o->out) : 0;
    picture_free(&result.picture);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {.request = {.prompt = "a red apple, 3d render",
                                    .width = 128,
                                    .height = 128,
                                    .frames = 1,
                                    .guidance = NAN,
                                    .seed = 1},
                        .load = {.device = "cpu"},
                        .repeat = 1};
    struct omni_model *m;
    struct err e = {0};
    if (argc < 2)
        return usage(argv[0]);
    const char *model = argv[1];
    for (int c; (c = getopt(argc - 1, argv + 1, "p:q:s:n:g:S:P:t:r:o:v")) != -1;)
        if (parse_option(&o, c) != 0)
            return usage(argv[0]);
    o.request.mode = o.request.frames > 1 ? OMNI_TEXT_TO_VIDEO : OMNI_TEXT_TO_IMAGE;
    if (omni_model_load(model, &o.load, &m, &e) != 0)
        return fault(e.text);
    int rc = 0;
    for (int i = 0; i < o.repeat && rc == 0; i++)
        rc = draw(m, &o);
    omni_model_free(m);
    return rc;
}
