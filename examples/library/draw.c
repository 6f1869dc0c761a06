/* Draws a picture with libomni.a alone: no mount, no job, no files but the model and the result.
 *
 *     cc draw.c $(pkg-config --cflags --libs omni) -o draw
 *     ./draw models/omni-mini "a red apple, 3d render" apple.ppm */
#include <math.h>
#include <stdio.h>

#include "engine/omni.h"

static void on_progress(void *ctx, enum omni_stage stage, int done, int total)
{
    static const char *const names[] = {"encode", "steps", "decode"};
    (void)ctx;
    fprintf(stderr, "\r%s %d/%d   ", names[stage], done, total);
}

/* PPM needs no library: a line of text, then the pixels. */
static int write_ppm(const char *path, const struct picture *p)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    fprintf(f, "P6 %d %d 255\n", p->width, p->height);
    size_t bytes = picture_frame_bytes(p);
    size_t written = fwrite(p->rgb, 1, bytes, f);
    return fclose(f) == 0 && written == bytes ? 0 : -1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: draw MODEL PROMPT FILE.ppm\n");
        return 2;
    }
    struct err e = {0};
    struct omni_model *model = NULL;
    if (omni_model_load(argv[1], &(struct omni_load_options){0}, &model, &e)) {
        fprintf(stderr, "draw: %s\n", e.text);
        return 1;
    }
    const struct omni_model_info *info = omni_model_info(model);
    const struct omni_request request = {
        .mode = OMNI_TEXT_TO_IMAGE,
        .prompt = argv[2],
        .width = info->default_width,
        .height = info->default_height,
        .frames = 1,
        .guidance = NAN, /* the checkpoint's own, like steps = 0 */
        .seed = 1,
    };
    const struct omni_callbacks callbacks = {.progress = on_progress};
    struct omni_result result = {0};
    int code = 0;
    if (omni_generate(model, &request, 1, &callbacks, &result, NULL, &e)) {
        fprintf(stderr, "\ndraw: %s\n", e.text);
        code = 1;
    } else if (write_ppm(argv[3], &result.picture)) {
        fprintf(stderr, "\ndraw: %s cannot be written\n", argv[3]);
        code = 1;
    } else {
        fprintf(stderr, "\n%s: %dx%d, %d steps\n", argv[3], result.picture.width,
                result.picture.height, result.steps);
    }
    picture_free(&result.picture);
    omni_model_free(model);
    return code;
}
