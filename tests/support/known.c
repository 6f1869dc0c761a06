#include "known.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "scratch.h"

#define TOLERANCE 2e-5

void assert_expected(const float *x, size_t n, const struct expected *e)
{
    double mean, deviation;
    assert_int_equal(n, e->count);
    det_moments(x, n, &mean, &deviation);
    for (int i = 0; i < 5; i++)
        assert_float_equal(x[i], e->first[i], TOLERANCE);
    for (int i = 0; i < 3; i++)
        assert_float_equal(x[n - 3 + (size_t)i], e->last[i], TOLERANCE);
    assert_float_equal(mean, e->mean, 3e-6);
    assert_float_equal(deviation, e->deviation, 3e-6);
}

void bench_open(struct bench *b, struct det_part *p, const char *stem, const char *config)
{
    struct err e = {0};
    *b = (struct bench){0};
    assert_non_null(mkdtemp(scratch_name(b->folder, "omni-test-XXXXXX")));
    assert_int_equal(det_part_write(p, b->folder, stem, config), 0);
    assert_int_equal(cpu_backend_new(2, &b->backend, &e), 0);
    if (part_open(&b->part, b->folder, "part", stem, &e) != 0)
        fail_msg("%s", e.text);
    b->part.loader.backend = b->backend;
    b->part.loader.compute = DTYPE_F32;
    b->o = ops_new(b->backend, DTYPE_F32, 64 << 20, &e);
    assert_non_null(b->o);
}

void bench_close(struct bench *b)
{
    ops_free(b->o);
    part_close(&b->part);
    backend_free(b->backend);
    file_remove_tree(AT_FDCWD, b->folder);
}

float *values(struct bench *b, const struct tensor *t, size_t *n)
{
    struct err e = {0};
    if (ops_error(b->o, &e) != 0)
        fail_msg("%s", e.text);
    *n = (size_t)tensor_elements(t);
    float *x = malloc(*n * sizeof(float));
    assert_int_equal(op_to_host(b->o, t, x, *n * sizeof(float)), 0);
    return x;
}

struct tensor *input(struct bench *b, const char *name, int rank, const int64_t *dims)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)dims[i];
    AUTO_FREE float *x = malloc(n * sizeof(float));
    det_input(name, x, n);
    return op_from_host(b->o, DTYPE_F32, rank, dims, x);
}

void check(struct bench *b, const struct tensor *t, const struct expected *e)
{
    size_t n;
    AUTO_FREE float *x = values(b, t, &n);
    assert_expected(x, n, e);
}

const int to_last[4] = {0, 2, 3, 1}, to_first[4] = {0, 3, 1, 2};
