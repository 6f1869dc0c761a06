/* What the sections of `omnifs bench` share. Each section is a table: an array of flat objects with
 * the same keys, which are the titles of its columns. */
#ifndef OMNIFS_CLI_BENCH_H
#define OMNIFS_CLI_BENCH_H

#include <jansson.h>

#include "cli/cli.h"
#include "engine/omni.h"

struct registry;
struct models;

struct bench {
    const struct registry *registry;
    struct models *models;
    const struct cli_words *profiles; /* none: all of the registry */
    double peak_fp32, peak_bf16;      /* GFLOP/s, measured by the first section */
    const char *synthetic;            /* a model without files, "klein-4b"; NULL: none */
    const char *device;               /* that draws it, "cuda:0"; NULL: the CPU */
    enum omni_precision precision;    /* of that picture */
    int width, height, steps;         /* of its picture; 0: the model's own */
    json_t
        *products; /* of that picture: bench_drawing makes, bench_products and bench_whole read */
};

/* Each fills `rows`; a sentence when this machine cannot do it. */
int bench_machine(struct bench *b, json_t *rows, struct err *e);
int bench_stages(struct bench *b, json_t *rows, struct err *e);
int bench_work(struct bench *b, json_t *rows, struct err *e);
int bench_operations(struct bench *b, json_t *rows, struct err *e);
int bench_drawing(struct bench *b, json_t *rows, struct err *e);
int bench_products(struct bench *b, json_t *rows, struct err *e);
int bench_whole(struct bench *b, json_t *rows, struct err *e);
int bench_files(struct bench *b, json_t *rows, struct err *e);

/* The median of n > 0 values, which are sorted in place. */
double bench_median(double *values, int n);

#endif
