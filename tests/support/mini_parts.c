#include "mini_parts.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "det.h"
#include "engine/backend.h"
#include "engine/checkpoint.h"
#include "engine/device.h"
#include "engine/models/flux2_transformer.h"
#include "engine/text/qwen3.h"
#include "engine/vae/vae.h"

#define MODEL  "models/omni-mini"
#define TOKENS 112 /* of a prompt in reference.json */
#define WIDTH  656 /* of the text encoder */

struct bench {
    struct device device;
    struct checkpoint c;
    struct part *part;
    struct ops *o;
};

static void bench_open(struct bench *b, const char *device, enum dtype compute, const char *part,
                       const char *stem)
{
    struct err e = {0};
    if (device_open(device, 2, &b->device, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(checkpoint_open(&b->c, MODEL, &e), 0);
    b->c.backend = b->device.backend;
    b->c.compute = compute;
    if (checkpoint_part(&b->c, part, stem, &b->part, &e) != 0)
        fail_msg("%s", e.text);
    b->o = ops_new(b->device.backend, compute, 256 << 20, &e);
    assert_non_null(b->o);
}

static float *bench_close(struct bench *b, const struct tensor *y, size_t *n)
{
    struct err e = {0};
    if (ops_error(b->o, &e) != 0)
        fail_msg("%s", e.text);
    *n = (size_t)tensor_elements(y);
    float *x = malloc(*n * sizeof(float));
    op_to_host(b->o, y, x, *n * sizeof(float));
    ops_free(b->o);
    checkpoint_close(&b->c);
    device_close(&b->device);
    return x;
}

static struct tensor *input(struct bench *b, const char *name, int rank, const int64_t *dims)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    AUTO_FREE float *x = malloc(n * sizeof(float));
    det_input(name, x, n);
    return op_from_host(b->o, DTYPE_F32, rank, dims, x);
}

/* The first reference prompt. */
static void read_tokens(int32_t ids[TOKENS], int32_t mask[TOKENS])
{
    json_t *j = json_load_file(MODEL "/reference/reference.json", 0, NULL);
    const json_t *row = json_array_get(j, 0);
    const json_t *tokens = json_object_get(row, "tokens"), *shown = json_object_get(row, "mask");
    assert_int_equal(json_array_size(tokens), TOKENS);
    assert_int_equal(json_array_size(shown), TOKENS);
    for (size_t i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
        mask[i] = (int32_t)json_integer_value(json_array_get(shown, i));
    }
    json_decref(j);
}

float *mini_text_encoder(const char *device, enum dtype compute, size_t *n)
{
    struct bench b;
    struct err e = {0};
    struct qwen3 *q;
    struct qwen3_taken taken = {.count = 1, .layer = {2}}; /* as in model_index.json */
    int32_t ids[TOKENS], mask[TOKENS];
    read_tokens(ids, mask);
    bench_open(&b, device, compute, "text_encoder", "model");
    assert_int_equal(qwen3_load(b.part, &taken, &q, &e), 0);
    float *x = bench_close(&b, qwen3_encode(q, b.o, ids, mask, TOKENS), n);
    qwen3_free(q);
    return x;
}

float *mini_transformer(const char *device, enum dtype compute, size_t *n)
{
    struct bench b;
    struct err e = {0};
    struct flux2_transformer *t;
    struct tensor *cos, *sin;
    float positions[(TOKENS + 64) * FLUX2_AXES] = {0};
    for (int i = 0; i < TOKENS; i++)
        positions[i * FLUX2_AXES + 3] = (float)i;
    for (int i = 0; i < 64; i++) {
        positions[(TOKENS + i) * FLUX2_AXES + 1] = (float)(i / 8);
        positions[(TOKENS + i) * FLUX2_AXES + 2] = (float)(i % 8);
    }
    bench_open(&b, device, compute, "transformer", "diffusion_pytorch_model");
    assert_int_equal(flux2_transformer_load(b.part, &t, &e), 0);
    flux2_transformer_tables(t, b.o, positions, TOKENS + 64, &cos, &sin);
    size_t count;
    AUTO_FREE float *prompt = mini_text_encoder("cpu", DTYPE_F32, &count);
    assert_int_equal(count, TOKENS * WIDTH);
    struct tensor *read = op_from_host(b.o, DTYPE_F32, SHAPE(1, TOKENS, WIDTH), prompt);
    struct tensor *text = flux2_transformer_text(t, b.o, read);
    struct tensor *image = input(&b, "image", SHAPE(1, 64, 64));
    float *x =
        bench_close(&b, flux2_transformer_forward(t, b.o, image, text, cos, sin, 600, 64), n);
    flux2_transformer_free(t);
    return x;
}

static float *run_vae(const char *device, enum dtype compute, size_t *n, bool encode)
{
    struct bench b;
    struct err e = {0};
    struct vae v;
    bench_open(&b, device, compute, "vae", "diffusion_pytorch_model");
    assert_int_equal(vae_load(b.part, &v, &e), 0);
    struct tensor *y = encode ? vae_encode(&v, b.o, input(&b, "pixels", SHAPE(1, 64, 64, 3)))
                              : vae_decode(&v, b.o, input(&b, "latent", SHAPE(1, 16, 16, 16)));
    float *x = bench_close(&b, y, n);
    vae_free(&v);
    return x;
}

float *mini_encoder(const char *device, enum dtype compute, size_t *n)
{
    return run_vae(device, compute, n, true);
}

float *mini_decoder(const char *device, enum dtype compute, size_t *n)
{
    return run_vae(device, compute, n, false);
}

double mini_part_error(mini_part *part, const char *device)
{
    size_t n, m;
    AUTO_FREE float *exact = part("cpu", DTYPE_F32, &n);
    AUTO_FREE float *rough = part(device, DTYPE_BF16, &m);
    double error = 0, norm = 0;
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++) {
        error += pow((double)rough[i] - (double)exact[i], 2);
        norm += pow((double)exact[i], 2);
    }
    return sqrt(error / norm);
}

struct picture mini_picture(const char *device, enum omni_precision precision, int side)
{
    struct omni_load_options options = {.device = device, .precision = precision};
    struct omni_request r = {.mode = OMNI_TEXT_TO_IMAGE,
                             .prompt = "a red circle on a blue background",
                             .width = side,
                             .height = side,
                             .frames = 1,
                             .steps = 1,
                             .guidance = 1,
                             .seed = 5};
    struct omni_model *m = NULL;
    struct omni_result result = {0};
    struct omni_timings timings;
    struct err e = {0};
    if (omni_model_load(MODEL, &options, &m, &e) ||
        omni_generate(m, &r, 1, NULL, &result, &timings, &e))
        fail_msg("%s: %s", device, e.text);
    assert_int_equal(timings.planned_bytes, timings.peak_bytes);
    assert_string_equal(omni_model_info(m)->precision, omni_precision_name(precision));
    omni_model_free(m);
    return result.picture;
}

double mini_picture_error(const struct picture *a, const struct picture *b)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < picture_frame_bytes(a); i++) {
        double d = (double)a->rgb[i] - b->rgb[i];
        difference += d * d;
        size += (double)b->rgb[i] * b->rgb[i];
    }
    return sqrt(difference / size);
}
