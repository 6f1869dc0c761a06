/* Weights and inputs that follow from names alone, so that known answers need no files: FNV-1a 64
 * of the name seeds a splitmix64 sequence u in [0, 1). */
#ifndef TESTS_DET_H
#define TESTS_DET_H

#include <stddef.h>
#include <stdint.h>

/* u of elements 0 … n-1. */
void det_uniform(const char *name, double *u, size_t n);
/* A weight by its name's ending and rank: running_var 0.5 + u; running_mean u - 0.5; norms
 * 1 + 0.2(u - 0.5); other vectors 0.2(u - 0.5); matrices uniform with variance 1/fan-in. */
void det_weight(const char *name, int rank, const int64_t *dims, float *out);
/* Inputs: uniform with variance 1. */
void det_input(const char *name, float *out, size_t n);

/* A checkpoint part in the making: a folder with config.json and generated weights. */
struct det_part;
struct det_part *det_part_new(void);
/* Adds a tensor; the name is printf-like. */
void det_part_add(struct det_part *p, int rank, const int64_t *dims, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The values of a tensor that was added, to damage or compare it. NULL when unknown. */
float *det_part_data(struct det_part *p, const char *name, size_t *count);
/* Writes FOLDER/config.json and FOLDER/STEM.safetensors (folders are made) and frees p; 0 or -1. */
int det_part_write(struct det_part *p, const char *folder, const char *stem, const char *config);

/* Mean and population deviation. */
void det_moments(const float *x, size_t n, double *mean, double *deviation);

#endif
