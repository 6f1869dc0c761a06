/* Sets of named fp32 tensors, written as .safetensors or .gguf in several types. */
#ifndef TESTS_TENSORS_H
#define TESTS_TENSORS_H

#include <stdint.h>

enum stored { STORED_F32, STORED_F16, STORED_BF16, STORED_Q8_0 };

struct named_tensor {
    char name[160];
    int rank;
    int64_t dims[4];
    float *data; /* NULL: the file has a hole there, which reads as zeros */
};

struct tensors {
    struct named_tensor *list;
    int count;
};

/* Adds a tensor of zeros; the caller fills `data`. */
struct named_tensor *tensors_add(struct tensors *s, const char *name, int rank,
                                 const int64_t *dims);
/* The same without data. */
struct named_tensor *tensors_add_hole(struct tensors *s, const char *name, int rank,
                                      const int64_t *dims);
/* NULL when there is none. */
struct named_tensor *tensors_find(const struct tensors *s, const char *name);
/* Adds all tensors of a part in the hub's layout. */
void tensors_read(struct tensors *s, const char *folder);
int64_t tensors_elements(const struct named_tensor *t);
/* Makes every value what a file of that type gives back. Matrices whose rows are no multiple of 32
 * and vectors stay fp32 in Q8_0 files. */
void tensors_round(struct tensors *s, enum stored as);
/* .safetensors (without Q8_0), or .gguf (without BF16), by the path's ending. */
void tensors_write(const struct tensors *s, enum stored as, const char *path);
void tensors_free(struct tensors *s);

#endif
